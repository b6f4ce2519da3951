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
from gptjax.evaluate.scoring import buckets
from gptjax.evaluate.texts import spelling
from gptjax.files import atomic, records

NAME, OWN, TRAIN = re.compile(r'([\w.+-]+)=(?=.)'), 'own', 'train'
MUCH = 0.15  # of an example's 8-grams; the paper looks at those of LAMBADA above it


class Test(NamedTuple):
  """A test set, and what of it is in which filter; arrays of a row a document.

  eightgrams: int64[n] in each document.
  found: {'own' | 'train': int64[n]}: those that the filter has.
  spelled: as `found`, how many there were to look up: `eightgrams`, but for filters that have a spelling.
  """
  eightgrams: np.ndarray
  found: dict
  spelled: dict

  def share(self, filter_name):
    """float64[n]: of each document's 8-grams; 0 where it has none."""
    return self.found[filter_name] / np.maximum(self.spelled[filter_name], 1)


def of_source(reading, filters):
  """The Test of what a `blocks.Reading` reads; filters by name."""
  none, start = np.zeros(0, np.int64), build.After()
  counts = Test(none, dict.fromkeys(filters, none), dict.fromkeys(filters, none))
  numbered = lambda after, piece: (after.documents - 1, piece.text)
  for block, pieces in blocks.make_blocks(build.texts(reading, start), start, numbered):
    n, numbers = block.position.documents, np.array([number for number, _ in pieces], np.int64)
    more = of_texts([text for _, text in pieces], filters)
    counts = Test(*(
      {name: _added(old[name], numbers, new[name], n) for name in filters} if isinstance(old, dict)
      else _added(old, numbers, new, n) for old, new in zip(counts, more, strict=True)))
  return counts


def _added(counts, numbers, more, n):
  """int64[n]: counts of documents with those of some pieces of documents added."""
  counts = np.pad(counts, (0, n - len(counts)))
  np.add.at(counts, numbers, more)
  return counts


def of_texts(texts, filters):
  """The Test of a list of str, a document each."""
  plain, n, found, spelled = eightgrams.keys(texts), len(texts), {}, {}
  for name, one in filters.items():
    spell = spelling.of_sources(one.facts['sources'])
    keys, text = plain if spell is None else eightgrams.keys(list(map(spell, texts)))
    found[name] = np.bincount(text[one.contains(keys)], minlength=n)
    spelled[name] = np.bincount(text, minlength=n)
  return Test(np.bincount(plain.text, minlength=n), found, spelled)


def summary(test):
  """What overlap.json says of a test set; shares of 8-grams, None where there is no such filter."""
  total = int(test.eightgrams.sum())
  row = {'documents': len(test.eightgrams), 'eightgrams': total}
  for name in (OWN, TRAIN):
    row[name] = (float(test.found[name].sum() / max(int(test.spelled[name].sum()), 1))
                 if name in test.found else None)
  for name in test.found:  # of the training corpus, where there is one
    row |= {'documents_with_any': int((test.found[name] > 0).sum()),
            'documents_with_much': int((test.share(name) > MUCH).sum())}
  return row


def table(tests, filters):
  """The text of the overlap table: `summary` of each test, then what was measured of each filter."""
  lines = [f'{"8-grams also in":<18}{"documents":>10}{"8-grams":>12}{"own train":>11}{"training":>10}'
           f'{"any":>8}{f"over {MUCH:.0%}":>11}']
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


def _measured(one, n_strings):
  measured = bloom.measure(one, n_strings)
  kept = 'eightgrams', 'distinct', 'hashes', 'expected', 'rate', 'sources'
  return {**measured._asdict(), 'file': str(one.path), 'bytes': one.bits.size,
          **{name: one.facts[name] for name in kept}}


def _source(text, split):
  """A source as `data.sources` takes it; a folder is a corpus."""
  return f'corpus:{text}:{split}' if Path(text).is_dir() else text


