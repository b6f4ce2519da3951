"""All that there is to measure on one GPU, in one call of under 8 minutes: python -m gptjax.benchmark gpu

Runs the other sub-commands one after the other, each in processes of its own, with a limit of time each: is
the step right (check); training speed of each size beside PyTorch, by turns; single changes (variants); where
the time goes (profile); generation. What is most worth knowing comes first. The results are written after
each part; one that fails or takes too long is recorded with its last words, and the run goes on. What is
left out for want of time, --sizes=124M measures in a call of its own.

Needs jax, flax, optax and numpy; for the peers torch and transformers; no network.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from gptjax import paths
from gptjax.benchmark import results
from gptjax.benchmark.machine import machine
from gptjax.benchmark.train import OURS, PACKAGES, SIZES
from gptjax.data import command
from gptjax.flag_types import real

SIZES_HERE = ('124M', '355M', '774M', '1558M')
SECONDS = 465      # for all parts
LEAST = 20         # seconds that a part gets at the least, or it is left out
LAST_WORDS = 2000  # characters of a failed part's standard error
GPU = 'NVIDIA H100'
# Tokens a second on one H100, bfloat16, sequences of 1,024: what must be reached, and what is aimed at.
GATES = {'124M': (300e3, 468e3), '355M': (110e3, 175e3), '774M': (55e3, 79e3), '1558M': (29e3, 47e3)}


class Part(NamedTuple):
  """A sub-command with its flags, and the seconds that it may take."""
  name: str
  flags: list
  limit: int


def training(size, contenders, turns, steps, limit):
  """Training of one size; all contenders are alive at a time and share the memory."""
  flags = ['train', f'--size={size}', f'--contenders={contenders}', f'--turns={turns}', f'--steps={steps}']
  return Part(f'train {size} {contenders}', flags, limit)


def parts(sizes):
  """What to do, in the order of worth. 1558M has not the room for two contenders at a time."""
  found = [Part('check', ['check', f'--size={sizes[0]}'], 75)]
  plan = {'tiny': [('gptjax,torch', 2, 3, 120)],
          '124M': [('gptjax,torch-compile,transformers-compile', 5, 10, 150)],
          '355M': [('gptjax,torch-compile', 5, 10, 120)],
          '774M': [('gptjax,torch-compile-blocks', 5, 10, 120)],
          '1558M': [('gptjax', 5, 10, 100), ('torch-compile-blocks', 5, 10, 100)]}
  found += [training(size, *one) for size in sizes for one in plan[size]]
  if sizes == ['tiny']:
    some = ['--only=as it is', '--turns=2', '--steps=2']
    return [*found, Part('profile', ['profile', '--size=tiny'], 120),
            Part('variants', ['variants', '--size=tiny', *some], 120)]
  generate = ['generate', f'--size={sizes[0]}', '--dtype=bfloat16', '--turns=3']
  return [*found, Part('profile', ['profile', f'--size={sizes[0]}'], 60),
          Part('variants', ['variants', f'--size={sizes[0]}', '--turns=3', '--steps=10'], 180),
          Part('generate', generate, 90)]


def run_part(part, seconds, folder):
  """Runs a part for at most so long, with all processes that it starts.

  Returns:
    (what it wrote with --out, None if nothing; None or why it failed; the end of its standard error).
  """
  out, said = Path(folder) / 'part.json', Path(folder) / 'stderr'
  out.unlink(missing_ok=True)
  command = [sys.executable, '-m', 'gptjax.benchmark', *part.flags, f'--out={out}']
  why = None
  with open(said, 'wb') as stderr:
    process = subprocess.Popen(command, stderr=stderr, process_group=0, env=environment(folder))
    try:
      code = process.wait(seconds)
      why = f'exit code {code}' if code else None
    except subprocess.TimeoutExpired:
      why = f'cut off after {seconds:.0f} s'
    finally:
      with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
      process.wait()
  return (json.loads(out.read_text()) if out.exists() else None, why,
          said.read_text(errors='replace')[-LAST_WORDS:])


def environment(folder):
  """What a program is compiled to once serves all parts; several processes share the GPU."""
  return {**os.environ, 'JAX_COMPILATION_CACHE_DIR': f'{folder}/compiled', 'TOKENIZERS_PARALLELISM': 'false',
          'XLA_PYTHON_CLIENT_PREALLOCATE': 'false'}


def gates(rows, device):
  """Tokens a second beside what is wanted of an H100, and beside the fastest of PyTorch."""
  found = []
  for size in SIZES:
    of_size = [row for row in rows if row['what'] == f'training {size}, {SIZES[size].dtype}']
    ours = next((row for row in of_size if row['who'] == OURS), None)
    peers = [row for row in of_size if row['who'] != OURS]
    if ours and size in GATES and device.startswith(GPU):
      found += [results.gate(f'{size}, tokens/s, {word}', '>=', wanted, ours['median'])
                for word, wanted in zip(('must', 'aim'), GATES[size])]
    if ours and peers:
      best = max(peers, key=lambda row: row['median'])
      # Of processes that did not live at the same time there are no turns to compare.
      ratio = best['ratio'] or ours['median'] / best['median']
      found.append(results.gate(f'{size}, times as fast as {best["who"]}', '>=', 1, ratio))
  return found


def main(argv):
  parser = command.Parser(prog='python -m gptjax.benchmark gpu', description=__doc__,
                          formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--sizes', default=','.join(SIZES_HERE), help='comma-separated; tiny runs anywhere')
  parser.add_argument('--seconds', type=real(1, 1e6), default=SECONDS, help='for all parts together')
  parser.add_argument('--out', type=paths.flag, required=True, help='JSON file for the results')
  flags = parser.parse_args(argv)
  sizes = flags.sizes.split(',')
  if sizes != ['tiny'] and (unknown := set(sizes) - set(SIZES_HERE)):
    parser.error(f'no such size: {", ".join(sorted(unknown))}, of {", ".join(SIZES_HERE)}; or tiny alone')
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # takes what it has started along
  return measure(parts(sizes), flags.seconds, flags.out)


def measure(todo, seconds, out):
  """Runs the parts until the time is over; 0 if there is something of each."""
  where, rows, checks, details = machine(PACKAGES), [], [], {}
  began = time.monotonic()
  with tempfile.TemporaryDirectory() as folder:
    for part in todo:
      left = seconds - (time.monotonic() - began)
      print(f'\n=== {part.name}  ({left:.0f} s left)', flush=True)
      found, why, words = None, 'left out: no time', ''
      started = time.monotonic()
      if left >= LEAST:
        found, why, words = run_part(part, min(part.limit, left), folder)
      if lost := (found or {}).get('details', {}).get('lost'):
        why = why or f'without {", ".join(lost)}'
      if why:
        print(f'{part.name}: {why}\n{words}'.rstrip(), flush=True)
      details[part.name] = {'seconds': time.monotonic() - started, 'error': why,
                            'stderr': words if why else '', 'details': found and found['details']}
      if found:
        where['device'] = found['machine']['device']
        rows += found['rows']
        checks += found['gates']
      results.write(out, 'gpu', where, rows, checks + gates(rows, where['device']), parts=details)
  print(f'\n{where["device"]}, {where["date"]}, {time.monotonic() - began:.0f} s')
  results.show_gates(checks + gates(rows, where['device']))
  return int(any(one['error'] for one in details.values()))
