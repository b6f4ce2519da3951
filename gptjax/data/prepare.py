"""Writes a corpus: documents from any source, tokenized, in shards with a manifest.

    python -m gptjax.data.prepare --source=text:FILE --tokenizer=gpt2 --out=DIR

It can be killed at any moment and started again: it goes on where it was, and the corpus is byte
for byte that of an uninterrupted run, whatever the number of workers.

A document belongs to validation by a hash of its text alone, so its copies do too, in whatever order
they come. If that leaves either split with less than one window of --seq_len tokens (a corpus of one
file, or of little text), each document gives the end of itself instead, `validation_fraction` of it. If
that is less than a window too, nothing is held out. What was held out is printed, and in the manifest.
"""

if __name__ == '__main__':
  from gptjax.command import startup
  startup.begin('prepare', 'stopped; the same command continues where it was')

import argparse
import collections
import contextlib
import json
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gptjax.command import run
from gptjax.command.flag_types import WORKERS as MOST_WORKERS
from gptjax.command.flag_types import integer, real
from gptjax.data import blocks, encode, summary, workers
from gptjax.data import progress as progress_bar
from gptjax.data.clean import duplicates, webtext
from gptjax.data.corpus import corpus_manifest, held_out, shards
from gptjax.data.sources import documents
from gptjax.data.tokenizers import loading, special, training
from gptjax.errors import InputError
from gptjax.files import atomic, json_files, paths
from gptjax.storage import ownership

SHARD_TOKENS = 100_000_000  # 200 MB of uint16
FRACTIONS, WORKERS, SHARD_SIZES = real(0, 1, open_right=True), integer(1, MOST_WORKERS), integer(1, 2**40)
SEQ_LENS, SEQ_LEN = integer(1), 1024  # GPT-2's context
TRAIN_BPE = 'train-bpe:'
OLD_LOCK = '.lock'          # in corpora of versions up to 0.1.0
SKIPPED = 'skipped.txt'     # which documents were left out for what is wrong with them


class Job(NamedTuple):
  """What is asked for, checked."""
  reading: blocks.ReadOptions
  tokenizer: object     # or train-bpe:N
  out: Path
  validation_fraction: float
  seq_len: int          # tokens of a window, which is the least that is held out
  workers: int
  shard_tokens: int
  settings: dict        # all that the corpus depends on, as JSON
  commit_seconds: float
  progress: bool
  special_tokens: tuple


def prepare(source, tokenizer, out, *, validation_fraction, clean, workers, tfds_dir, on_error,
            document_separator='', clean_without=(), blocked_domains='', wikipedia_titles='',
            shard_tokens=SHARD_TOKENS, commit_seconds=2.0, progress=True, seq_len=SEQ_LEN,
            tfds_download=False, special_tokens=()):
  """Writes the corpus to the folder `out`, or goes on with it, or finds it finished.

  Args:
    source: list of sources (see `sources`).
    tokenizer: what `loading.load` takes, or `train-bpe:N`: a new byte-level BPE of N entries,
      trained on the sources.
    out: folder of the corpus, new, empty, or begun by the same call.
    validation_fraction: share of validation in [0, 1).
    clean: '' or 'webtext' (see `clean`).
    workers: processes; the corpus does not depend on it.
    tfds_dir: where TFDS keeps its data sets; '': its own default.
    tfds_download: whether data sets that are not there are prepared, which may download them.
    on_error: 'stop' or 'skip', at a document that cannot be used. Those skipped are counted in the
      manifest and listed in `skipped.txt`.
    document_separator: text between documents in a file of `text:`; '': a file is a document.
    clean_without: names of filters of the recipe to leave out.
    blocked_domains, wikipedia_titles: files for the recipe; '': none.
    shard_tokens: tokens a shard.
    commit_seconds: how often to commit what is done.
    progress: show a bar on stderr.
    seq_len: tokens of a window of evaluation: a held-out split has at least one window, or is empty.
    special_tokens: names of special tokens that a text may contain, or `('all',)`; others are text.

  Returns:
    The manifest, a dict.

  Raises:
    ValueError: a source or tokenizer that is not there; a document that cannot be used, named with
      file and line; a folder that holds something else.
  """
  FRACTIONS.require('validation_fraction', validation_fraction)
  WORKERS.require('workers', workers)
  SHARD_SIZES.require('shard_tokens', shard_tokens)
  SEQ_LENS.require('seq_len', seq_len)
  if on_error not in ('stop', 'skip'):
    raise InputError(f'on_error = {on_error!r} must be stop or skip')
  if tokenizer.startswith(TRAIN_BPE):
    training.VOCAB_SIZES.parse(f'tokenizer {tokenizer}, which is {TRAIN_BPE}N', tokenizer[len(TRAIN_BPE):])
  recipe = webtext.make_recipe(clean, clean_without, blocked_domains, wikipedia_titles)
  units = documents.units(source, tfds_dir, tfds_download)
  given = None if tokenizer.startswith(TRAIN_BPE) else loading.load(tokenizer)
  settings = {
    'sources': documents.recorded_sources(source, units), 'inputs': documents.units_digest(units),
    'clean': recipe.description, 'tokenizer': given.digest if given else tokenizer,
    'validation_fraction': validation_fraction, 'document_separator': document_separator,
    'shard_tokens': shard_tokens, 'seq_len': seq_len,
    'special_tokens': list(special_tokens) or None}
  if given:
    special.resolve_names(given, special_tokens)
  reading = blocks.ReadOptions(units, document_separator, tfds_dir, on_error == 'stop', recipe)
  job = Job(reading, given or tokenizer, Path(out), validation_fraction, seq_len, workers, shard_tokens,
            settings, commit_seconds, progress, tuple(special_tokens))
  with ownership.own_folder(job.out):
    return _finished(job) or _run(job)


