"""A lower bound of the memory of a run, checked before anything is compiled."""

import shlex
import sys
from pathlib import Path

import numpy as np

from gptjax.data.corpus.packing import array_names
from gptjax.errors import InputError
from gptjax.model.size import n_params

FLOAT32, INT32 = 4, 4  # bytes
SHORTEST = 8           # tokens of the shortest sequences of fine-tuning
EXAMPLE = '--config=configs/gpt2_xl.py'


def check(config, mesh):
  """Check that weights, moments, gradients and activations can fit into memory.

  Args:
    config: resolved.
    mesh: of the run.

  Raises:
    InputError: they do not; the message has the required and available bytes, and a command to plan the run.
  """
  parts = required_bytes(config, mesh)
  total, device = sum(parts.values()), mesh.local_devices[0]
  on_cpu = device.platform == 'cpu'
  if on_cpu:  # simulated devices share the memory of the machine
    total *= len(mesh.local_devices)
  available = host_bytes() if on_cpu else (device.memory_stats() or {}).get('bytes_limit')
  if available is None or total <= available:
    return
  listed = ', '.join(f'{name} {value:,}' for name, value in parts.items() if value)
  n = len(mesh.local_devices)
  where = f'this machine has {available:,}' if on_cpu else f'a {device.device_kind} has {available:,}'
  times = f', on each of {n} simulated devices' if on_cpu and n > 1 else ''
  raise InputError(
    f'the run needs at least {total:,} bytes{"" if on_cpu else " per device"} ({listed}{times}), and {where}'
    f': use more or larger devices, or a smaller model or batch; to see what fits, run {plan_command()}')


def required_bytes(config, mesh):
  """Return {name: minimum bytes per device}; replicated arrays count on every device.

  At the start of the backward pass of a Transformer the input of every layer is in memory, whatever is
  rematerialized. With several microbatches the gradient sum is stored in addition; with one, gradients
  replace these inputs.
  """
  c, sizes = config, mesh.shape
  weights = parameters(c.model) * FLOAT32 // (sizes['fsdp'] * sizes['tensor'])
  rows = sizes['replica'] * sizes['data'] * sizes['fsdp']
  if c.job == 'evaluate':
    stream = (c.eval.n_ctx or c.model.n_ctx) * c.model.n_embd * np.dtype(c.model.compute_dtype).itemsize
    return {'weights': weights, 'activations': c.eval.batch_size * stream // rows}
  trained = c.job == 'pretrain' or c.finetune.train == 'full'
  moments = weights * (1 if c.optimizer.name == 'muon' else 2) * trained
  if c.job == 'finetune':  # the width of its batches depends on the data
    return {'weights': weights, 'optimizer': moments,
            'batch': INT32 * c.train.batch_size * SHORTEST // rows}
  accumulates = c.train.microbatch_size < c.train.batch_size
  width = FLOAT32 if accumulates else np.dtype(c.model.compute_dtype).itemsize
  gradients = weights // FLOAT32 * width
  stream = c.data.seq_len * c.model.n_embd * np.dtype(c.model.compute_dtype).itemsize
  layers = c.model.n_layer if c.model.architecture == 'transformer' else 1
  activations = max(c.train.microbatch_size * layers, c.eval.batch_size) * stream // rows
  if not accumulates:
    activations = max(activations - gradients, 0)
  batch = len(array_names(c.data)) * INT32 * c.train.batch_size * c.data.seq_len // rows
  return {'weights': weights, 'optimizer': moments, 'gradients': gradients, 'activations': activations,
          'batch': batch}


def parameters(model):
  """Return the number of weights, including the padding of the vocabulary."""
  return n_params(model, padded=True)


def host_bytes():
  """Return the memory that this process can use: that of the machine, or the limit of its control group."""
  lines = Path('/proc/meminfo').read_text().splitlines() if Path('/proc/meminfo').exists() else []
  total = [int(line.split()[1]) * 1024 for line in lines if line.startswith('MemTotal:')]
  return min(total + list(_group_limits()), default=None)


def _group_limits():
  """Yield the memory limits in bytes of this process's control groups (versions 1 and 2)."""
  groups = Path('/proc/self/cgroup')
  for line in groups.read_text().splitlines() if groups.exists() else ():
    _, kinds, path = line.split(':', 2)
    if kinds and 'memory' not in kinds.split(','):
      continue
    root, name = (('/sys/fs/cgroup/memory', 'memory.limit_in_bytes') if kinds else
                  ('/sys/fs/cgroup', 'memory.max'))
    inside = Path(root + path)
    for folder in (inside, *inside.parents):
      file = folder / name
      if file.is_file() and (limit := file.read_text().strip()).isdecimal():
        yield int(limit)


def plan_command():
  """Return the command that plans the run of this process for other devices."""
  flags = [argument for argument in sys.argv[1:] if argument.lstrip('-').startswith('config')]
  return f'python -m gptjax.plan {shlex.join(flags) or EXAMPLE} --topology=v5e:8x8 --search'
