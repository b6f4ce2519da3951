"""The overlap study (GPT-2, section 4): the share of 8-grams of each test set that a training corpus has."""

import json
import re
from pathlib import Path

from gptjax.config import resolve as configs
from gptjax.data import engines
from gptjax.data.sources import documents
from gptjax.data.stages import parts
from gptjax.data.tokenizers import tokenizer_files
from gptjax.errors import InputError
from gptjax.evaluate.overlap import bloom, build, exact, lookup, table, training_text
from gptjax.evaluate.overlap.lookup import OWN, TRAIN
from gptjax.evaluate.samples import store
from gptjax.evaluate.scoring import overlap_scores
from gptjax.evaluate.texts import spelling
from gptjax.storage.files import access, paths, records
from gptjax.storage.files.paths import Url

NAME = re.compile(r'([\w.+-]+)=(?=.)')
REPORT = 'report'  # a stage, with those of `training_text`


def _parse_source(text, split):
  """Return a source in the form of `data.sources`; a folder is a corpus."""
  return f'corpus:{text}:{split}' if paths.URL.match(text) or access.is_folder(Path(text)) else text


def _parse_named(flags, flag_name):
  """Return {name: source} of flags NAME=SOURCE (raises ValueError for a missing or repeated name)."""
  sources = {}
  for flag in flags:
    match = NAME.match(flag)
    if not match or match[1] in sources:
      raise InputError(f'--{flag_name}={flag}: it must be NAME=SOURCE, with each name once')
    sources[match[1]] = flag[match.end():]
  return sources


def run_study(flags):
  """Read the training texts, look up all test sets, and write and print the results; or run one stage."""
  workdir = paths.location(flags.workdir)
  tests, own = _parse_named(flags.test, 'test'), _parse_named(flags.own, 'own')
  examples, samples = _read_examples(workdir, flags), _read_samples(flags)
  _check_flags(flags, tests, own, examples)
  configs.make_workdir(workdir)  # after all checks that take no time, before the work that takes hours
  readings = {name: parts.ReadOptions(documents.units([_parse_source(source, 'validation')], flags.tfds_dir),
                                      flags.separator, flags.tfds_dir, flags.on_error == 'stop')
              for name, source in tests.items()}
  folder = Path(flags.filters) if flags.filters else workdir / 'overlap'
  texts = _training_texts(flags, own, readings, examples | samples, folder)
  if flags.stage in training_text.STAGES:
    training_text.run_task(list(texts.values()), flags.stage, flags.task, flags.tasks, flags.workers)
  if flags.stage in training_text.STAGES or flags.task:
    print(engines.share_line(flags.stage, flags.task, flags.tasks))
    return
  opened = {name: training_text.finished(text) if flags.stage == REPORT else
            training_text.complete(text, flags.workers) for name, text in texts.items()}
  _report(workdir, flags, readings, examples, samples, opened,
          _corpus(flags, opened.pop(None, None), folder))


def _report(workdir, flags, readings, examples, samples, own_filters, corpus):
  """Look up all test sets, and write and print the results.

  Args:
    samples: {name: [{'text': ...}]} of `_read_samples`.
    own_filters: {test set: what its 8-grams are looked up in}.
    corpus: {'train': the same of the training corpus} or {}.
  """
  filters_of = lambda name: ({OWN: own_filters[name]} if name in own_filters else {}) | corpus
  of_examples = {name: lookup.texts_overlap(_texts(rows), filters_of(name))
                 for name, rows in examples.items() if filters_of(name)}
  of_samples = {name: lookup.texts_overlap(_texts(rows), corpus) for name, rows in samples.items()}
  overlaps = of_examples | of_samples | {name: lookup.source_overlap(reading, filters_of(name))
                                         for name, reading in readings.items() if filters_of(name)}
  by_overlap = {name: overlap_scores.scores_by_overlap(overlap.share(TRAIN if corpus else OWN),
                                                       examples[name], (0, table.HIGH_OVERLAP))
                for name, overlap in of_examples.items()}
  filters, is_exact = corpus | own_filters, flags.method == table.EXACT
  cdf = {name: table.distribution(one, TRAIN) for name, one in overlaps.items()
         if name in of_samples or (of_samples and name in readings and TRAIN in one.in_filter)}
  report = {'method': flags.method, 'tests': {name: table.summary(one) for name, one in overlaps.items()},
            'by_overlap': by_overlap, **({'cdf': cdf} if cdf else {}),
            'filters': {name: table.filter_row(one, flags.strings)
                        for name, one in filters.items() if not is_exact},
            'exact': {name: table.exact_row(one) for name, one in filters.items() if is_exact}}
  _write(workdir, report, overlaps)
  print(table.table(report))
  for name, rows in by_overlap.items():
    print(f'\n{overlap_scores.table(name, rows)}')


