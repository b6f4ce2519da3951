"""The overlap study (GPT-2, section 4): which 8-grams of test sets are in a training corpus, set by set."""

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
from gptjax.files import atomic, records

NAME, OWN, TRAIN = re.compile(r'([\w.+-]+)=(?=.)'), 'own', 'train'
HIGH_OVERLAP = 0.15  # of an example's 8-grams; the paper looks at those of LAMBADA above it


class Overlap(NamedTuple):
  """A test set, and what of it is in which filter; arrays of a row a document.

  eightgrams: int64[n] in each document.
  found: {'own' | 'train': int64[n]}: those that the filter has.
  spelled: as `found`, how many there were to look up: `eightgrams`, but for filters that have a spelling.
  """
  eightgrams: np.ndarray
  in_filter: dict
  looked_up: dict

  def share(self, filter_name):
    """float64[n]: of each document's 8-grams; 0 where it has none."""
    return self.in_filter[filter_name] / np.maximum(self.looked_up[filter_name], 1)


def source_overlap(reading, filters):
  """The Test of what a `blocks.Reading` reads; filters by name."""
  empty, start = np.zeros(0, np.int64), build.TextPosition()
  overlap = Overlap(empty, dict.fromkeys(filters, empty), dict.fromkeys(filters, empty))
  document_of = lambda position, piece: (position.documents - 1, piece.text)
  for block, pieces in blocks.blocks(build.texts(reading, start), start, document_of):
    n, numbers = block.position.documents, np.array([number for number, _ in pieces], np.int64)
    added = texts_overlap([text for _, text in pieces], filters)
    overlap = Overlap(*(
      {name: _add_counts(old[name], numbers, new[name], n) for name in filters} if isinstance(old, dict)
      else _add_counts(old, numbers, new, n) for old, new in zip(overlap, added, strict=True)))
  return overlap


def _add_counts(counts, numbers, added, n):
  """int64[n]: counts of documents with those of some pieces of documents added."""
  counts = np.pad(counts, (0, n - len(counts)))
  np.add.at(counts, numbers, added)
  return counts


def texts_overlap(texts, filters):
  """The Test of a list of str, a document each."""
  plain, n, in_filter, looked_up = eightgrams.eightgram_keys(texts), len(texts), {}, {}
  for name, bloom_filter in filters.items():
    respell = spelling.respelling_for(bloom_filter.metadata['sources'])
    keys, text = plain if respell is None else eightgrams.eightgram_keys(list(map(respell, texts)))
    in_filter[name] = np.bincount(text[bloom_filter.contains(keys)], minlength=n)
    looked_up[name] = np.bincount(text, minlength=n)
  return Overlap(np.bincount(plain.text, minlength=n), in_filter, looked_up)


def summary(test):
  """What overlap.json says of a test set; shares of 8-grams, None where there is no such filter."""
  total = int(test.eightgrams.sum())
  row = {'documents': len(test.eightgrams), 'eightgrams': total}
  for name in (OWN, TRAIN):
    row[name] = (float(test.in_filter[name].sum() / max(int(test.looked_up[name].sum()), 1))
                 if name in test.in_filter else None)
  for name in test.in_filter:  # of the training corpus, where there is one
    row |= {'documents_with_any': int((test.in_filter[name] > 0).sum()),
            'documents_with_much': int((test.share(name) > HIGH_OVERLAP).sum())}
  return row


def table(tests, filters):
  """The text of the overlap table: `summary` of each test, then what was measured of each filter."""
  lines = [f'{"8-grams also in":<18}{"documents":>10}{"8-grams":>12}{"own train":>11}{"training":>10}'
           f'{"any":>8}{f"over {HIGH_OVERLAP:.0%}":>11}']
  share = lambda value: '-' if value is None else f'{value:.2%}'
  for name, row in tests.items():
    lines.append(f'{name:<18}{row["documents"]:>10,}{row["eightgrams"]:>12,}{share(row[OWN]):>11}'
                 f'{share(row[TRAIN]):>10}{row["documents_with_any"]:>8,}{row["documents_with_much"]:>11,}')
  for name, row in filters.items():
    lines.append(f'\nfilter {name}: {row["eightgrams"]:,} 8-grams, {row["distinct"]:,} different ones, '
                 f'{row["bytes"]:,} bytes, {row["hashes"]} hashes\n  {false_positives(row)}')
  return '\n'.join(lines)


def false_positives(row):
  """The sentence that says what was measured of a filter."""
  return (f'false positives: {row["found"]:,} of {row["strings"]:,} made-up 8-grams; {row["passed"]:,} of '
          f'{row["tests"]:,} bits looked at were set, which makes a rate of {row["measured"]:.1e} (by the '
          f'filter\'s bits {row["expected"]:.1e}, wanted at most {row["rate"]:.1e})')