def _finished(job):
  """The manifest of a corpus that is already there; ValueError if it is another one."""
  if not (job.out / 'manifest.json').exists():
    return None
  manifest = corpus_manifest.read_manifest(job.out)
  _check_same(job, manifest.get('settings', {}))
  _remove_work(job.out)
  return manifest


def _check_same(job, settings):
  units = job.reading.units
  for name, value in job.settings.items():
    older = value if name == 'seq_len' else None  # versions up to 0.1.0 held out any number of tokens
    stored = settings.get(name, older)
    if name == 'sources' and stored:  # those versions recorded URLs as they were given
      stored = documents.recorded_sources(stored, units)
    if stored != value and not (name == 'inputs' and stored == documents.legacy_units_digest(units)):
      raise InputError(f'{job.out} holds a corpus, or the beginning of one, with another {name} '
                       f'({str(stored)[:60]}, not {str(value)[:60]}): remove it or give another --out')


def _run(job):
  """All stages, from wherever they were left."""
  state = shards.load_state(job.out)
  if state is None:
    strange = [path.name for path in job.out.iterdir()
               if path.name not in (ownership.FILE, OLD_LOCK) and path.suffix != '.new']
    if strange:
      raise InputError(f'{job.out} is not empty (it holds {min(strange)}): give a new folder as '
                       '--out')
    state = {'settings': job.settings}
    shards.save_state(job.out, state)
  if fault := json_files.layout_fault(state, {'settings': {'?sources': [str]}}):
    raise InputError(f'{job.out / shards.STATE} is damaged ({fault}): remove {job.out} and begin again')
  _check_same(job, state['settings'])
  verdicts = _judge(job, state) if job.reading.recipe.filters else np.zeros(0, np.uint8)
  if 'tail' not in state:
    tokenizer = _tokenizer(job, verdicts)
    state['tokenizer'] = {'name': tokenizer.name, 'digest': tokenizer.digest,
                          'n_vocab': tokenizer.n_vocab, 'end_of_text': tokenizer.end_of_text}
    state['special_tokens'] = special.resolve_names(tokenizer, job.special_tokens)
    kept = blocks.label_pieces(job.reading, blocks.Position(), verdicts)
    state |= held_out.choose_rule((piece for _, piece, why in kept if not why), tokenizer,
                                  job.validation_fraction, job.seq_len, state['special_tokens'])
    shards.save_state(job.out, state)
  return _finish(job, state, _encode(job, state, verdicts))


def _judge(job, state):
  """uint8[documents]: which filter removes each document, 0 for those that stay."""
  if 'judged' not in state:
    state['judged'] = {'position': blocks.Position(), 'done': False, 'no_origin': 0}
  judged = state['judged']
  if not judged['done']:
    position = blocks.Position(*judged['position'])
    whole = (item for item in blocks.label_pieces(job.reading, position, ()) if item[1].start == 0)
    work = blocks.make_blocks(whole, position, lambda after, piece: (
      after.documents - 1, piece.digest, piece.text, piece.fields))
    with (contextlib.closing(duplicates.FeatureColumns(job.out, position.documents)) as columns,
          _Progress(job, state, columns, 'judging', position) as progress):
      for block, found in workers.map_in_order(duplicates.make_feature_function, [job.reading.recipe], work,
                                               job.workers):
        columns.add(found, block.position.documents)
        judged['position'] = block.position
        if 'no_origin' in judged:  # the state of versions up to 0.1.0 does not count them
          judged['no_origin'] += found.no_origin
        progress.update(found.n_bytes, block.position)
      columns.complete()
    duplicates.write_verdicts(job.out, job.reading.recipe, judged['position'].documents)
    judged['done'] = True
    shards.save_state(job.out, state)
  return np.fromfile(job.out / duplicates.FINAL_VERDICTS, np.uint8)


