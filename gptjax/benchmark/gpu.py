"""All that there is to measure on one GPU, in one call: python -m gptjax.benchmark gpu --out=gpu.json

`--first` takes at most 90 s: versions of everything, ptxas and libdevice, one exponential, each attention
kernel beside float32, peak memory, then training of GPT-2 124M by gptjax alone and beside PyTorch.

Without it, most valuable first: training of 124M beside PyTorch, attention kernels with and without dropout,
training of 355M, 774M and 1.5B, generation, whether the step is right (check), single changes of the config
(variants), where the time of a step goes (profile). Each part runs in processes of its own and may take its
share of the time that is left; what a part does not use, those after it have. Contenders start one after the
other, and are interleaved while they are measured.

Each figure is on disk as soon as it is known, in gpu.jsonl beside gpu.json: a run that is cut off at any
moment leaves all that it has measured. gpu.json is made of it again and again;
`python -m gptjax.benchmark table gpu.jsonl --json=gpu.json` makes it, and the table, of what a kill has left.

Needs jax 0.10 or 0.11, flax, optax and numpy; for the contenders torch and transformers; no network. Where a
machine without a network has older ones, put wheels in a folder beside the checkout and install them with
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
from gptjax.files import paths

SIZES = ('124M', '355M', '774M', '1558M')
TINY = 'tiny'  # runs anywhere
LIMIT_S, FIRST_LIMIT_S = 540, 90
MIN_STAGE_S = 20         # seconds that a part has at the least, while there are any
MEASURING_SHARE = 0.95       # of its share, after which a part itself stops to measure
LARGE_MEMORY = 120e9      # bytes of memory in which two contenders of 1.5B have room
STDERR_TAIL = 2000  # characters of a failed part's standard error
POLL_S = 1           # seconds from one look at the journal to the next


class Stage(NamedTuple):
  """A sub-command with its flags.

  weight: seconds that it should need on an H100; of the time that is left it has its share by weight.
  limited: whether the sub-command has the flag --limit_s.
  """
  name: str
  flags: list
  weight: float
  limited: bool = False


def training_stage(size, contenders, weight, turns=5, steps=10):
  """Training of one size; contenders that are not installed are left out, but not the first."""
  first, *others = contenders.split(',')
  here = ','.join([first, *(name for name in others if not missing_package(name))])
  flags = ['train', f'--size={size}', f'--contenders={here}', f'--turns={turns}', f'--steps={steps}']
  return Stage(f'train {size} {here}', flags, weight, limited=True)


def first_stages(size):
  """What comes first, in at most FIRST_SECONDS."""
  return [Stage(f'attention {size}', ['attention', f'--size={size}'], 35),
          training_stage(size, f'{OURS},torch' + ',torch-compile' * (size != TINY), 55, turns=3)]


def stages(sizes, memory):
  """What there is to do, most valuable first.

  Args:
    sizes: of SIZES, or TINY alone.
    memory: bytes of the GPU's, 0: not known.
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
  few = ['--turns=2', '--steps=2', '--only=as it is'] if size == TINY else ['--turns=3', '--steps=10']
  dtype = 'float32' if size == TINY else 'bfloat16'
  peer = '' if missing_package('transformers') else ',transformers'
  generate = ['generate', f'--size={size}', f'--dtype={dtype}', f'--contenders={OURS}{peer}', '--turns=3']
  return [trainings[0], Stage(f'attention {size}', ['attention', f'--size={size}'], 35), *trainings[1:],
          Stage(f'generate {size}', generate, 50, limited=True),
          Stage(f'check {size}', ['check', f'--size={size}'], 30),
          Stage(f'variants {size}', ['variants', f'--size={size}', *few], 90),
          Stage(f'profile {size}', ['profile', f'--size={size}'], 25)]


def time_budget(todo, left):
  """Seconds for the first of the parts that are still to do, of those that are left for all of them."""
  weight = todo[0].weight / sum(part.weight for part in todo)
  return min(left, max(MIN_STAGE_S, left * weight))


def stage_environment():
  """Variables for the parts: they share one GPU, and a cache of compiled programs with all of gptjax."""
  cache = paths.local(defaults.declared()['compilation_cache'].default)
  return {'JAX_COMPILATION_CACHE_DIR': cache, **toolchain.cuda_environment(), **os.environ,
          'TOKENIZERS_PARALLELISM': 'false', 'XLA_PYTHON_CLIENT_PREALLOCATE': 'false'}


