"""The stage `encode`: the tokens of the documents of a part that are kept.

The result of a part, for each of the splits:

    NAME.train          ids of the tokens, of `tree.id_dtype`
    NAME.train-starts   uint64: the first token of each document, counted from the first of the part
    NAME.skipped        a line for each document with a problem
"""

import collections
import contextlib

import numpy as np

from gptjax.data import encode
from gptjax.data.corpus import tree
from gptjax.data.stages import parts, tokenizer, work
from gptjax.errors import InputError
from gptjax.storage.files import paths

BLOCK_CHARACTERS = 1 << 20  # encoded together


def make_encoder(job):
  """Return the function of `encode.make_encoder` for the tokenizer of a corpus."""
  tokenizer.require_unchanged(job)
  chosen = tokenizer.chosen(job)
  dtype = tree.id_dtype(chosen['tokenizer']['n_vocab']).name
  return encode.make_encoder(str(paths.location(job.work / tokenizer.FILES)), dtype, chosen['rule']['tail'],
                             chosen['special_tokens'])


def encode_part(job, number, encoder):
  """Encode a part by the function of `make_encoder`."""
  folder, name = job.work / 'encode', f'{number:05d}'
  fraction = tokenizer.chosen(job)['rule']['fraction']
  totals = {split: {'tokens': 0, 'documents': 0, 'bytes': 0} for split in encode.SPLITS}
  skipped, n_failed, last_failed = collections.Counter(), 0, -1
  with contextlib.ExitStack() as stack:
    open_file = lambda suffix: stack.enter_context(work.writing(folder / f'{name}.{suffix}'))
    files = {split: (open_file(split), open_file(f'{split}-starts')) for split in encode.SPLITS}
    problems = open_file('skipped')
    note = lambda *problem: problems.write(parts.problem_line(*problem).encode(errors='backslashreplace'))
    for block, documents in _blocks(job, number, fraction, skipped, note):
      *encoded, n_empty, failures = encoder(block)
      for index, problem in failures:
        location = block[index][-1]
        if job.reading.stop_on_error:
          raise InputError(parts.unusable_message(location, problem))
        note(location, problem)
        n_failed += documents[index] != last_failed  # a document may be in several blocks
        last_failed = documents[index]
      skipped['no tokens'] += n_empty
      for split, part in zip(encode.SPLITS, encoded, strict=True):
        total, (tokens, starts) = totals[split], files[split]
        starts.write((part.starts + np.uint64(total['tokens'])).astype('<u8').data)
        tokens.write(part.tokens.data)
        total['tokens'] += len(part.tokens)
        total['documents'] += len(part.starts)
        total['bytes'] += part.n_bytes
    skipped[encode.ENCODE_FAILED], size = n_failed, problems.tell()
  work.write_record(folder, name, {'splits': totals, 'skipped': dict(+skipped), 'skipped_bytes': size})


def _blocks(job, number, fraction, skipped, note):
  """Yield (list of what `encode.make_encoder` takes, list of the number of the document of each).

  Args:
    job, number, fraction: as in `encode_part`.
    skipped: Counter of the documents that are left out.
    note: called with the location and the problem of each that is unusable.
  """
  block, documents, size, document = [], [], 0, -1
  for piece, reason in tokenizer.labelled_pieces(job, number):
    if reason:
      skipped[reason] += piece.start == 0
      if piece.problem:
        note(piece.location, piece.problem)
      continue
    document += piece.start == 0
    held = encode.in_validation(piece.digest, fraction)
    block.append((piece.text, held, piece.start, piece.length, piece.location))
    documents.append(document)
    size += len(piece.text)
    if size >= BLOCK_CHARACTERS:
      yield block, documents
      block, documents, size = [], [], 0
  yield block, documents
