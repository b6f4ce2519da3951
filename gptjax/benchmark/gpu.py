"""All benchmarks of one GPU in one call: python -m gptjax.benchmark gpu --out=gpu.json

`--first` takes at most 90 s: versions of all software, ptxas and libdevice, one exponential, each attention
kernel compared with float32, peak memory, then training of GPT-2 124M by gptjax alone and interleaved with
PyTorch.

Without it, most valuable first: training of 124M compared with PyTorch, attention kernels with and without
dropout, training of 355M, 774M and 1.5B, generation, correctness of the step (check), single changes of the
config (variants), time per component of a step (profile). Each stage runs in processes of its own, with a
share of the remaining time as its limit; time that a stage does not use goes to later stages. Contenders
start one after the other, and are measured interleaved.

Each measurement is on disk as soon as it is known, in gpu.jsonl next to gpu.json: a run that is cut off keeps
all of its measurements. gpu.json is rewritten from the journal as the journal grows. After a kill,
`python -m gptjax.benchmark table gpu.jsonl --json=gpu.json` makes gpu.json and the table from the journal.

Needs jax 0.10 or 0.11, flax, optax and numpy; for the contenders torch and transformers; no network. On a
machine without a network that has older versions, put wheels in a folder and install them with
`pip install --no-index --find-links=FOLDER flax optax`.
"""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from gptjax import defaults
from gptjax.benchmark import gates, journal, results, toolchain
from gptjax.benchmark.machine import machine_info
from gptjax.benchmark.results import OURS
from gptjax.benchmark.subjects.train import PACKAGES, missing_package
from gptjax.command import run, shutdown
from gptjax.command.flag_types import real
from gptjax.errors import InputError
from gptjax.storage.files import paths

SIZES = ('124M', '355M', '774M', '1558M')
TINY = 'tiny'  # runs on any device
LIMIT_S, FIRST_LIMIT_S = 540, 90
MIN_STAGE_S = 20        # minimum time limit of a stage, while that much time remains
MEASURING_SHARE = 0.95  # of its time limit, after which a stage itself stops measuring
LARGE_MEMORY = 120e9    # bytes of memory in which two contenders of 1.5B fit
STDERR_TAIL = 2000      # characters of a failed stage's standard error that are kept
POLL_S = 1              # seconds between two polls of the journal


class Stage(NamedTuple):
  """A sub-command with its flags.

  weight: seconds that it should need on an H100; it gets a share of the remaining time in proportion.
  limited: whether the sub-command has the flag --limit_s.
  """
  name: str
  flags: list
  weight: float
  limited: bool = False


def training_stage(size, contenders, weight, turns=5, steps=10):
  """Training of one size; contenders that are not installed are skipped, except the first."""
  first, *others = contenders.split(',')
  available = ','.join([first, *(name for name in others if not missing_package(name))])
  flags = ['train', f'--size={size}', f'--contenders={available}', f'--turns={turns}', f'--steps={steps}',
           '--no_limits']
  return Stage(f'train {size} {available}', flags, weight, limited=True)


def first_stages(size):
  """The stages of --first, which take at most FIRST_LIMIT_S."""
  return [Stage(f'attention {size}', ['attention', f'--size={size}'], 35),
          training_stage(size, f'{OURS},torch' + ',torch-compile' * (size != TINY), 55, turns=3)]


def stages(sizes, memory):
  """All stages, most valuable first.

  Args:
    sizes: of SIZES, or TINY alone.
    memory: bytes of the GPU's memory, 0: unknown.
  """
  peers = {TINY: ['gptjax,torch'], '124M': ['gptjax,torch-compile,transformers-compile'],
           '355M': ['gptjax,torch-compile'], '774M': ['gptjax,torch-compile-blocks'],
           '1558M': ['gptjax,torch-compile-blocks' if memory > LARGE_MEMORY else 'gptjax']}
  if memory <= LARGE_MEMORY:
    peers['1558M'].append('torch-compile-blocks')
  weights = {TINY: 60, '124M': 130, '355M': 80, '774M': 95, '1558M': 130}
  training_flags = (2, 3) if sizes == [TINY] else ()
  trainings = [training_stage(size, names, weights[size] / len(peers[size]), *training_flags)
               for size in sizes for names in peers[size] if not missing_package(names.split(',')[0])]
  size = sizes[0]
  variant_flags = (['--turns=2', '--steps=2', '--only=as it is'] if size == TINY
                   else ['--turns=3', '--steps=10'])
  dtype = 'float32' if size == TINY else 'bfloat16'
  peer = '' if missing_package('transformers') else ',transformers'
  generate = ['generate', f'--size={size}', f'--dtype={dtype}', f'--contenders={OURS}{peer}', '--turns=3',
              '--no_limits']
  return [trainings[0], Stage(f'attention {size}', ['attention', f'--size={size}'], 35), *trainings[1:],
          Stage(f'generate {size}', generate, 50, limited=True),
          Stage(f'check {size}', ['check', f'--size={size}'], 30),
          Stage(f'variants {size}', ['variants', f'--size={size}', *variant_flags], 90),
          Stage(f'profile {size}', ['profile', f'--size={size}'], 25)]


def time_budget(remaining, seconds_left):
  """Time limit in seconds of the first of the remaining stages."""
  weight = remaining[0].weight / sum(stage.weight for stage in remaining)
  return min(seconds_left, max(MIN_STAGE_S, seconds_left * weight))