def _filter_row(bloom_filter, n_strings):
  measured = bloom.measure_rate(bloom_filter, n_strings)
  copied = 'eightgrams', 'distinct', 'hashes', 'expected', 'rate', 'sources'
  return {**measured._asdict(), 'file': str(bloom_filter.path), 'bytes': bloom_filter.bits.size,
          **{name: bloom_filter.metadata[name] for name in copied}}


def _parse_source(text, split):
  """A source as `data.sources` takes it; a folder is a corpus."""
  return f'corpus:{text}:{split}' if Path(text).is_dir() else text


def _parse_named(flags, flag_name):
  """{name: rest} of flags NAME=SOURCE; ValueError for one without a name or with another's."""
  sources = {}
  for flag in flags:
    match = NAME.match(flag)
    if not match or match[1] in sources:
      raise InputError(f'--{flag_name}={flag}: give it as NAME=SOURCE, each name once')
    sources[match[1]] = flag[match.end():]
  return sources


def run_study(flags):
  """Builds what filters are missing, looks all tests up, writes and prints what was found."""
  workdir = Path(flags.workdir)
  folder = Path(flags.filters or workdir / 'overlap')
  tests, own = _parse_named(flags.test, 'test'), _parse_named(flags.own, 'own')
  examples = {path.stem: overlap_scores.read_examples(path)
              for path in sorted(workdir.glob('examples/*.jsonl'))}
  examples |= {name: overlap_scores.read_examples(path) for name,
               path in _parse_named(flags.examples, 'examples').items()}
  if strange := own.keys() - tests.keys() - examples.keys():
    raise InputError(f'--own={min(strange)}=...: there is no --test or --examples of this name')
  if not flags.train and not flags.filter and not own:
    raise InputError('nothing to look for test sets in: give --train, --filter or --own')
  for some in (flags.train, *([source] for source in own.values())):
    spelling.respelling_for([_parse_source(source, 'train') for source in some])
  configs.make_workdir(workdir)  # First what can be refused at once, then what takes hours.
  readings = {name: blocks.Reading(documents.units([_parse_source(source, 'validation')], flags.tfds_dir),
                                   flags.separator, flags.tfds_dir, flags.on_error == 'stop', None)
              for name, source in tests.items()}
  parts = [bloom.open_filter(path) for path in flags.filter]
  made = functools.partial(build.build_filter, folder=folder, rate=flags.rate, capacity=flags.capacity,
                           workers=flags.workers, tfds_dir=flags.tfds_dir, on_error=flags.on_error,
                           separator=flags.separator)
  filters = {name: made(name, [_parse_source(source, 'train')]) for name, source in own.items()}
  if flags.train:
    parts.insert(0, made(TRAIN, [_parse_source(source, 'train') for source in flags.train]))
  corpus = {TRAIN: merged_filter(parts, folder)} if parts else {}
  of = lambda name: ({OWN: filters[name]} if name in filters else {}) | corpus
  seen = {name: texts_overlap([one[overlap_scores.TEXT] for one in found], of(name))
          for name, found in examples.items() if of(name)}
  found = seen | {name: source_overlap(reading, of(name)) for name, reading in readings.items() if of(name)}
  by_overlap = {name: overlap_scores.scores_by_overlap(test.share(TRAIN if corpus else OWN), examples[name],
                                                       (0, HIGH_OVERLAP))
                for name, test in seen.items()}
  report = {'tests': {name: summary(test) for name, test in found.items()}, 'by_overlap': by_overlap,
            'filters': {name: _filter_row(one, flags.strings) for name, one in (corpus | filters).items()}}
  _write(workdir, report, found)
  print(table(report['tests'], report['filters']))
  for name, rows in by_overlap.items():
    print(f'\n{overlap_scores.table(name, rows)}')


def merged_filter(parts, folder):
  """One Filter of several, which is made unless it is in the folder."""
  if len(parts) == 1:
    return parts[0]
  key = tokenizer_files.digest(*sorted(part.metadata['sha256'].encode() for part in parts))[:12]
  target = folder / f'{TRAIN}-merged-{key}.bloom'
  if not target.exists():
    folder.mkdir(parents=True, exist_ok=True)
    bloom.merge(parts, target)
  return bloom.open_filter(target)


def _write(workdir, report, tests):
  (workdir / 'overlap').mkdir(parents=True, exist_ok=True)
  for name, test in tests.items():
    columns = {'eightgrams': test.eightgrams, **test.in_filter}
    numbers = zip(*(column.tolist() for column in columns.values()), strict=True)
    rows = (dict(zip(columns, row, strict=True)) for row in numbers)
    atomic.write(workdir / 'overlap' / f'{name}.jsonl', ''.join(json.dumps(row) + '\n' for row in rows))
  atomic.write(workdir / 'overlap.json', records.text(report))




