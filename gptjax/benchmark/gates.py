"""What is asked of one GPU: tokens a second, no slower than PyTorch, dropout in attention at a small price.

Speeds are those of one H100 or H200, bfloat16, sequences of 1,024. An H200 computes as an H100 does; of its
memory, which is larger and faster, these gates ask nothing more.
"""

from gptjax.benchmark import results
from gptjax.benchmark.results import OURS

GPUS = 'NVIDIA H100', 'NVIDIA H200'
# Tokens a second: what must be reached, and what is aimed at.
TARGET_SPEEDS = {'124M': (300e3, 468e3), '355M': (110e3, 175e3), '774M': (55e3, 79e3), '1558M': (29e3, 47e3)}
MIN_DROPOUT_SPEED = 0.8  # times the speed of cuDNN's attention without dropout, that ours has with it
TRAINING, ATTENTION = 'training', 'attention'  # how the names of rows begin
CUDNN, PALLAS = 'cudnn', 'pallas, dropout 0.1'


def training_gates(rows, device):
  """Gates of each size that was trained."""
  found = []
  for what in dict.fromkeys(row['what'] for row in rows if row['what'].startswith(f'{TRAINING} ')):
    size, *rest = what.removeprefix(f'{TRAINING} ').split(', ')
    of_size = {row['who']: row for row in rows if row['what'] == what}
    ours = of_size.pop(OURS, None)
    if len(rest) != 1 or ours is None:  # a variant, which is compared with nothing
      continue
    if size in TARGET_SPEEDS and device.startswith(GPUS):
      required, goal = TARGET_SPEEDS[size]
      found.append(results.gate(f'{size}, tokens/s', '>=', required, ours['median'], goal))
    if of_size:
      best = max(of_size.values(), key=lambda row: row['median'])
      apart = '' if best['ratio'] else ', not interleaved'  # for want of memory for both
      ratio = best['ratio'] or ours['median'] / best['median']
      found.append(results.gate(f'{size}, times as fast as {best["who"]}{apart}', '>=', 1, ratio))
  return found


def attention_gates(rows):
  """The gate of dropout in attention, for each size of which both kernels ran."""
  medians = {(row['what'], row['who']): row['median'] for row in rows if row['what'].startswith(ATTENTION)}
  return [results.gate(f'{what}, speed of {PALLAS}, beside {CUDNN} without', '>=', MIN_DROPOUT_SPEED,
                       medians[what, CUDNN] / medians[what, PALLAS])
          for what, who in medians if who == CUDNN and (what, PALLAS) in medians]


def add_gates(found):
  """`journal.usual` with the gates of its rows, after those that it has."""
  rows = found['rows']
  return {**found, 'gates': [*found['gates'], *training_gates(rows, found['machine']['device']),
                             *attention_gates(rows)]}


def print_gates(found):
  """Prints the gates, and on a GPU that has any those of which there is no figure."""
  results.print_gates(found['gates'])
  device = found['machine']['device']
  measured = {gate['what'].partition(',')[0] for gate in found['gates'] if 'aim' in gate}
  for size, (required, goal) in TARGET_SPEEDS.items() if device.startswith(GPUS) else ():
    if size not in measured:
      print(f'{size}, tokens/s: not measured; wanted >= {required:,g}, aim {goal:,g}')