def stage_environment():
  """Environment variables of the stages: they share one GPU and the cache of compiled programs."""
  cache = paths.local(defaults.declared()['compilation_cache'].default)
  return {'JAX_COMPILATION_CACHE_DIR': cache, **toolchain.cuda_environment(), **os.environ,
          'TOKENIZERS_PARALLELISM': 'false', 'XLA_PYTHON_CLIENT_PREALLOCATE': 'false'}


def run_stage(stage, seconds, path, poll):
  """Run a stage, with all processes that it starts, for at most a number of seconds.

  Args:
    stage: Stage.
    seconds: time limit.
    path: of the journal.
    poll: function without arguments, called repeatedly while the stage runs.

  Returns:
    (None or the reason why the stage failed, the end of its standard error).
  """
  limit = [f'--limit_s={seconds * MEASURING_SHARE:.0f}'] * stage.limited
  command = [sys.executable, '-m', 'gptjax.benchmark.stage', *stage.flags, *limit, f'--journal={path}']
  deadline, error = time.monotonic() + seconds, f'cut off after {seconds:.0f} s'
  with tempfile.TemporaryFile() as stderr:
    process = None
    try:
      with shutdown.block_signals():
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=stderr, process_group=0,
                                   env=stage_environment())
      while (left := deadline - time.monotonic()) > 0:
        with contextlib.suppress(subprocess.TimeoutExpired):
          code = process.wait(min(POLL_S, left))
          error = f'exit code {code}' if code else None
          break
        poll()
    finally:
      if process:
        with contextlib.suppress(ProcessLookupError):
          os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdin.close()
    stderr.seek(max(0, stderr.seek(0, os.SEEK_END) - STDERR_TAIL))
    return error, stderr.read().decode(errors='replace')


class ResultsFile:
  """The result file of a journal, rewritten when the journal has grown."""

  def __init__(self, path, out):
    self.path, self.out, self._size = path, out, 0

  def __call__(self):
    """The content of the file, in the form of `journal.to_results`; None if the journal has not grown."""
    size = os.path.getsize(self.path)
    if size == self._size:
      return None
    self._size = size
    content = gates.add_gates(journal.to_results(journal.read(self.path)))
    results.write(self.out, **content)
    return content


def run_stages(stages, seconds, out):
  """Run the stages until the time is over; returns 0 if every stage is complete."""
  start, path = time.monotonic(), journal.journal_path(out)
  Path(out).parent.mkdir(parents=True, exist_ok=True)
  records, write, complete = journal.Journal(path), ResultsFile(path, out), True
  records.add('start', benchmark='gpu', machine=machine_info(PACKAGES))
  for what, value in [*version_facts(), *toolchain.cuda_facts(), *toolchain.package_facts()]:
    records.add('fact', what=what, value=value)
  for i, stage in enumerate(stages):
    left, started = seconds - (time.monotonic() - start), time.monotonic()
    limit = max(0, time_budget(stages[i:], left))
    records.add('part', name=stage.name, share=limit)
    error, stderr = run_stage(stage, limit, path, write) if limit > 1 else ('skipped: no time is left', '')
    lost = (write() or journal.to_results(journal.read(path)))['parts'][stage.name]['lost']
    error = error or (f'without {", ".join(lost)}' if lost else None)
    records.add('end', seconds=time.monotonic() - started, error=error, stderr=stderr if error else '')
    if error and stderr:
      print(stderr.rstrip(), flush=True)
    complete = complete and not error
  content = write()
  machine = content['machine']
  print(f'\n{machine["device"]}, {machine["date"]}, {time.monotonic() - start:.0f} s')
  gates.print_gates(content)
  return int(not complete)


def version_facts():
  """[(what, value)] of `machine_info`, for one printed line each."""
  machine = machine_info(PACKAGES)
  return [('python', machine['python']), ('processor', f'{machine["cores"]} x {machine["processor"]}'),
          *machine['versions'].items(), ('flags', machine['flags'])]


def main(argv):
  parser = run.Parser(prog='python -m gptjax.benchmark gpu', description=__doc__,
                      formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--first', action='store_true', help=f'the most important stages, in {FIRST_LIMIT_S} s')
  parser.add_argument('--sizes', default='',
                      help=f'comma-separated, of {", ".join(SIZES)}; default: all, with --first the '
                      f'smallest; {TINY} runs on any device')
  parser.add_argument('--limit_s', type=real(1, 1e6),
                      help=f'seconds for all stages; default: {LIMIT_S}, with --first {FIRST_LIMIT_S}')
  results.add_out(parser, required=True)
  flags = parser.parse_args(argv)
  sizes = flags.sizes.split(',') if flags.sizes else [SIZES[0]] if flags.first else [*SIZES]
  if sizes != [TINY] and (unknown := [size for size in sizes if size not in SIZES]):
    parser.error(f'unknown size {", ".join(unknown)}: use {", ".join(SIZES)}, or {TINY} alone')
  if Path(path := journal.journal_path(flags.out)).exists():
    raise InputError(f'{path} holds an earlier run: choose another --out, or remove the file')
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # `finally` ends the stage
  memory = toolchain.gpu_memory(toolchain.gpu_info())
  planned = first_stages(sizes[0]) if flags.first else stages(sizes, memory)
  return run_stages(planned, flags.limit_s or (FIRST_LIMIT_S if flags.first else LIMIT_S), flags.out)
