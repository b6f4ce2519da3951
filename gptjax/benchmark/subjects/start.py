"""Seconds from the command to its first logged step: python -m gptjax.benchmark start

Starts `python -m gptjax.main` on a config whose corpus already exists, and waits for the first line of
metrics.jsonl. In turns: without compiled programs, with the compilation cache of that run, and the floor, in
which a process only imports jax, flax and optax and reaches a device. With --processes=N the run has N
processes, all on this machine.
"""

import argparse
import concurrent.futures
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from gptjax.benchmark import results
from gptjax.benchmark.hosts import free_address
from gptjax.benchmark.interleave import output_of
from gptjax.benchmark.machine import machine_info
from gptjax.command import bars, run, shutdown
from gptjax.command.flag_types import integer
from gptjax.errors import InputError
from gptjax.text.words import plural

TARGET_S = 1    # seconds that a start with a warm cache may take more than the floor
LIMIT_S = 600   # time limit of one start, in seconds
FLOOR = 'import jax, optax; from flax import nnx; jax.devices()'


def time_to_first_step(config, folder, name, n_processes=1, changes=()):
  """Start a run and kill it after its first step.

  Args:
    config: path of the config.
    folder: keeps corpus and cache between starts; the run's workdir is `folder/name`.
    n_processes: processes of the run.
    changes: ['data.seq_len=64', ...], of the config.

  Returns:
    Seconds until the first record.
  """
  workdir, log = folder / name, folder / f'{name}.log'
  command = [sys.executable, '-m', 'gptjax.main', f'--config={config}', f'--workdir={workdir}',
             f'--config.data.corpus={folder}/corpus', f'--config.compilation_cache={folder}/compiled',
             '--config.log.every_steps=1', *(f'--config.{change}' for change in changes)]
  if n_processes > 1:
    command += [f'--coordinator={free_address()}', f'--num_processes={n_processes}']
  processes, metrics = [], workdir / 'metrics.jsonl'
  with open(log, 'w') as stderr:
    start = time.monotonic()
    try:
      with shutdown.block_signals():
        for i in range(n_processes):
          processes.append(subprocess.Popen(command + [f'--process_id={i}'] * (n_processes > 1),
                                            stderr=stderr, stdout=subprocess.DEVNULL))
      while not (metrics.exists() and metrics.stat().st_size):
        ended = any(process.poll() is not None for process in processes)
        if ended or time.monotonic() - start > LIMIT_S:
          last = (log.read_text(errors='replace').strip().splitlines() or ['it printed nothing'])[-1]
          raise InputError(f'no step after {time.monotonic() - start:.0f} s: {last}')
        time.sleep(0.01)
      return time.monotonic() - start
    finally:
      for process in processes:
        process.kill()
      for process in processes:
        process.wait()


def floor(n_processes=1):
  """Seconds in which processes, started at the same time, import the libraries and reach a device."""
  start = time.monotonic()
  with concurrent.futures.ThreadPoolExecutor(n_processes) as pool:
    for done in [pool.submit(output_of, [sys.executable, '-c', FLOOR]) for _ in range(n_processes)]:
      done.result()
  return time.monotonic() - start


def main(argv):
  parser = run.Parser(prog='python -m gptjax.benchmark start', description=__doc__,
                      formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--config', default='configs/quickstart.py', help='config that prepares its own corpus')
  parser.add_argument('--turns', type=integer(1, 1000), default=5,
                      help='starts of each kind; default: %(default)s')
  parser.add_argument('--processes', type=integer(1, 1024), default=1, help='of each run')
  parser.add_argument('--set', action='append', default=[], metavar='FIELD=VALUE',
                      help='change of the config, such as train.microbatch_size=16; may be repeated')
  results.add_out(parser)
  flags = parser.parse_args(argv)
  machine = machine_info(('jax', 'jaxlib', 'flax'))
  with tempfile.TemporaryDirectory() as folder:
    time_to_first_step(flags.config, Path(folder), 'corpus-run')  # prepares the corpus
    def start(name):
      return time_to_first_step(flags.config, Path(folder), name, flags.processes, flags.set)

    def turn(number):
      shutil.rmtree(f'{folder}/compiled', ignore_errors=True)
      return start(f'cold-{number}'), start(f'warm-{number}'), floor(flags.processes)

    numbers = bars.bar(range(flags.turns), desc='starting', unit='turn', leave=False)
    turns = [turn(number) for number in numbers]
  cold, warm, floors = zip(*turns)
  above = statistics.median(seconds - least for _, seconds, least in turns)
  name = Path(flags.config).stem + f', {flags.processes} processes' * (flags.processes > 1)
  print(f'{name}, {machine["cores"]} cores of {machine["processor"]}, {machine["date"]}; from the command to '
        f'the first logged step, seconds, medians of {plural(flags.turns, "turn")}:')
  for what, seconds in (('nothing compiled', cold), ('warm cache', warm), ('the floor', floors)):
    print(f'{what:<18}{statistics.median(seconds):.1f} ({min(seconds):.1f} to {max(seconds):.1f})')
  gate = results.gate(f'{name}, start to first step with a warm cache, seconds above the floor', '<=',
                      TARGET_S, above)
  results.print_gates([gate])
  what = f'start to first step, {name}'
  rows = [results.row(what, 'nothing compiled', 's', cold), results.row(what, 'warm cache', 's', warm),
          results.row(what, 'imports and a device alone', 's', floors)]
  results.write(flags.out, 'start', machine, rows, [gate])
  return 0 if gate['holds'] else 1
