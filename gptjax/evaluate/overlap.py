"""How much of test sets is in a training corpus (GPT-2, section 4): 8-grams that they have in common.

    python -m gptjax.evaluate.overlap --train=corpora/webtext --workdir=runs/gpt2 \\
        --test=wikitext2=text:wiki.test.tokens --own=wikitext2=text:wiki.train.tokens

prints the share of each test set's 8-grams that are also in its own training split and in the training corpus,
with the rate of false positives as it was measured, and writes WORKDIR/overlap.json; of each document, what was
found in it stands in WORKDIR/overlap/NAME.jsonl. A source is KIND:WHERE as for gptjax.data.prepare, or the
folder of a corpus (its split train; of --test, its split validation). A filter that is there already, in
WORKDIR/overlap or --filters, is used again; one that is half built is gone on with. Filters of parts of a corpus
that were built elsewhere with one --capacity and --rate are merged: --filter=A --filter=B.

With --examples, where the evaluation has kept its examples, a score is shown by how much of them was seen.
"""

import argparse
import json
import os
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gptjax import atomic
from gptjax.data import blocks, command, sources, tokenizers
from gptjax.evaluate import bloom, buckets, build, eightgrams

NAME, OWN, TRAIN = re.compile(r'([\w.+-]+)=(?=.)'), 'own', 'train'
MUCH = 0.15  # of an example's 8-grams; the paper looks at those of LAMBADA above it


class Test(NamedTuple):
  """A test set, and what of it is in which filter; arrays of a row a document.

  eightgrams: int64[n] in each document.
  found: {'own' | 'train': int64[n]}: those that the filter has.
  """
  eightgrams: np.ndarray
  found: dict

  def share(self, filter_name):
    """float64[n]: of each document's 8-grams; 0 where it has none."""
    return self.found[filter_name] / np.maximum(self.eightgrams, 1)


def of_source(reading, filters):
  """The Test of what a `blocks.Reading` reads; filters by name."""
  after, rows = build.After(), []
  found = build.texts(reading, after)
  for block, work in blocks.blocks(found, after, lambda at, piece: (at.documents - 1, piece.text)):
    counts = of_texts([text for _, text in work], filters)
    numbers = np.array([number for number, _ in work], np.int64)
    rows.append((block.position.documents, numbers, counts))
  total = rows[-1][0]
  add = lambda pick: sum(np.bincount(numbers, pick(counts), total) for _, numbers, counts in rows).astype(np.int64)
  return Test(add(lambda counts: counts.eightgrams),
              {name: add(lambda counts, name=name: counts.found[name]) for name in filters})


def of_texts(texts, filters):
  """The Test of a list of str, a document each."""
  keys, text = eightgrams.keys(texts)
  return Test(np.bincount(text, minlength=len(texts)),
              {name: np.bincount(text[one.contains(keys)], minlength=len(texts)) for name, one in filters.items()})


def summary(test):
  """What overlap.json says of a test set; shares of 8-grams, None where there is no such filter."""
  total = int(test.eightgrams.sum())
  most = TRAIN if TRAIN in test.found else OWN
  return {'documents': len(test.eightgrams), 'eightgrams': total,
          **{name: float(test.found[name].sum() / max(total, 1)) if name in test.found else None
             for name in (OWN, TRAIN)},
          'documents_with_any': int((test.found[most] > 0).sum()),
          'documents_with_much': int((test.share(most) > MUCH).sum())}


def table(tests, filters):
  """The text of the overlap table: `summary` of each test, then what was measured of each filter."""
  lines = [f'{"8-grams also in":<18}{"documents":>10}{"8-grams":>12}{"own train":>11}{"training":>10}'
           f'{"any":>8}{f"over {MUCH:.0%}":>11}']
  share = lambda value: '-' if value is None else f'{value:.2%}'
  for name, row in tests.items():
    lines.append(f'{name:<18}{row["documents"]:>10,}{row["eightgrams"]:>12,}{share(row[OWN]):>11}'
                 f'{share(row[TRAIN]):>10}{row["documents_with_any"]:>8,}{row["documents_with_much"]:>11,}')
  for name, row in filters.items():
    lines.append(
      f'\nfilter {name}: {row["eightgrams"]:,} 8-grams, {row["distinct"]:,} different ones, {row["bytes"]:,} bytes, '
      f'{row["hashes"]} hashes\n  false positives: {row["found"]:,} of {row["strings"]:,} made-up 8-grams; of '
      f'{row["tests"]:,} bits looked at {row["passed"] / row["tests"]:.4f} were set, which makes a rate of '
      f'{row["measured"]:.1e} (by the filter\'s bits {row["expected"]:.1e}, wanted at most {row["rate"]:.1e})')
  return '\n'.join(lines)


def _false_positives(one, n_strings):
  measured = bloom.measure(one, n_strings)
  row = {name: one.facts[name] for name in ('eightgrams', 'distinct', 'hashes', 'expected', 'rate', 'sources')}
  return {**row, 'file': str(one.path), 'bytes': one.bits.size, 'strings': measured.strings,
          'found': measured.found, 'tests': measured.tests, 'passed': measured.passed, 'measured': measured.rate}


def _source(text, split):
  """A source as `data.sources` takes it; a folder is a corpus."""
  return f'corpus:{text}:{split}' if Path(text).is_dir() else text


def _named(flags, what):
  """[(name, rest)] of flags like NAME=SOURCE; ValueError for one without a name or with another's."""
  pairs = []
  for flag in flags:
    match = NAME.match(flag)
    if not match or match[1] in dict(pairs):
      raise ValueError(f'--{what}={flag}: give it as NAME=SOURCE, each name once')
    pairs.append((match[1], flag[match.end():]))
  return pairs