def run_stage(part, seconds, path, look):
  """Runs a part for at most so long, with all processes that it starts.

  Args:
    part: Part.
    seconds: that it may take.
    path: of the journal.
    look: function without arguments, called again and again while it runs.

  Returns:
    (None or why it did not end well, the end of its standard error).
  """
  limit = [f'--limit_s={seconds * MEASURING_SHARE:.0f}'] * part.limited
  line = [sys.executable, '-m', 'gptjax.benchmark.stage', *part.flags, *limit, f'--journal={path}']
  deadline, why = time.monotonic() + seconds, f'cut off after {seconds:.0f} s'
  with tempfile.TemporaryFile() as stderr:
    process = None
    try:
      with shutdown.block_signals():
        process = subprocess.Popen(line, stdin=subprocess.PIPE, stderr=stderr, process_group=0,
                                   env=stage_environment())
      while (left := deadline - time.monotonic()) > 0:
        with contextlib.suppress(subprocess.TimeoutExpired):
          code = process.wait(min(POLL_S, left))
          why = f'exit code {code}' if code else None
          break
        look()
    finally:
      if process:
        with contextlib.suppress(ProcessLookupError):
          os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdin.close()
    stderr.seek(max(0, stderr.seek(0, os.SEEK_END) - STDERR_TAIL))
    return why, stderr.read().decode(errors='replace')


class ResultsFile:
  """The usual JSON file of a journal, written again where the journal has grown."""

  def __init__(self, path, out):
    self.path, self.out, self._size = path, out, 0

  def __call__(self):
    """Returns what it holds, in the form of `journal.usual`; None: it is as it was."""
    size = os.path.getsize(self.path)
    if size == self._size:
      return None
    self._size = size
    found = gates.add_gates(journal.to_results(journal.read(self.path)))
    results.write(self.out, **found)
    return found


def run_stages(todo, seconds, out):
  """Runs the parts until the time is over; 0 if each is complete."""
  began, path = time.monotonic(), journal.journal_path(out)
  Path(out).parent.mkdir(parents=True, exist_ok=True)
  kept, write, complete = journal.Journal(path), ResultsFile(path, out), True
  kept.add('start', benchmark='gpu', machine=machine_info(PACKAGES))
  for what, value in [*version_facts(), *toolchain.cuda_facts(), *toolchain.package_facts()]:
    kept.add('fact', what=what, value=value)
  for i, part in enumerate(todo):
    left, started = seconds - (time.monotonic() - began), time.monotonic()
    limit = max(0, time_budget(todo[i:], left))
    kept.add('part', name=part.name, share=limit)
    why, words = run_stage(part, limit, path, write) if limit > 1 else ('left out: no time', '')
    lost = (write() or journal.to_results(journal.read(path)))['parts'][part.name]['lost']
    why = why or (f'without {", ".join(lost)}' if lost else None)
    kept.add('end', seconds=time.monotonic() - started, error=why, stderr=words if why else '')
    if why and words:
      print(words.rstrip(), flush=True)
    complete = complete and not why
  found = write()
  where = found['machine']
  print(f'\n{where["device"]}, {where["date"]}, {time.monotonic() - began:.0f} s')
  gates.print_gates(found)
  return int(not complete)


def version_facts():
  """[(what, value)] of `machine`, one line each while they are printed."""
  where = machine_info(PACKAGES)
  return [('python', where['python']), ('processor', f'{where["cores"]} x {where["processor"]}'),
          *where['versions'].items(), ('flags', where['flags'])]


def main(argv):
  parser = run.Parser(prog='python -m gptjax.benchmark gpu', description=__doc__,
                          formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--first', action='store_true', help=f'what is worth most, in {FIRST_LIMIT_S} s')
  parser.add_argument('--sizes', default='', help=f'comma-separated, of {", ".join(SIZES)}, else all, with '
                                                  f'--first the smallest; {TINY} runs anywhere')
  parser.add_argument('--limit_s', type=real(1, 1e6), help='seconds for all parts together, else '
                                                           f'{LIMIT_S}, with --first {FIRST_LIMIT_S}')
  parser.add_argument('--out', type=paths.flag, required=True, help='JSON file for the results')
  flags = parser.parse_args(argv)
  sizes = flags.sizes.split(',') if flags.sizes else [SIZES[0]] if flags.first else [*SIZES]
  if sizes != [TINY] and (unknown := [size for size in sizes if size not in SIZES]):
    parser.error(f'no such size: {", ".join(unknown)}, of {", ".join(SIZES)}; or {TINY} alone')
  if Path(path := journal.journal_path(flags.out)).exists():
    raise InputError(f'{path} holds an earlier run: name another --out, or remove it')
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # takes what it has started along
  todo = first_stages(sizes[0]) if flags.first else stages(sizes, toolchain.gpu_memory(toolchain.gpu_info()))
  return run_stages(todo, flags.limit_s or (FIRST_LIMIT_S if flags.first else LIMIT_S), flags.out)
