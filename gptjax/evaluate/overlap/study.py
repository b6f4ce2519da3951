"""The overlap study (GPT-2, section 4): the share of 8-grams of each test set that a training corpus has."""

import functools
import json
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gptjax.config import resolve as configs
from gptjax.data import blocks
from gptjax.data.sources import documents
from gptjax.data.tokenizers import tokenizer_files
from gptjax.errors import InputError
from gptjax.evaluate.overlap import bloom, build, eightgrams
from gptjax.evaluate.scoring import overlap_scores
from gptjax.evaluate.texts import spelling
from gptjax.storage.files import access, paths, records
from gptjax.storage.files.paths import Url

NAME, OWN, TRAIN = re.compile(r'([\w.+-]+)=(?=.)'), 'own', 'train'
HIGH_OVERLAP = 0.15  # of an example's 8-grams; the threshold of the paper's analysis of LAMBADA


class Overlap(NamedTuple):
  """The 8-grams of a test set that filters have; arrays have one row per document.

  eightgrams: int64[n], 8-grams of each document.
  in_filter: {'own' | 'train': int64[n]}, those in the filter.
  looked_up: {'own' | 'train': int64[n]}, those that were looked up; not `eightgrams` for filters of a lossy
    tokenizer, which changes words.
  """
  eightgrams: np.ndarray
  in_filter: dict
  looked_up: dict

  def share(self, filter_name):
    """Return float64[n], the fraction of each document's 8-grams in the filter; 0 if it has none."""
    return self.in_filter[filter_name] / np.maximum(self.looked_up[filter_name], 1)


def source_overlap(reading, filters):
  """Return the Overlap of the documents of a `blocks.ReadOptions` with filters, given by name."""
  empty, start = np.zeros(0, np.int64), build.TextPosition()
  overlap = Overlap(empty, dict.fromkeys(filters, empty), dict.fromkeys(filters, empty))
  document_of = lambda position, piece: (position.documents - 1, piece.text)
  for block, pieces in blocks.make_blocks(build.texts(reading, start), start, document_of):
    n, numbers = block.position.documents, np.array([number for number, _ in pieces], np.int64)
    added = texts_overlap([text for _, text in pieces], filters)
    overlap = Overlap(*(
      {name: _add_counts(old[name], numbers, new[name], n) for name in filters} if isinstance(old, dict)
      else _add_counts(old, numbers, new, n) for old, new in zip(overlap, added, strict=True)))
  return overlap


def _add_counts(counts, numbers, added, n):
  """Return int64[n]: counts per document plus those of some pieces of documents."""
  counts = np.pad(counts, (0, n - len(counts)))
  np.add.at(counts, numbers, added)
  return counts


def texts_overlap(texts, filters):
  """Return the Overlap of a list of documents (str) with filters, given by name."""
  plain, n, in_filter, looked_up = eightgrams.eightgram_keys(texts), len(texts), {}, {}
  for name, bloom_filter in filters.items():
    respell = spelling.respelling_for(bloom_filter.metadata['sources'])
    keys, text = plain if respell is None else eightgrams.eightgram_keys(list(map(respell, texts)))
    in_filter[name] = np.bincount(text[bloom_filter.contains(keys)], minlength=n)
    looked_up[name] = np.bincount(text, minlength=n)
  return Overlap(np.bincount(plain.text_indices, minlength=n), in_filter, looked_up)


def summary(test):
  """Return the row of overlap.json for a test set: shares of 8-grams, None without such a filter."""
  total = int(test.eightgrams.sum())
  row = {'documents': len(test.eightgrams), 'eightgrams': total}
  for name in (OWN, TRAIN):
    row[name] = (float(test.in_filter[name].sum() / max(int(test.looked_up[name].sum()), 1))
                 if name in test.in_filter else None)
  for name in test.in_filter:  # last the training corpus, if there is one
    row |= {'documents_with_any': int((test.in_filter[name] > 0).sum()),
            'documents_with_much': int((test.share(name) > HIGH_OVERLAP).sum())}
  return row


def table(tests, filters):
  """Format the overlap table: `summary` of each test set, then the measurements of each filter."""
  lines = [f'{"8-grams also in":<18}{"documents":>10}{"8-grams":>12}{"own train":>11}{"training":>10}'
           f'{"any":>8}{f"over {HIGH_OVERLAP:.0%}":>11}']
  share = lambda value: '-' if value is None else f'{value:.2%}'
  for name, row in tests.items():
    lines.append(f'{name:<18}{row["documents"]:>10,}{row["eightgrams"]:>12,}{share(row[OWN]):>11}'
                 f'{share(row[TRAIN]):>10}{row["documents_with_any"]:>8,}{row["documents_with_much"]:>11,}')
  for name, row in filters.items():
    lines.append(f'\nfilter {name}: {row["eightgrams"]:,} 8-grams, {row["distinct"]:,} distinct, '
                 f'{row["bytes"]:,} bytes, {row["hashes"]} hashes\n  {false_positives(row)}')
  return '\n'.join(lines)


