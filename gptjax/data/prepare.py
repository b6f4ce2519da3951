"""Writes a corpus: documents from any source, tokenized, in shards with a manifest.

    python -m gptjax.data.prepare --source=text:FILE --tokenizer=gpt2 --out=DIR

The command can be killed at any moment and started again: it goes on after the parts that are complete, and
the corpus is byte for byte that of an uninterrupted run, whatever the number of workers.

Its stages (`gptjax.data.stages`) can also be run one by one, each by any number of tasks on any machines that
share the folder or the bucket: all tasks of a stage, then those of the next. Without --clean, or if it has no
filter of duplicates, there is no stage `mark`, and without --clean and --exclude no stage `judge`.

    for stage in judge mark tokenizer encode join; do
      srun --ntasks=100 sh -c "python -m gptjax.data.prepare ... --stage=$stage --tasks=100 \\
        --task=\\$SLURM_PROCID"
    done

--engine=beam runs all stages by Apache Beam (pip install 'gptjax[beam]'); Beam's own flags follow after --.

    python -m gptjax.data.prepare ... --engine=beam -- --runner=DataflowRunner --project=...

A hash of a document's text decides whether it belongs to validation, so all its copies are in the same
split, in any order. If either split would have less than one window of --seq_len tokens (a corpus of one
file, or of little text), the last `validation_fraction` of each document is held out instead. If that is
less than a window too, nothing is held out. The chosen rule is printed and recorded in the manifest.

--exclude leaves out documents that share eight consecutive words with a test set; the words are those of the
overlap study (gptjax.evaluate.overlap). An excluded document cannot be the first of several duplicates, so
the corpus is that of the sources without the excluded documents. With --exclude_spans only the shared words
are left out, and each stretch of text between them, if it has at least 200 characters and is not blank,
becomes a document; the hash that decides about validation is that of the whole text of the source.
"""

if __name__ == '__main__':
  from gptjax.command import early, startup
  from gptjax.command.parsers.prepare import parser
  startup.begin('prepare', 'stopped; run the same command again to continue')
  early.handle_help(parser, 'prepare')

import contextlib
import json
import sys
import time

import gptjax
from gptjax.command import run
from gptjax.command.parsers import stage_flags
from gptjax.command.parsers.prepare import (
  EXCLUDE_WORDS,
  FRACTION,
  FRACTIONS,
  NEAR_FLAGS,
  NGRAM_WORDS,
  SEQ_LEN,
  SEQ_LENS,
  SHARD_SIZES,
  SHARD_TOKENS,
  parser,
)
from gptjax.data import engines, summary
from gptjax.data.clean import near_presets, webtext
from gptjax.data.corpus import corpus_manifest
from gptjax.data.links import url_list
from gptjax.data.sources import documents
from gptjax.data.stages import excluded, lists, parts, work
from gptjax.data.stages import job as jobs
from gptjax.data.stages import run as stages
from gptjax.data.tokenizers import loading, special, training
from gptjax.errors import InputError
from gptjax.storage import bucket_ownership, owner_record, ownership
from gptjax.storage.files import access, atomic, json_files, paths, records
from gptjax.storage.files.paths import Url
from gptjax.text.words import plural

STATE = 'progress.json'  # the settings of a corpus that is not complete
MAX_STATE = 1 << 30      # bytes


