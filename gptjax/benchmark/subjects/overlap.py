"""Speed and memory of building the filter of the overlap study: python -m gptjax.benchmark overlap

The text is drawn from the words of the documentation that ships with Python, so that hardly any 8-gram occurs
twice: --megabytes of it, and ten times as much. Each filter is built in a process of its own, with as many
workers as there are cores; the result is the median over turns.
"""

import argparse
import json
import os
import random
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

from gptjax.benchmark import results
from gptjax.benchmark.interleave import output_of
from gptjax.benchmark.machine import machine_info
from gptjax.command import run
from gptjax.command.flag_types import WORKERS, integer, real
from gptjax.data.sources import python
from gptjax.evaluate.overlap import bloom, build

SCALE = 10
TARGET_SPEED = 1.5e6  # 8-grams per second, on two cores
RATE = 1e-8     # of false positives, as in the paper


def write_text(path, megabytes):
  """Write documents of 100 to 1,500 words drawn at random, as JSON lines."""
  words, draw, size = ' '.join(piece.text for piece in python.pieces()).split(), random.Random(0), 0
  with open(path, 'w', encoding='utf-8') as file:
    while size < megabytes * 1e6:
      text = ' '.join(draw.choices(words, k=draw.randint(100, 1500)))
      file.write(json.dumps({'text': text}) + '\n')
      size += len(text.encode())


def worker(path, workers):
  """Build a filter; print its time, memory and facts as JSON."""
  with tempfile.TemporaryDirectory(dir=Path(path).parent) as folder:
    start = time.perf_counter()
    built = build.build_filter('benchmark', [f'jsonl:{path}'], folder, rate=RATE, capacity=0, workers=workers,
                               tfds_dir='', on_error='stop', separator='', progress=False)
    seconds = time.perf_counter() - start
    kilobytes = max(resource.getrusage(who).ru_maxrss for who in (
      resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(json.dumps({'seconds': seconds, 'eightgrams': built.metadata['eightgrams'],
                      'filter': built.bits.size, 'resident': kilobytes * 1024,
                      'rate': bloom.measure_rate(built, 1_000_000).measured}))
  return 0


def make_gates(small, large):
  """Gates of the medians, see `results.gate`."""
  median = lambda turns, name: statistics.median(turn[name] for turn in turns)
  speed = min(turns[0]['eightgrams'] / median(turns, 'seconds') for turns in (small, large))
  size_ratio = large[0]['eightgrams'] / small[0]['eightgrams']
  return [results.gate('8-grams per second, millions', '>=', TARGET_SPEED / 1e6, speed / 1e6),
          results.gate('time per 8-gram, large text relative to small', '<=', 1.1,
                       median(large, 'seconds') / median(small, 'seconds') / size_ratio),
          results.gate('memory per process, large text relative to small', '<=', 1.5,
                       median(large, 'resident') / median(small, 'resident')),
          results.gate('false positives, in 1e-8', '<=', 1, median(large, 'rate') / RATE)]


def main(argv):
  parser = run.Parser(prog='python -m gptjax.benchmark overlap', description=__doc__)
  parser.add_argument('--megabytes', type=real(0.01, 1e6), default=100,
                      help=f'of text, and {SCALE} times as much')
  parser.add_argument('--turns', type=integer(1, 1000), default=3,
                      help='runs of each size; default: %(default)s')
  parser.add_argument('--workers', type=integer(1, WORKERS), help='processes',
                      default=len(os.sched_getaffinity(0)))
  results.add_out(parser)
  parser.add_argument('--worker', help=argparse.SUPPRESS)
  args = parser.parse_args(argv)
  if args.worker:
    return worker(args.worker, args.workers)
  machine = machine_info(['numpy'])
  print(f'{machine["cores"]} cores of {machine["processor"]}, {machine["date"]}; {args.workers} workers, '
        f'medians of {args.turns} turns\n')
  print(f'{"MB":>8}{"8-grams":>14}{"seconds":>10}{"M 8-grams/s":>13}{"MB, largest process":>22}'
        f'{"MB, filter":>12}')
  sizes, turns_of = [args.megabytes, SCALE * args.megabytes], {}
  with tempfile.TemporaryDirectory() as folder:
    for size in sizes:
      path = Path(folder) / f'{size:g}.jsonl'
      write_text(path, size)
      command = [sys.executable, '-m', 'gptjax.benchmark', 'overlap', f'--worker={path}',
                 f'--workers={args.workers}']
      turns_of[size] = [json.loads(output_of(command)) for _ in range(args.turns)]
      seconds = statistics.median(turn['seconds'] for turn in turns_of[size])
      first = turns_of[size][0]
      n = first['eightgrams']
      print(f'{size:>8g}{n:>14,}{seconds:>10.1f}{n / seconds / 1e6:>13.2f}'
            f'{first["resident"] / 1e6:>22.0f}{first["filter"] / 1e6:>12.0f}')
  gates = make_gates(*turns_of.values())
  print()
  results.print_gates(gates)
  rows = [results.row(f'filter of {size:g} MB of text', 'gptjax', '8-grams/s',
                      [turn['eightgrams'] / turn['seconds'] for turn in turns])
          for size, turns in turns_of.items()]
  results.write(args.out, 'overlap', machine, rows, gates, turns=turns_of)
  return 0
