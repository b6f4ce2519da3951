"""Writes a corpus: documents from any source, tokenized, in shards with a manifest.

    python -m gptjax.data.prepare --source=text:FILE --tokenizer=gpt2 --out=DIR

The command can be killed at any moment and started again: it resumes after its last commit, and the corpus
is byte-identical to that of an uninterrupted run, whatever the number of workers.

A hash of a document's text decides whether it belongs to validation, so all its copies are in the same
split, in any order. If either split would have less than one window of --seq_len tokens (a corpus of one
file, or of little text), the last `validation_fraction` of each document is held out instead. If that is
less than a window too, nothing is held out. The chosen rule is printed and recorded in the manifest.
"""

if __name__ == '__main__':
  from gptjax.command import early, startup
  from gptjax.command.parsers.prepare import parser
  startup.begin('prepare', 'stopped; run the same command again to continue')
  early.handle_help(parser, 'prepare')

import contextlib
import errno
import json
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gptjax import errors
from gptjax.command import run
from gptjax.command.parsers.prepare import (
  FRACTIONS,
  NEAR_FLAGS,
  SEQ_LEN,
  SEQ_LENS,
  SHARD_SIZES,
  SHARD_TOKENS,
  WORKERS,
  parser,
)
from gptjax.data import blocks, encode, summary, upload, workers
from gptjax.data import progress as progress_bar
from gptjax.data.clean import duplicates, near_presets, webtext
from gptjax.data.corpus import corpus_manifest, held_out, shards
from gptjax.data.output import Output, Progress, token_dtype
from gptjax.data.sources import documents
from gptjax.data.tokenizers import loading, special, training
from gptjax.errors import InputError
from gptjax.storage import owner_record, ownership
from gptjax.storage.files import access, atomic, cache, json_files, local, paths
from gptjax.storage.files.paths import Url

OLD_LOCK = '.lock'          # in corpora of versions up to 0.1.0


class Job(NamedTuple):
  """The checked arguments of `prepare`."""
  reading: blocks.ReadOptions
  tokenizer: object     # a tokenizer, or (kind, number of entries or None) of one to train
  out: object           # Path or Url of the corpus
  validation_fraction: float
  seq_len: int          # tokens of a window: the least amount that is held out
  workers: int
  shard_tokens: int
  settings: dict        # everything that the corpus depends on, as JSON
  commit_seconds: float
  progress: bool
  special_tokens: tuple
  uploader: object = None  # upload.Uploader, if `out` is the spool of a corpus in a bucket


def prepare(source, tokenizer, out, *, validation_fraction, clean, workers, tfds_dir, on_error,
            document_separator='', clean_without=(), blocked_domains='', wikipedia_titles='',
            shard_tokens=SHARD_TOKENS, commit_seconds=2.0, progress=True, seq_len=SEQ_LEN,
            tfds_download=False, special_tokens=(), near=None):
  """Write a corpus to the folder `out`, resume writing it, or return if it is already complete.

  Args:
    source: list of sources (see `sources.documents`).
    tokenizer: as for `loading.load`; or trained on the sources: `train-bpe:N`, a new byte-level BPE with N
      entries, or `train-char`, a tokenizer whose entries are the characters of the sources.
    out: folder of the corpus, here or in a bucket: new, empty, or started by the same call.
    validation_fraction: share of validation in [0, 1).
    clean: '' or 'webtext' (see `clean`).
    workers: number of processes; it does not change the corpus.
    tfds_dir: folder of the TFDS data sets; '': the default of TFDS.
    tfds_download: whether to prepare missing data sets, which may download them.
    on_error: 'stop' or 'skip': what to do with an unusable document. Skipped documents are counted in the
      manifest and listed in `skipped.txt`.
    document_separator: text between documents in a file of `text:`; '': a file is a document.
    clean_without: names of filters of the recipe to disable.
    near: near_presets.Near: which documents are near duplicates; None: the standard preset.
    blocked_domains, wikipedia_titles: files for the recipe; '': none.
    shard_tokens: tokens per shard.
    commit_seconds: seconds between commits of the progress.
    progress: show a progress bar on stderr.
    seq_len: tokens of an evaluation window: a held-out split has at least one window, or is empty.
    special_tokens: names of special tokens that a text may contain, or `('all',)`; others are plain text.

  Returns:
    The manifest, a dict.

  Raises:
    ValueError: a missing source or tokenizer; an unusable document, with its file and line; a folder that
      holds something else.
  """
  FRACTIONS.require('validation_fraction', validation_fraction)
  WORKERS.require('workers', workers)
  SHARD_SIZES.require('shard_tokens', shard_tokens)
  SEQ_LENS.require('seq_len', seq_len)
  if on_error not in ('stop', 'skip'):
    raise InputError(f'on_error = {on_error!r} must be stop or skip')
  to_train = training.parse_spec(tokenizer)
  recipe = webtext.make_recipe(clean, clean_without, blocked_domains, wikipedia_titles, near)
  units = documents.units(source, tfds_dir, tfds_download)
  requested = None if to_train else loading.load(tokenizer)
  settings = {
    'sources': documents.recorded_sources(source, units), 'inputs': documents.units_digest(units),
    'clean': recipe.description, 'tokenizer': requested.digest if requested else tokenizer,
    'validation_fraction': validation_fraction, 'document_separator': document_separator,
    'shard_tokens': shard_tokens, 'seq_len': seq_len,
    'special_tokens': list(special_tokens) or None}
  if requested:
    special.resolve_names(requested, special_tokens)
  reading = blocks.ReadOptions(units, document_separator, tfds_dir, on_error == 'stop', recipe)
  job = Job(reading, requested or to_train, paths.parsed(out), validation_fraction, seq_len, workers,
            shard_tokens, settings, commit_seconds, progress, tuple(special_tokens))
  if isinstance(job.out, Url):
    return _finished(job) or _run_in_spool(job)
  with ownership.own_folder(job.out):
    return _finished(job) or _run(job)