def false_positives(row):
  """Describe the measured false positives of a filter in one sentence."""
  return (f'false positives: {row["found"]:,} of {row["strings"]:,} random 8-grams; {row["passed"]:,} of '
          f'{row["tests"]:,} tested bits are set, which gives a rate of {row["measured"]:.1e} (expected from '
          f'the filter\'s bits: {row["expected"]:.1e}, maximum: {row["rate"]:.1e})')


def _filter_row(bloom_filter, n_strings):
  measured = bloom.measure_rate(bloom_filter, n_strings)
  copied = 'eightgrams', 'distinct', 'hashes', 'expected', 'rate', 'sources'
  return {**measured._asdict(), 'file': str(bloom_filter.path), 'bytes': bloom_filter.bits.size,
          **{name: bloom_filter.metadata[name] for name in copied}}


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
  """Build missing filters, look up all test sets, and write and print the results."""
  workdir = paths.location(flags.workdir)
  tests, own = _parse_named(flags.test, 'test'), _parse_named(flags.own, 'own')
  examples = _read_examples(workdir, flags)
  _check_flags(flags, tests, own, examples)
  configs.make_workdir(workdir)  # after all checks that take no time, before the work that takes hours
  readings = {name: blocks.ReadOptions(documents.units([_parse_source(source, 'validation')], flags.tfds_dir),
                                   flags.separator, flags.tfds_dir, flags.on_error == 'stop', None)
              for name, source in tests.items()}
  folder = Path(flags.filters or workdir / 'overlap')
  own_filters, corpus = _open_filters(flags, own, folder)
  filters_of = lambda name: ({OWN: own_filters[name]} if name in own_filters else {}) | corpus
  of_examples = {name: texts_overlap([example[overlap_scores.TEXT] for example in rows], filters_of(name))
                 for name, rows in examples.items() if filters_of(name)}
  overlaps = of_examples | {name: source_overlap(reading, filters_of(name))
                            for name, reading in readings.items() if filters_of(name)}
  by_overlap = {name: overlap_scores.scores_by_overlap(overlap.share(TRAIN if corpus else OWN),
                                                       examples[name], (0, HIGH_OVERLAP))
                for name, overlap in of_examples.items()}
  report = {'tests': {name: summary(overlap) for name, overlap in overlaps.items()}, 'by_overlap': by_overlap,
            'filters': {name: _filter_row(bloom_filter, flags.strings)
                        for name, bloom_filter in (corpus | own_filters).items()}}
  _write(workdir, report, overlaps)
  print(table(report['tests'], report['filters']))
  for name, rows in by_overlap.items():
    print(f'\n{overlap_scores.table(name, rows)}')


def _read_examples(workdir, flags):
  """Return {task: examples} of the workdir and of --examples."""
  folder = workdir / 'examples'
  files = [(name.removesuffix('.jsonl'), folder / name) for name in access.names(folder)
           if name.endswith('.jsonl')]
  files += [(name, paths.local(path, '--examples'))
            for name, path in _parse_named(flags.examples, 'examples').items()]
  return {name: overlap_scores.read_examples(path) for name, path in files}


def _check_flags(flags, tests, own, examples):
  """Raise InputError for flags that do not fit together."""
  if unknown := own.keys() - tests.keys() - examples.keys():
    raise InputError(f'--own={min(unknown)}=...: no --test or --examples has this name')
  for path in flags.filter:
    paths.local(path, '--filter')  # no URL
  if not flags.train and not flags.filter and not own:
    raise InputError('no training text to compare with: set --train, --filter or --own')
  if isinstance(paths.location(flags.workdir), Url) and not flags.filters:
    raise InputError(f'--workdir={flags.workdir} is in a bucket, and filters are built on this machine: set '
                     '--filters to a folder here')
  for sources in (flags.train, *([source] for source in own.values())):
    spelling.respelling_for([_parse_source(source, 'train') for source in sources])


def _open_filters(flags, own, folder):
  """Return ({test set: Filter of its own training split}, {'train': Filter of the training corpus} or {})."""
  parts = [bloom.open_filter(path) for path in flags.filter]
  build_filter = functools.partial(
    build.build_filter, folder=folder, rate=flags.rate, capacity=flags.capacity, workers=flags.workers,
    tfds_dir=flags.tfds_dir, on_error=flags.on_error, separator=flags.separator)
  own_filters = {name: build_filter(name, [_parse_source(source, 'train')]) for name, source in own.items()}
  if flags.train:
    parts.insert(0, build_filter(TRAIN, [_parse_source(source, 'train') for source in flags.train]))
  return own_filters, {TRAIN: merged_filter(parts, folder)} if parts else {}


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