def prepare(source, tokenizer, out, *, validation_fraction=FRACTION, clean='', workers=1, tfds_dir='',
            on_error='stop', document_separator='', clean_without=(), blocked_domains='', wikipedia_titles='',
            shard_tokens=SHARD_TOKENS, progress=True, seq_len=SEQ_LEN, tfds_download=False,
            special_tokens=(), near=None, exclude=(), exclude_words=EXCLUDE_WORDS, exclude_spans=False,
            urls=(), stage=engines.ALL, task=0, tasks=1, run_stage=None):
  """Write a corpus to the folder `out`, go on writing it, or return if it is already complete.

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
    progress: show progress bars on stderr.
    seq_len: tokens of an evaluation window: a held-out split has at least one window, or is empty.
    special_tokens: names of special tokens that a text may contain, or `('all',)`; others are plain text.
    exclude: test sets (see `stages.excluded`): documents that share n-grams with one are left out.
    exclude_words: words of such an n-gram.
    exclude_spans: leave out only the shared words; the text between them becomes documents.
    urls: files of keys of `webtext_links`, text files with one URL per line, or globs: of web archives only
      these pages are read.
    stage: 'all', or the name of the stage to run (see `stages`); or 'status', to print what is complete.
    task, tasks: run share `task`, from 0, of `tasks` shares of the stage. A share may be empty, and any share
      may be run again, also while it runs elsewhere.
    run_stage: runs the tasks of a stage on another engine, see `stages.run.run_all`; None: in `workers`
      processes of this machine.

  Returns:
    The manifest, a dict; None if the corpus is not complete after this stage.

  Raises:
    InputError: a missing source or tokenizer; an unusable document, with its file and line; a folder that
      holds something else; a stage before this one is not complete.
  """
  FRACTIONS.require('validation_fraction', validation_fraction)
  stage_flags.WORKERS.require('workers', workers)
  SHARD_SIZES.require('shard_tokens', shard_tokens)
  SEQ_LENS.require('seq_len', seq_len)
  if on_error not in ('stop', 'skip'):
    raise InputError(f'on_error = {on_error!r} must be stop or skip')
  validation_fraction = float(validation_fraction)  # 0 and 0.0 are not the same in the manifest
  engines.require_share(stage, task, tasks)
  to_train = training.parse_spec(tokenizer)
  recipe = webtext.make_recipe(clean, clean_without, blocked_domains, wikipedia_titles, near)
  test_sets, keys = _read_test_sets(exclude, exclude_words, exclude_spans, document_separator, tfds_dir,
                                    on_error)
  units = documents.units(source, tfds_dir, tfds_download)
  chosen = url_list.read_for(urls, units)
  requested = None if to_train else loading.load(tokenizer)
  if requested:
    special.resolve_names(requested, special_tokens)
  settings = {
    'sources': documents.recorded_sources(source, units), 'inputs': documents.units_digest(units),
    'clean': recipe.description, 'tokenizer': requested.digest if requested else tokenizer,
    'validation_fraction': validation_fraction, 'document_separator': document_separator,
    'shard_tokens': shard_tokens, 'seq_len': seq_len,
    'special_tokens': list(special_tokens) or None, 'exclude': test_sets and test_sets.settings,
    'urls': chosen and chosen.digest, 'libraries': documents.library_versions(units)}
  reading = parts.ReadOptions(units, document_separator, tfds_dir, on_error == 'stop', lists.without(recipe),
                              chosen)
  job = jobs.Job(reading, tokenizer, paths.parsed(out), validation_fraction, seq_len, shard_tokens, settings,
                 progress, tuple(special_tokens), test_sets, [], {})
  if (isinstance(job.out, Url) or stage != engines.ALL) and (manifest := _finished(job)):
    return manifest
  if stage == engines.ALL:  # on this machine the owner also removes the record of a killed one
    with ownership.own_folder(job.out):
      return _finished(job) or _completed(job, _run_all(_with_lists(_begun(job, True), recipe, keys), workers,
                                                        run_stage))
  if stage == engines.STATUS:
    if not access.is_file(job.out / STATE):
      raise InputError(f'{job.out} has no {STATE}: its preparation has not begun')
    print(stages.status(_begun(job, False), tasks))
    return None
  work.make_out(job.out)
  try:
    begun = _with_lists(_begun(job, False), recipe, keys)
    manifest = stages.run_task(begun, stage, task, tasks, workers)
    return _completed(job, manifest) or _finished(job)
  except (InputError, OSError):
    if manifest := _finished(job):  # another task has completed it meanwhile, and removed the work folder
      return manifest
    raise


def _read_test_sets(exclude, words, spans, separator, tfds_dir, on_error):
  """Return the Excluded of the test sets and their Keys, or None and None."""
  if spans and not exclude:
    raise InputError('--exclude_spans needs test sets: give --exclude=KIND:WHERE')
  NGRAM_WORDS.require('exclude_words', words)
  test_sets, keys = excluded.read(exclude, words, spans, separator=separator, tfds_dir=tfds_dir,
                                  stop_on_error=on_error == 'stop')
  for name, counts in (test_sets.counts if test_sets else {}).items():
    if not counts['ngrams']:
      print(f'prepare: --exclude={name} excludes nothing: no document in it has {words} words',
            file=sys.stderr)
  return test_sets, keys


def _run_all(job, workers, run_stage):
  with contextlib.nullcontext(run_stage) if run_stage else stages.processes(job, workers) as run_stage:
    return stages.run_all(job, run_stage)


def _finished(job):
  """Return the manifest of the finished corpus, or None; InputError if it is another corpus."""
  if not access.is_file(job.out / corpus_manifest.MANIFEST):
    return None
  manifest = corpus_manifest.read_manifest(job.out)
  _check_same(job, manifest.get('settings', {}))
  _remove_work(job.out)
  return manifest


def _completed(job, manifest):
  if manifest:
    _remove_work(job.out)
  return manifest