def _named(flags, what):
  """{name: rest} of flags NAME=SOURCE; ValueError for one without a name or with another's."""
  found = {}
  for flag in flags:
    match = NAME.match(flag)
    if not match or match[1] in found:
      raise InputError(f'--{what}={flag}: give it as NAME=SOURCE, each name once')
    found[match[1]] = flag[match.end():]
  return found


def overlap(flags):
  """Builds what filters are missing, looks all tests up, writes and prints what was found."""
  workdir = Path(flags.workdir)
  folder = Path(flags.filters or workdir / 'overlap')
  tests, own = _named(flags.test, 'test'), _named(flags.own, 'own')
  examples = {path.stem: buckets.read(path) for path in sorted(workdir.glob('examples/*.jsonl'))}
  examples |= {name: buckets.read(path) for name, path in _named(flags.examples, 'examples').items()}
  if strange := own.keys() - tests.keys() - examples.keys():
    raise InputError(f'--own={min(strange)}=...: there is no --test or --examples of this name')
  if not flags.train and not flags.filter and not own:
    raise InputError('nothing to look for test sets in: give --train, --filter or --own')
  for some in (flags.train, *([source] for source in own.values())):
    spelling.of_sources([_source(source, 'train') for source in some])
  configs.make_workdir(workdir)  # First what can be refused at once, then what takes hours.
  readings = {name: blocks.ReadOptions(documents.units([_source(source, 'validation')], flags.tfds_dir),
                                       flags.separator, flags.tfds_dir, flags.on_error == 'stop', None)
              for name, source in tests.items()}
  parts = [bloom.open_filter(path) for path in flags.filter]
  made = functools.partial(build.filter_of, folder=folder, rate=flags.rate, capacity=flags.capacity,
                           workers=flags.workers, tfds_dir=flags.tfds_dir, on_error=flags.on_error,
                           separator=flags.separator)
  filters = {name: made(name, [_source(source, 'train')]) for name, source in own.items()}
  if flags.train:
    parts.insert(0, made(TRAIN, [_source(source, 'train') for source in flags.train]))
  corpus = {TRAIN: merged(parts, folder)} if parts else {}
  of = lambda name: ({OWN: filters[name]} if name in filters else {}) | corpus
  seen = {name: of_texts([one[buckets.TEXT] for one in found], of(name))
          for name, found in examples.items() if of(name)}
  found = seen | {name: of_source(reading, of(name)) for name, reading in readings.items() if of(name)}
  by_overlap = {name: buckets.by_overlap(test.share(TRAIN if corpus else OWN), examples[name], (0, MUCH))
                for name, test in seen.items()}
  report = {'tests': {name: summary(test) for name, test in found.items()}, 'by_overlap': by_overlap,
            'filters': {name: _measured(one, flags.strings) for name, one in (corpus | filters).items()}}
  _write(workdir, report, found)
  print(table(report['tests'], report['filters']))
  for name, rows in by_overlap.items():
    print(f'\n{buckets.table(name, rows)}')


def merged(parts, folder):
  """One Filter of several, which is made unless it is in the folder."""
  if len(parts) == 1:
    return parts[0]
  key = tokenizer_files.digest(*sorted(one.facts['sha256'].encode() for one in parts))[:12]
  target = folder / f'{TRAIN}-merged-{key}.bloom'
  if not target.exists():
    folder.mkdir(parents=True, exist_ok=True)
    bloom.merge(parts, target)
  return bloom.open_filter(target)


def _write(workdir, report, tests):
  (workdir / 'overlap').mkdir(parents=True, exist_ok=True)
  for name, test in tests.items():
    columns = {'eightgrams': test.eightgrams, **test.found}
    numbers = zip(*(column.tolist() for column in columns.values()), strict=True)
    rows = (dict(zip(columns, row, strict=True)) for row in numbers)
    atomic.write(workdir / 'overlap' / f'{name}.jsonl', ''.join(json.dumps(row) + '\n' for row in rows))
  atomic.write(workdir / 'overlap.json', records.text(report))




