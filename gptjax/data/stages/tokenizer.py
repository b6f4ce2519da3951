"""The stage `tokenizer`, one task: the tokenizer of the corpus, and what is held out.

The files of the tokenizer are in the folder `FILES` of the work folder until the manifest is written.
"""

import contextlib
import hashlib
import itertools

from gptjax.data.corpus import held_out
from gptjax.data.stages import judge, match, parts, work
from gptjax.data.stages import verdicts as final
from gptjax.data.tokenizers import loading, special, tokenizer_files, training
from gptjax.errors import InputError
from gptjax.storage.files import access, atomic, paths

NAME, FILES = 'tokenizer', 'tokenizer_files'
EXCLUDED = 'shares words with a test set'  # the reason under which documents are counted


def kept_pieces(job):
  """Yield the pieces of all documents that are kept."""
  for number in range(job.n_parts):
    for piece, reason in labelled_pieces(job, number):
      if not reason:
        yield piece


def labelled_pieces(job, number):
  """Yield (piece, reason why its document is not in the corpus or '') for all pieces of a part.

  Where shared words are removed, each stretch between them is a document of its own.
  """
  if not job.excluded and not job.reading.recipe.filters:
    for piece in parts.pieces(job, number):
      yield piece, piece.problem.partition(':')[0]
    return
  for found, own in itertools.zip_longest(judge.by_segment(job, number), final.verdicts(job, number)):
    if found is None or own is None:
      raise parts.changed(job, 'a source')
    segment, pieces = found
    labelled = _labelled(job, pieces, own)
    if job.excluded:
      path = job.work / 'judge' / f'{number:05d}.{segment}.stretches'
      yield from match.stretches_of(labelled, work.read(path, match.STRETCH))
    else:
      for piece, _, reason in labelled:
        yield piece, reason


def _labelled(job, pieces, verdicts):
  """Yield (piece, number of its document, reason) for all pieces of a segment.

  Raises:
    InputError: the segment has other documents than when it was judged.
  """
  document = -1
  for piece in pieces:
    document += piece.start == 0
    if document == len(verdicts):
      break
    reason = piece.problem.partition(':')[0]
    if not reason and verdicts[document] == judge.EXCLUDED:
      reason = EXCLUDED
    elif not reason and verdicts[document] not in (0, judge.UNUSABLE):
      reason = job.reading.recipe.reason(verdicts[document])
    yield piece, document, reason
  if document + 1 != len(verdicts):
    raise parts.changed(job, 'a source')


def choose(job, number=0):
  """Write the tokenizer, and the record of what is held out."""
  assert number == 0, number
  to_train = training.parse_spec(job.tokenizer)
  if to_train:
    tokenizer = training.train(*to_train, (piece.text for piece in kept_pieces(job)), progress=job.progress)
  else:
    tokenizer = loading.load(job.tokenizer)
  tokenizer.save(paths.location(job.work / FILES))
  names = special.resolve_names(tokenizer, job.special_tokens)
  rule = held_out.choose_rule(kept_pieces(job), tokenizer, job.validation_fraction, job.seq_len, names)
  work.write_record(job.work, NAME, {
    'special_tokens': names, 'rule': rule, 'files': _digests(tokenizer_files.saved_files(tokenizer)),
    'tokenizer': {'name': tokenizer.name, 'digest': tokenizer.digest, 'n_vocab': tokenizer.n_vocab,
                  'end_of_text': tokenizer.end_of_text}})


def is_chosen(job):
  """Return whether this stage is complete."""
  return access.is_file(job.work / f'{NAME}.json')


def copy_files(job):
  """Write `OUT/tokenizer`, with nothing else in it but what other tasks are writing at the same time."""
  source, target = job.work / FILES, job.out / 'tokenizer'
  names = chosen(job)['files']  # not those that are there: another task may have begun to remove the work
  access.make_folder(target)
  for name in access.names(target):
    if name not in names and not atomic.LEFTOVER.fullmatch(name):
      access.remove(target / name)
  for name in names:
    access.copy(source / name, target / name)


def require_unchanged(job):
  """Raise InputError if the files of the tokenizer are not those that this stage has written."""
  folder, record = job.work / FILES, chosen(job)
  found = {}
  for name in record['files']:
    with contextlib.suppress(FileNotFoundError):
      found[name] = access.read(folder / name)
  if _digests(found) != record['files']:
    raise InputError(f'{folder} is damaged: remove {job.work / NAME}.json, and run --stage={NAME} again (or '
                     'all stages)')


def _digests(files):
  """Return {name: SHA-256 (hex)} of {name: bytes}."""
  return {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())}


def chosen(job):
  """Return the record of this stage, which each process reads once.

  Raises:
    Incomplete: the stage is not complete.
  """
  if NAME not in job.known:
    record = work.read_record(job.work, NAME)
    if record is None:
      raise work.Incomplete(f'{job.out}: --stage={NAME} is not complete: run it first')
    job.known[NAME] = record
  return job.known[NAME]