def _texts(examples):
  return [example[overlap_scores.TEXT] for example in examples]


def _training_texts(flags, own, readings, examples, folder):
  """Return {test set: TrainingText of its own training split; None: of the training corpus}."""
  wanted = {name: [_parse_source(source, 'train')] for name, source in own.items()}
  if flags.train:
    wanted[None] = [_parse_source(source, 'train') for source in flags.train]
  options = {'tfds_dir': flags.tfds_dir, 'on_error': flags.on_error, 'separator': flags.separator}
  texts = {}
  for name, sources in wanted.items():
    if flags.method == table.BLOOM:
      texts[name] = build.make_text(name or TRAIN, sources, folder,
                                    build.Parameters(flags.rate, flags.capacity), **options)
      continue
    looked_up = lambda of, name=name: [one for key, one in of.items() if name in (key, None)]
    keys = lookup.keys_of(looked_up(readings), [
      text for rows in looked_up(examples) for text in _texts(rows)], sources)
    texts[name] = exact.make_text(name or TRAIN, sources, folder, keys, **options)
  return texts


def _corpus(flags, opened, folder):
  """Return {'train': what the 8-grams of the training corpus are in}; {} if there is no such text."""
  filters = ([opened] if opened else []) + [bloom.open_filter(path) for path in flags.filter]
  return {TRAIN: merged_filter(filters, folder) if len(filters) > 1 else filters[0]} if filters else {}


def _read_examples(workdir, flags):
  """Return {task: examples} of the workdir and of --examples."""
  folder = workdir / 'examples'
  files = [(name.removesuffix('.jsonl'), folder / name) for name in access.names(folder)
           if name.endswith('.jsonl')]
  files += [(name, paths.local(path, '--examples'))
            for name, path in _parse_named(flags.examples, 'examples').items()]
  return {name: overlap_scores.read_examples(path) for name, path in files}


def _read_samples(flags):
  """Return {NAME: samples, 'NAME-real': the real continuations of the same contexts} of --samples."""
  found = {}
  for name, file in _parse_named(flags.samples, 'samples').items():
    samples, wanted, *_ = store.read(paths.location(file))
    if len(samples) < wanted:
      records.log(f'{file}: {len(samples):,} of {wanted:,} samples are written so far')
    if not samples:
      raise InputError(f'--samples={name}={file}: there are no samples of `gptjax samples`')
    found[name] = [{overlap_scores.TEXT: sample.text} for sample in samples]
    real = {sample.group: sample.reference for sample in samples if sample.reference}
    if real:
      found[f'{name}-real'] = [{overlap_scores.TEXT: text} for text in real.values()]
  return found


def _check_flags(flags, tests, own, examples):
  """Raise InputError for flags that do not fit together."""
  if unknown := own.keys() - tests.keys() - examples.keys():
    raise InputError(f'--own={min(unknown)}=...: no --test or --examples has this name')
  for path in flags.filter:
    paths.local(path, '--filter')  # no URL
  if flags.samples and not flags.train and not flags.filter:
    raise InputError('--samples is compared with the training corpus: set --train or --filter')
  if not flags.train and not flags.filter and not own:
    raise InputError('no training text to compare with: set --train, --filter or --own')
  engines.require_share(flags.stage, flags.task, flags.tasks)
  if flags.method == table.EXACT and (flags.filter or flags.capacity):
    raise InputError('--filter and --capacity are of filters: remove them, or give --method=bloom')
  if flags.method == table.BLOOM and isinstance(paths.location(flags.workdir), Url) and not flags.filters:
    raise InputError(f'--workdir={flags.workdir} is in a bucket, and filters are built on this machine: set '
                     '--filters to a folder here, or --method=exact')
  for sources in (flags.train, *([source] for source in own.values())):
    spelling.respelling_for([_parse_source(source, 'train') for source in sources])


def merged_filter(parts, folder):
  """Return the union of filters, which is built unless it is in the folder."""
  if len(parts) == 1:
    return parts[0]
  key = tokenizer_files.digest(*sorted(part.metadata['sha256'].encode() for part in parts))[:12]
  target = folder / f'{TRAIN}-merged-{key}.bloom'
  if not access.is_file(target):
    access.make_folder(folder)
    bloom.merge(parts, target)
  return bloom.open_filter(target)


def _write(workdir, report, tests):
  access.make_folder(workdir / 'overlap')
  for name, test in tests.items():
    columns = {'eightgrams': test.eightgrams, **test.in_filter}
    numbers = zip(*(column.tolist() for column in columns.values()), strict=True)
    rows = (dict(zip(columns, row, strict=True)) for row in numbers)
    access.write(workdir / 'overlap' / f'{name}.jsonl', ''.join(json.dumps(row) + '\n' for row in rows))
  access.write(workdir / 'overlap.json', records.text(report))