def _run_in_spool(job):
  """Prepare a corpus in a folder of this machine, which holds all of it, and upload it to the bucket."""
  spool = cache.spool(job.out)
  uploader = upload.Uploader(spool, job.out)
  with ownership.own_folder(job.out), ownership.own_folder(spool), contextlib.closing(uploader):
    if manifest := _finished(job):  # by the previous owner
      return manifest
    _check_same(job, uploader.begin(job.settings))
    uploader.start(job.settings)
    local = job._replace(out=spool, uploader=uploader)
    try:
      return uploader.finish(_finished(local) or _run(local), job.progress)
    except Exception as error:
      fault = errors.system_fault(error)
      full = fault and fault.number in (errno.ENOSPC, errno.EDQUOT)
      if full and Path(fault.path or spool).is_relative_to(spool):
        raise InputError(_no_room(job.out, spool)) from error
      raise


def _no_room(url, spool):
  return (f'no space left on the disk of {spool}, which holds the whole corpus until it is in {url}: free '
          'some and run the same command again; or give --out on a larger disk, and copy that folder to the '
          'bucket')


def _finished(job):
  """Return the manifest of the finished corpus, or None; ValueError if it is another corpus."""
  if not access.is_file(job.out / 'manifest.json'):
    return None
  manifest = corpus_manifest.read_manifest(job.out)
  _check_same(job, manifest.get('settings', {}))
  _remove_work(job.out)
  return manifest


def _check_same(job, settings):
  units = job.reading.units
  for name, value in job.settings.items():
    default = value if name == 'seq_len' else None  # versions up to 0.1.0 held out any number of tokens
    stored = settings.get(name, default)
    if name == 'sources' and stored:  # those versions recorded URLs unredacted
      stored = documents.recorded_sources(stored, units)
    if stored != value and not (name == 'inputs' and stored == documents.legacy_units_digest(units)):
      raise InputError(f'{job.out} holds a corpus, complete or partial, with another {name} '
                       f'({_shown(stored)}, not {_shown(value)}): remove it or give another --out')


def _shown(setting):
  return (repr(setting) if isinstance(setting, str) and not setting.strip() else str(setting))[:60]


def _run(job):
  """Run all stages, from the last commit on."""
  state = shards.load_state(job.out)
  if state is None:
    unexpected = [name for name in access.names(job.out)
                  if name not in (owner_record.FILE, OLD_LOCK) and not name.endswith('.new')]
    if unexpected:
      raise InputError(f'{job.out} is not empty (it holds {min(unexpected)}): give a new folder '
                       'as --out')
    state = {'settings': job.settings}
    shards.save_state(job.out, state)
  if fault := json_files.layout_fault(state, {'settings': {'?sources': [str]}}):
    raise InputError(f'{job.out / shards.STATE} is damaged ({fault}): remove {job.out} and begin again')
  if state.keys() == {'settings'} and state['settings'] != job.settings:  # nothing has been made from them
    state = {'settings': job.settings}
    shards.save_state(job.out, state)
  _check_same(job, state['settings'])
  verdicts = _filter(job, state) if job.reading.recipe.filters else np.zeros(0, np.uint8)
  if 'tail' not in state:
    tokenizer = _tokenizer(job, verdicts)
    state['tokenizer'] = {'name': tokenizer.name, 'digest': tokenizer.digest,
                          'n_vocab': tokenizer.n_vocab, 'end_of_text': tokenizer.end_of_text}
    state['special_tokens'] = special.resolve_names(tokenizer, job.special_tokens)
    pieces = blocks.label_pieces(job.reading, blocks.Position(), verdicts)
    state |= held_out.choose_rule((piece for _, piece, reason in pieces if not reason), tokenizer,
                                  job.validation_fraction, job.seq_len, state['special_tokens'])
    shards.save_state(job.out, state)
  return _finish(job, state, _encode(job, state, verdicts))


