"""Targets for one GPU: tokens per second, at least PyTorch's speed, and a small cost of dropout in attention.

Speeds are those of one H100 or H200, bfloat16, sequences of 1,024 tokens. An H200 computes as fast as an
H100; the targets do not depend on its larger and faster memory.
"""

from gptjax.benchmark import results
from gptjax.benchmark.results import OURS

GPUS = 'NVIDIA H100', 'NVIDIA H200'
# Tokens per second: (target, goal).
TARGET_SPEEDS = {'124M': (300e3, 468e3), '355M': (110e3, 175e3), '774M': (55e3, 79e3), '1558M': (29e3, 47e3)}
MIN_DROPOUT_SPEED = 0.8  # of our kernel with dropout, relative to cuDNN's attention without dropout
TRAINING, ATTENTION = 'training', 'attention'  # prefixes of row names
CUDNN, PALLAS = 'cudnn', 'pallas, dropout 0.1'


def training_gates(rows, device):
  """The gates of each size in the rows of training."""
  gates = []
  for what in dict.fromkeys(row['what'] for row in rows if row['what'].startswith(f'{TRAINING} ')):
    size, *details = what.removeprefix(f'{TRAINING} ').split(', ')
    contenders = {row['who']: row for row in rows if row['what'] == what}
    ours = contenders.pop(OURS, None)
    if len(details) != 1 or ours is None:  # a variant, which no other contender runs
      continue
    if size in TARGET_SPEEDS and device.startswith(GPUS):
      target, goal = TARGET_SPEEDS[size]
      gates.append(results.gate(f'{size}, tokens/s', '>=', target, ours['median'], goal))
    if contenders:
      best = max(contenders.values(), key=lambda row: row['median'])
      note = '' if best['ratio'] else ', not interleaved'  # the two do not fit into memory together
      ratio = best['ratio'] or ours['median'] / best['median']
      gates.append(results.gate(f'{size}, times as fast as {best["who"]}{note}', '>=', 1, ratio))
  return gates


def attention_gates(rows):
  """The gate of dropout in attention, for each size for which both kernels ran."""
  medians = {(row['what'], row['who']): row['median'] for row in rows if row['what'].startswith(ATTENTION)}
  return [results.gate(f'{what}, speed of {PALLAS}, relative to {CUDNN} without', '>=', MIN_DROPOUT_SPEED,
                       medians[what, CUDNN] / medians[what, PALLAS])
          for what, who in medians if who == CUDNN and (what, PALLAS) in medians]


def add_gates(journal_results):
  """The results of `journal.to_results` with the gates of their rows appended."""
  rows, device = journal_results['rows'], journal_results['machine']['device']
  return {**journal_results, 'gates': [*journal_results['gates'], *training_gates(rows, device),
                                       *attention_gates(rows)]}


def print_gates(journal_results):
  """Print the gates, and on a GPU with targets also the sizes that were not measured."""
  results.print_gates(journal_results['gates'])
  device = journal_results['machine']['device']
  measured = {gate['what'].partition(',')[0] for gate in journal_results['gates'] if 'aim' in gate}
  for size, (target, goal) in TARGET_SPEEDS.items() if device.startswith(GPUS) else ():
    if size not in measured:
      print(f'{size}, tokens/s: not measured; target >= {target:,g}, goal {goal:,g}')