def _tokenizer(job, verdicts):
  """The tokenizer, trained first if that is asked for; its files are put into the corpus."""
  made, folder = job.tokenizer, job.out / 'tokenizer'
  if isinstance(made, str):
    kept = blocks.label_pieces(job.reading, blocks.Position(), verdicts)
    texts = (piece.text for _, piece, why in kept if not why)
    made = training.train('bpe', int(made[len(TRAIN_BPE):]), texts, progress=job.progress)
  atomic.remove(folder)  # Half written by a process that was killed.
  made.save(folder)
  atomic.sync_tree(folder)
  atomic.sync(job.out)
  return made


def _encode(job, state, verdicts):
  """Writes the shards; gives {split: its entry in the manifest}."""
  if 'position' not in state:
    state.update(position=blocks.Position(), skipped={}, skipped_bytes=0,
                 splits={name: shards.SplitWriter.empty() for name in encode.SPLITS})
  position, fraction = blocks.Position(*state['position']), state.get('fraction', job.validation_fraction)
  kept = blocks.label_pieces(job.reading, position, verdicts)
  work = blocks.make_blocks(kept, position, lambda after, piece: (
    piece.text, encode.in_validation(piece.digest, fraction), piece.start, piece.length, piece.place))
  settings = [str(job.out / 'tokenizer'), _dtype(state).name, state['tail'], state.get('special_tokens', ())]
  with contextlib.closing(_Output(job, state)) as output:
    with _Progress(job, state, output, 'encoding', position) as progress:
      for block, (*encoded, silent, failures) in workers.map_in_order(encode.make_encoder, settings, work,
                                                        job.workers):
        output.add(block, encoded, silent, failures)
        progress.update(sum(part.n_bytes for part in encoded), block.position)
    size = sum(split['tokens'] * _dtype(state).itemsize + 8 * split['documents']
               for split in state['splits'].values())
    with progress_bar.bytes_bar('hashing', job.progress, total=size) as bar:
      return output.complete(bar.update)


def _dtype(state):
  return np.dtype('<u2' if state['tokenizer']['n_vocab'] <= 1 << 16 else '<u4')


class _Output:
  """The files of a corpus, and the part of the state that speaks of them."""

  def __init__(self, job, state):
    self._state, self._stop = state, job.reading.stop_on_error
    self._splits = [shards.SplitWriter(job.out, name, _dtype(state), job.shard_tokens,
                                       state['splits'][name]) for name in encode.SPLITS]
    self._skipped = shards.AppendOnlyFile(job.out / SKIPPED, state['skipped_bytes'])

  def add(self, block, encoded, silent, failures):
    for place, problem in failures[:self._stop]:
      raise InputError(blocks.unusable_document_message(place, problem))
    for split, part in zip(self._splits, encoded, strict=True):
      split.add(*part)
    messages = [*block.messages, *(f'{place}: {problem}\n' for place, problem in failures)]
    self._skipped.write(''.join(messages).encode(errors='backslashreplace'))
    counts = collections.Counter(self._state['skipped']) + block.skipped
    failed = len({place for place, _ in failures})
    counts += collections.Counter({'no tokens': silent, encode.ENCODE_FAILED: failed})
    self._state.update(position=block.position, skipped=dict(counts),
                       skipped_bytes=self._skipped.length)

  def sync(self):
    for file in (*self._splits, self._skipped):
      file.sync()

  def close(self):
    for file in (*self._splits, self._skipped):
      file.close()

  def complete(self, tell):
    self._skipped.complete()
    made = {name: split.complete(tell)
            for name, split in zip(encode.SPLITS, self._splits, strict=True)}
    return {name: entry for name, entry in made.items() if entry}


