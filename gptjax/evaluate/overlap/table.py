"""The results of the overlap study: the rows of `overlap.json`, and the table that is printed."""

import numpy as np

from gptjax.evaluate.overlap import bloom
from gptjax.evaluate.overlap.lookup import OWN, TRAIN

HIGH_OVERLAP = 0.15  # of an example's 8-grams; the threshold of the paper's analysis of LAMBADA
BLOOM, EXACT = 'bloom', 'exact'
MAX_SHARES = 1000  # of a distribution in overlap.json


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


def distribution(test, name):
  """Return the row of `cdf` in overlap.json: how the overlap varies between the documents of a test set.

  Args:
    test: lookup.Overlap.
    name: of the training text, 'train' or 'own'.

  Returns:
    `documents` that have an 8-gram, and `short`, those that have none; of the former, the shares of documents
    with `none` of their 8-grams in the training text and with `below_1_percent` of them, and the `median`
    share; `shares`: up to MAX_SHARES of the shares in increasing order, at equal distances of their ranks.
  """
  long_enough = test.looked_up[name] > 0
  shares = np.sort(test.share(name)[long_enough])
  n = len(shares)
  if not n:
    return {'documents': 0, 'short': len(long_enough), 'none': 0.0, 'below_1_percent': 0.0, 'median': 0.0,
            'shares': []}
  ranks = np.ceil(np.arange(1, min(n, MAX_SHARES) + 1) * n / min(n, MAX_SHARES)).astype(int) - 1
  return {'documents': n, 'short': len(long_enough) - n, 'none': float((shares == 0).mean()),
          'below_1_percent': float((shares < 0.01).mean()), 'median': float(np.median(shares)),
          'shares': shares[ranks].tolist()}


def table(report):
  """Format the overlap table: `summary` of each test set, then how the 8-grams were looked up."""
  lines = [f'{"8-grams also in":<18}{"documents":>10}{"8-grams":>12}{"own train":>11}{"training":>10}'
           f'{"any":>8}{f"over {HIGH_OVERLAP:.0%}":>11}']
  share = lambda value: '-' if value is None else f'{value:.2%}'
  for name, row in report['tests'].items():
    lines.append(f'{name:<18}{row["documents"]:>10,}{row["eightgrams"]:>12,}{share(row[OWN]):>11}'
                 f'{share(row[TRAIN]):>10}{row["documents_with_any"]:>8,}{row["documents_with_much"]:>11,}')
  for name, row in report.get('cdf', {}).items():
    lines.append(f'{name}: of {row["documents"]:,} documents {row["none"]:.1%} have no 8-gram in the '
                 f'training text, {row["below_1_percent"]:.1%} under 1%; median {row["median"]:.2%}')
  lines.append(f'\nmethod: {report["method"]}')
  for name, row in report['filters'].items():
    lines.append(f'filter {name}: {row["eightgrams"]:,} 8-grams, {row["distinct"]:,} distinct, '
                 f'{row["bytes"]:,} bytes, {row["hashes"]} hashes\n  {false_positives(row)}')
  lines += [f'{name}: {exact_lookup(row)}' for name, row in report['exact'].items()]
  return '\n'.join(lines)


def exact_lookup(row):
  """Describe the exact lookup in a training text in one sentence."""
  return (f'{row["found"]:,} of {row["keys"]:,} distinct 8-grams of the test sets are among '
          f'{row["eightgrams"]:,} of the training text (compared by 64-bit keys; expected number of false '
          f'positives: {row["expected"]:.1e})')


def false_positives(row):
  """Describe the measured false positives of a filter in one sentence."""
  return (f'false positives: {row["found"]:,} of {row["strings"]:,} random 8-grams; {row["passed"]:,} of '
          f'{row["tests"]:,} tested bits are set, which gives a rate of {row["measured"]:.1e} (expected from '
          f'the filter\'s bits: {row["expected"]:.1e}, maximum: {row["rate"]:.1e})')


def filter_row(one, n_strings):
  """Return the row of overlap.json for a filter, with its rate of false positives for random strings."""
  measured = bloom.measure_rate(one, n_strings)
  copied = 'eightgrams', 'distinct', 'hashes', 'expected', 'rate', 'sources'
  return {**measured._asdict(), 'file': str(one.path), 'bytes': one.bits.size,
          **{name: one.metadata[name] for name in copied}}


def exact_row(hits):
  """Return the row of overlap.json for the exact.Hits of a training text."""
  row = {name: hits.metadata[name] for name in ('documents', 'eightgrams', 'keys', 'found', 'sources')}
  return {**row, 'expected': row['keys'] * row['eightgrams'] / 2**64}