def _remove_work(folder):
  """Remove what only the preparation needed; other processes may be doing the same."""
  work.remove(folder, folder / 'tokenizer')
  access.remove(folder / STATE)


def _begun(job, alone):
  """Return the job with the borders of its parts, after recording both, and its data, in a new folder.

  Args:
    job: Job.
    alone: whether this process owns the folder; then other settings are replaced if nothing is made yet.

  Raises:
    InputError: the folder holds something else, or the corpus of other settings or sources.
  """
  path = job.out / STATE
  if not access.is_file(path):
    others = [name for name in access.names(job.out)
              if name not in (owner_record.FILE, bucket_ownership.FOLDER, STATE)
              and not atomic.LEFTOVER.fullmatch(name)]
    if others and not access.is_file(path):  # another task may have begun it meanwhile
      raise InputError(f'{job.out} is not empty (it holds {min(others)}): give a new folder as --out')
    access.create(path, _state(job))
  content = access.read(path, MAX_STATE)
  try:
    state = records.remove_checksum(records.parse(content))
    fault = json_files.layout_fault(
      state, {'settings': {'?sources': [str]}, 'borders': [[int]], 'gptjax': str})
  except ValueError as error:
    fault = error
  if fault:
    raise InputError(f'{path} is damaged or of an earlier version ({fault}): remove {job.out} and begin '
                     'again')
  stored = job._replace(settings=state['settings'], borders=state['borders'], known={})
  current = (job.settings, gptjax.__version__)
  if (state['settings'], state['gptjax']) != current and alone and not stages.has_results(stored):
    access.write(path, _state(job))  # nothing has been made from the others
    return _begun(job, alone)
  _check_same(job, state['settings'])
  if state['gptjax'] != gptjax.__version__:  # which may read, filter or tokenize in another way
    raise InputError(f'{job.out} was begun by gptjax {state["gptjax"]}, and this is {gptjax.__version__}: '
                     'continue with that version, or remove it and begin again')
  return stored


def _with_lists(job, recipe, keys):
  """Return the job after writing what its workers read: the lists of a Recipe, and excluded.Keys or None."""
  if keys:
    excluded.write(job, keys)
  lists.write(job, recipe)
  return job


def _state(job):
  """Return the content of STATE."""
  state = {'settings': job.settings, 'borders': parts.borders(job.reading.units),
           'gptjax': gptjax.__version__}
  return json.dumps(records.add_checksum(state), sort_keys=True)


def _check_same(job, settings):
  units = job.reading.units
  for name, value in job.settings.items():
    default = value if name == 'seq_len' else None  # versions up to 0.1.0 held out any number of tokens
    stored = settings.get(name, default)
    if name == 'sources' and stored:  # those versions recorded URLs unredacted
      stored = documents.recorded_sources(stored, units)
    if stored == value or (name == 'inputs' and stored == documents.legacy_units_digest(units)):
      continue
    if name == 'inputs':
      raise InputError(f'{job.out} holds a corpus, complete or partial, of other files: a name or a size has '
                       f'changed among the {plural(len(units), "file")} of the sources; restore them or give '
                       'another --out')
    if name == 'exclude' and stored and value:
      name, stored, value = _other_exclude(stored, value)
    raise InputError(f'{job.out} holds a corpus, complete or partial, with another {name} ({_shown(stored)}, '
                     f'not {_shown(value)}): give the same flags as at its start, or another --out')


def _other_exclude(stored, settings):
  """Return (name, stored value, value) of the first setting of two different test sets that differs."""
  names = {'sets': 'exclude', 'words': 'exclude_words', 'spans': 'exclude_spans',
           'digest': 'text of --exclude'}
  return next((names[key], stored.get(key), settings[key]) for key in names
              if stored.get(key) != settings[key])


def _shown(setting):
  return (repr(setting) if isinstance(setting, str) and not setting.strip() else str(setting))[:300]


def main(arguments):
  own, engine_flags = engines.split_flags(arguments)
  flags = vars(parser().parse_args(own))
  flags['run_stage'] = engines.choose(flags.pop('engine'), flags['stage'], engine_flags)
  separator = flags.pop('document_separator').replace('\\n', '\n').replace('\\t', '\t')
  near = near_presets.resolve(*(flags.pop(name) for name in NEAR_FLAGS))
  without = [name for name in flags.pop('clean_without').split(',') if name]
  start = time.monotonic()
  manifest = prepare(**flags, document_separator=separator, clean_without=without, near=near)
  if manifest:
    print(summary.format_summary(manifest, time.monotonic() - start))
  elif flags['stage'] != engines.STATUS:
    print(engines.share_line(flags['stage'], flags['task'], flags['tasks']))


if __name__ == '__main__':
  run.run(main, 'prepare')