class _Progress:
  """A bar, and a commit every so often."""

  def __init__(self, job, state, files, name, position):
    self._job, self._state, self._files = job, state, files
    units = job.reading.units
    sizes = [unit.size or 0 for unit in units]
    expected = sum(sizes) if all(map(documents.is_uncompressed, units)) else 0
    self._bar = progress_bar.ProgressBar(name, sizes, expected, position.unit,
                                         sum(split['bytes'] for split in self._splits()), job.progress)
    self._committed = time.monotonic()

  def _splits(self):
    return self._state.get('splits', {}).values()

  def __enter__(self):
    return self

  def __exit__(self, *error):
    self._bar.close()

  def update(self, n_bytes, position):
    """After a block with so much text; commits if the last commit is long enough ago."""
    tokens = sum(split['tokens'] for split in self._splits())
    self._bar.update(n_bytes, position.unit,
                     f'{tokens / 1e6:.1f} M tokens' if tokens else f'{position.documents:,} documents')
    if time.monotonic() - self._committed >= self._job.commit_seconds:
      self._files.sync()
      shards.save_state(self._job.out, self._state)
      self._committed = time.monotonic()


def _finish(job, state, splits):
  """Writes the manifest and removes what only the writing needed."""
  if not splits:
    raise InputError(f'the sources {job.settings["sources"]} hold no document that is kept: '
                     f'{state["skipped"]}')
  manifest = {
    'version': corpus_manifest.VERSION, 'dtype': 'uint16' if _dtype(state).itemsize == 2 else 'uint32',
    'tokenizer': state['tokenizer'], 'sources': job.settings['sources'],
    'clean': job.reading.recipe.description, 'validation_fraction': job.validation_fraction,
    'validation': held_out.describe(state, job.validation_fraction, job.seq_len),
    'splits': splits, 'skipped': state['skipped'], 'settings': job.settings,
    'content': corpus_manifest.content_digest(state['tokenizer'], splits)}
  judged = state.get('judged', {})
  if 'no_origin' in judged and {'blocked_domain', 'wikipedia'} & set(job.reading.recipe.filters):
    seen = blocks.Position(*judged['position']).documents
    manifest['no_origin'] = {'documents': judged['no_origin'], 'of': seen}
  manifest['digest'] = corpus_manifest.manifest_digest(manifest)
  atomic.write(job.out / 'manifest.json', json.dumps(manifest, sort_keys=True, indent=1) + '\n')
  _remove_work(job.out)
  return manifest


def _remove_work(folder):
  atomic.sync(folder)  # a process that was killed may have written the manifest and not synced its name
  for name in (shards.STATE, *duplicates.FILES, duplicates.FINAL_VERDICTS):
    (folder / name).unlink(missing_ok=True)


def main(arguments):
  parser = run.Parser(prog='python -m gptjax.data.prepare', description=__doc__,
                          formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--source', action='append', required=True, help='KIND:WHERE; repeatable')
  parser.add_argument('--tokenizer', required=True,
                      help='gpt2, gpt2:DIR, gpt1:DIR, bpe:DIR, sentencepiece:FILE or train-bpe:N')
  parser.add_argument('--out', type=paths.flag, required=True, help='folder of the corpus')
  parser.add_argument('--validation_fraction', type=FRACTIONS, default=0.005)
  parser.add_argument('--seq_len', type=SEQ_LENS, default=SEQ_LEN,
                      help=f'tokens of a window of evaluation: less is not held out (default {SEQ_LEN})')
  parser.add_argument('--clean', default='', help="'' or webtext")
  parser.add_argument('--clean_without', default='', help='filters to leave out: NAME,NAME')
  parser.add_argument('--blocked_domains', type=paths.flag, default='', help='file with a domain a line')
  parser.add_argument('--wikipedia_titles', type=paths.flag, default='', help='file with a title a line')
  parser.add_argument('--workers', type=WORKERS, default=1, help='processes')
  parser.add_argument('--tfds_dir', type=paths.flag, default='', help='where tfds: finds its data sets')
  parser.add_argument('--tfds_download', action='store_true',
                      help='prepare data sets of tfds: that are not there, which may download them')
  parser.add_argument('--on_error', default='stop', help='stop or skip')
  parser.add_argument('--document_separator', default='',
                      help=r'between documents in a file of text: and tar: (\n and \t are understood)')
  parser.add_argument('--shard_tokens', type=SHARD_SIZES, default=SHARD_TOKENS)
  parser.add_argument('--special_tokens', action='append', default=[], metavar='NAME',
                      help='a special token that a text may contain, or all; repeatable; none: text is text')
  flags = vars(parser.parse_args(arguments))
  separator = flags.pop('document_separator').replace('\\n', '\n').replace('\\t', '\t')
  without = [name for name in flags.pop('clean_without').split(',') if name]
  began = time.monotonic()
  manifest = prepare(**flags, document_separator=separator, clean_without=without)
  print(summary.format_summary(manifest, time.monotonic() - began))


if __name__ == '__main__':
  run.run(main, 'prepare')