def overlap(flags):
  """Builds what filters are missing, looks all tests up, writes and prints what was found."""
  workdir = Path(flags.workdir)
  folder = Path(flags.filters or workdir / 'overlap')
  tests, own = _named(flags.test, 'test'), dict(_named(flags.own, 'own'))
  examples = [(name, buckets.read(path)) for name, path in _named(flags.examples, 'examples')]
  if strange := own.keys() - dict(tests).keys() - dict(examples).keys():
    raise ValueError(f'--own={min(strange)}=...: there is no --test or --examples of this name')
  if not flags.train and not flags.filter and not own:
    raise ValueError('nothing to look for test sets in: give --train, --filter or --own')
  made = lambda name, source: build.filter_of(
    name, source, folder, rate=flags.rate, capacity=flags.capacity, workers=flags.workers,
    tfds_dir=flags.tfds_dir, on_error=flags.on_error, separator=flags.separator)
  # First those that can be refused at once, then what takes hours.
  readings = {name: blocks.Reading(sources.units([_source(source, 'validation')], flags.tfds_dir), flags.separator,
                                   flags.tfds_dir, flags.on_error == 'stop', None) for name, source in tests}
  parts = [bloom.open_filter(path) for path in flags.filter]
  filters = {name: made(name, [_source(source, 'train')]) for name, source in own.items()}
  if flags.train:
    parts.insert(0, made(TRAIN, [_source(source, 'train') for source in flags.train]))
  whole = _merged(parts, folder)
  of = lambda name: {**({OWN: filters[name]} if name in filters else {}), **({TRAIN: whole} if whole else {})}
  looked_up = {name: of_source(reading, of(name)) for name, reading in readings.items()}
  seen = {name: of_texts([one['text'] for one in found], of(name)) for name, found in examples}
  report = {
    'tests': {name: summary(test) for name, test in (seen | looked_up).items()},
    'filters': {name: _false_positives(one, flags.strings)
                for name, one in (({TRAIN: whole} if whole else {}) | filters).items()},
    'by_overlap': {name: buckets.by_overlap(seen[name].share(TRAIN if whole else OWN), found, (0, MUCH))
                   for name, found in examples}}
  _write(workdir, report, seen | looked_up)
  print(table(report['tests'], report['filters']))
  for name, rows in report['by_overlap'].items():
    print(f'\n{buckets.table(name, rows)}')


def _merged(parts, folder):
  """One Filter of several, made unless it is there; None of none."""
  if len(parts) < 2:
    return parts[0] if parts else None
  key = tokenizers.digest(*sorted(one.facts['sha256'].encode() for one in parts))[:12]
  target = folder / f'{TRAIN}-merged-{key}.bloom'
  if not target.exists():
    folder.mkdir(parents=True, exist_ok=True)
    bloom.merge(parts, target)
  return bloom.open_filter(target)


def _write(workdir, report, tests):
  (workdir / 'overlap').mkdir(parents=True, exist_ok=True)
  for name, test in tests.items():
    columns = {'eightgrams': test.eightgrams.tolist(), **{by: found.tolist() for by, found in test.found.items()}}
    rows = (dict(zip(columns, row)) for row in zip(*columns.values()))
    atomic.write(workdir / 'overlap' / f'{name}.jsonl', ''.join(json.dumps(row) + '\n' for row in rows))
  atomic.write(workdir / 'overlap.json', json.dumps(report, indent=1) + '\n')


def main(arguments):
  parser = command.Parser(prog='python -m gptjax.evaluate.overlap', description=__doc__,
                          formatter_class=argparse.RawDescriptionHelpFormatter)
  add = parser.add_argument
  add('--train', action='append', default=[], help='source or corpus that the model was trained on; repeatable')
  add('--test', action='append', default=[], help='NAME=SOURCE of a test set; repeatable')
  add('--own', action='append', default=[], help='NAME=SOURCE of the training split of that test set; repeatable')
  add('--examples', action='append', default=[],
      help='NAME=FILE.jsonl of examples that were scored: {"text", "correct" | "nats" | ...} a line; repeatable')
  add('--filter', action='append', default=[], help='filter built before, of the training corpus; repeatable')
  add('--workdir', required=True, help='where overlap.json goes')
  add('--filters', default='', help='folder of filters; default WORKDIR/overlap')
  add('--rate', type=float, default=1e-8, help='false positives, at most')
  add('--capacity', type=int, default=0, help='8-grams that filters are made for, so that they can be merged')
  add('--strings', type=int, default=10_000_000, help='made-up 8-grams that are looked up (the paper: a million)')
  add('--workers', type=int, default=len(os.sched_getaffinity(0)), help='processes')
  add('--tfds_dir', default='', help='where tfds: finds its data sets')
  add('--on_error', default='stop', choices=('stop', 'skip'), help='at a document that cannot be used')
  add('--document_separator', dest='separator', default='',
      help=r'between documents in a file of text: (\n and \t are understood)')
  flags = parser.parse_args(arguments)
  flags.separator = flags.separator.replace('\\n', '\n').replace('\\t', '\t')
  if not 0 < flags.rate < 1 or flags.workers < 1 or flags.capacity < 0 or flags.strings < 1:
    raise ValueError(f'--rate={flags.rate:g} must lie in (0, 1), --workers={flags.workers} and --strings='
                     f'{flags.strings} be 1 or more, --capacity={flags.capacity} not negative')
  overlap(flags)


if __name__ == '__main__':
  command.run(main, 'overlap')