def _filter(job, state):
  """Return uint8[documents]: the number of the filter that removes each document, or 0."""
  if 'judged' not in state:
    state['judged'] = {'position': blocks.Position(), 'done': False, 'no_origin': 0}
  judged = state['judged']
  if not judged['done']:
    position = blocks.Position(*judged['position'])
    first_pieces = (item for item in blocks.label_pieces(job.reading, position, ()) if item[1].start == 0)
    work = blocks.make_blocks(first_pieces, position, lambda after, piece: (
      after.documents - 1, piece.digest, piece.text, piece.fields))
    with (contextlib.closing(duplicates.FeatureColumns(job.out, position.documents,
                                                        job.reading.recipe.near)) as columns,
          Progress(job, state, columns, 'judging', position) as progress):
      for block, features in workers.map_in_order(duplicates.make_feature_function, [job.reading.recipe],
                                                  work, job.workers):
        columns.add(features, block.position.documents)
        judged['position'] = block.position
        if 'no_origin' in judged:  # the state of versions up to 0.1.0 does not count them
          judged['no_origin'] += features.no_origin
        progress.update(features.n_bytes, block.position)
      columns.complete()
    duplicates.write_verdicts(job.out, job.reading.recipe, judged['position'].documents)
    judged['done'] = True
    shards.save_state(job.out, state)
  return local.array(job.out / duplicates.FINAL_VERDICTS, np.uint8)


def _tokenizer(job, verdicts):
  """Return the tokenizer, trained first if requested, and write its files into the corpus."""
  tokenizer, folder = job.tokenizer, job.out / 'tokenizer'
  if isinstance(tokenizer, tuple):
    pieces = blocks.label_pieces(job.reading, blocks.Position(), verdicts)
    texts = (piece.text for _, piece, reason in pieces if not reason)
    tokenizer = training.train(*tokenizer, texts, progress=job.progress)
  atomic.remove(folder)  # a killed process may have left it incomplete
  tokenizer.save(folder)
  atomic.sync_tree(folder)
  atomic.sync(job.out)
  return tokenizer


def _encode(job, state, verdicts):
  """Write the shards; return {split: its entry in the manifest}."""
  if 'position' not in state:
    state.update(position=blocks.Position(), skipped={}, skipped_bytes=0,
                 splits={name: shards.SplitWriter.empty() for name in encode.SPLITS})
  position, fraction = blocks.Position(*state['position']), state.get('fraction', job.validation_fraction)
  pieces = blocks.label_pieces(job.reading, position, verdicts)
  work = blocks.make_blocks(pieces, position, lambda after, piece: (
    piece.text, encode.in_validation(piece.digest, fraction), piece.start, piece.length, piece.location))
  settings = [str(job.out / 'tokenizer'), token_dtype(state).name, state['tail'],
              state.get('special_tokens', ())]
  with contextlib.closing(Output(job, state)) as output:
    with Progress(job, state, output, 'encoding', position) as progress:
      for block, (*encoded, n_empty, failures) in workers.map_in_order(encode.make_encoder, settings, work,
                                                                       job.workers):
        output.add(block, encoded, n_empty, failures)
        progress.update(sum(part.n_bytes for part in encoded), block.position)
    size = sum(split['tokens'] * token_dtype(state).itemsize + 8 * split['documents']
               for split in state['splits'].values())
    with progress_bar.bytes_bar('hashing', job.progress, total=size) as bar:
      return output.complete(bar.update)


def _finish(job, state, splits):
  """Write the manifest and remove temporary files."""
  if not splits:
    raise InputError(f'the sources {job.settings["sources"]} have no document left after filtering: '
                     f'{state["skipped"]}')
  manifest = {
    'version': corpus_manifest.VERSION, 'dtype': 'uint16' if token_dtype(state).itemsize == 2 else 'uint32',
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
  if isinstance(folder, Url):
    access.remove(folder / shards.STATE)
    upload.remove_spool(folder)
    return
  atomic.sync(folder)  # a killed process may have written the manifest without syncing its name
  for name in (shards.STATE, *duplicates.FILES, duplicates.FINAL_VERDICTS):
    access.remove(folder / name)


def main(arguments):
  flags = vars(parser().parse_args(arguments))
  separator = flags.pop('document_separator').replace('\\n', '\n').replace('\\t', '\t')
  near = near_presets.resolve(*(flags.pop(name) for name in NEAR_FLAGS))
  without = [name for name in flags.pop('clean_without').split(',') if name]
  start = time.monotonic()
  manifest = prepare(**flags, document_separator=separator, clean_without=without, near=near)
  print(summary.format_summary(manifest, time.monotonic() - start))


if __name__ == '__main__':
  run.run(main, 'prepare')
