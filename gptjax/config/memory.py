"""Whether a model can fit the devices at all: arithmetic, before anything is built."""

import shlex
import sys
from pathlib import Path

import numpy as np

from gptjax.errors import InputError
from gptjax.model.size import n_params

FLOAT32, INT32 = 4, 4  # bytes
SHORTEST = 8           # tokens of the shortest sequences of fine-tuning
EXAMPLE = '--config=configs/gpt2_xl.py'


def check(config, mesh):
  """Refuses a run whose weights, moments, gradients and activations cannot fit.

  Args:
    config: resolved.
    mesh: of the run.

  Raises:
    InputError: the bytes needed at least, those there, and the command that plans the run.
  """
  parts = required_bytes(config, mesh)
  total, device = sum(parts.values()), mesh.local_devices[0]
  on_cpu = device.platform == 'cpu'
  if on_cpu:  # all share the memory of the machine
    total *= len(mesh.local_devices)
  there = host_bytes() if on_cpu else (device.memory_stats() or {}).get('bytes_limit')
  if there is None or total <= there:
    return
  shown = ', '.join(f'{name} {value:,}' for name, value in parts.items() if value)
  n = len(mesh.local_devices)
  where = f'this machine has {there:,}' if on_cpu else f'a {device.device_kind} has {there:,}'
  times = f', on each of {n} simulated devices' if on_cpu and n > 1 else ''
  raise InputError(
    f'the run needs at least {total:,} bytes{"" if on_cpu else " per device"} ({shown}{times}), and {where}: '
    f'use more or larger devices, or a smaller model or batch; what fits is shown by {plan_command()}')


def required_bytes(config, mesh):
  """{what: bytes} on each device, at the least; what is replicated counts once per device.

  The backward pass of a Transformer begins with the input of every layer in memory, whatever is
  rematerialized. Gradients are summed beside them where there are several microbatches; with one they take
  their place.
  """
  c, sizes = config, mesh.shape
  weights = parameters(c.model) * FLOAT32 // (sizes['fsdp'] * sizes['tensor'])
  rows = sizes['replica'] * sizes['data'] * sizes['fsdp']
  if c.job == 'evaluate':
    stream = c.model.n_ctx * c.model.n_embd * np.dtype(c.model.compute_dtype).itemsize
    return {'weights': weights, 'activations': c.eval.batch_size * stream // rows}
  trained = c.job == 'pretrain' or c.finetune.train == 'full'
  moments = weights * (1 if c.optimizer.name == 'muon' else 2) * trained
  if c.job == 'finetune':  # the width of its batches is known only with the data
    return {'weights': weights, 'optimizer': moments,
            'batch': INT32 * c.train.batch_size * SHORTEST // rows}
  several = c.train.microbatch_size < c.train.batch_size
  width = FLOAT32 if several else np.dtype(c.model.compute_dtype).itemsize
  gradients = weights // FLOAT32 * width
  stream = c.data.seq_len * c.model.n_embd * np.dtype(c.model.compute_dtype).itemsize
  layers = c.model.n_layer if c.model.architecture == 'transformer' else 1
  activations = max(c.train.microbatch_size * layers, c.eval.batch_size) * stream // rows
  if not several:
    activations = max(activations - gradients, 0)
  batch = 2 * INT32 * c.train.batch_size * c.data.seq_len // rows
  return {'weights': weights, 'optimizer': moments, 'gradients': gradients, 'activations': activations,
          'batch': batch}


def parameters(model):
  """Numbers in the weights, the padding of the vocabulary included."""
  return n_params(model, padded=True)


def host_bytes():
  """Memory of this machine that this process can use: all of it, or what its control group allows."""
  lines = Path('/proc/meminfo').read_text().splitlines() if Path('/proc/meminfo').exists() else []
  found = [int(line.split()[1]) * 1024 for line in lines if line.startswith('MemTotal:')]
  return min(found + list(_group_limits()), default=None)


def _group_limits():
  """Yields the limits in bytes of the control groups (versions 1 and 2) that this process is in."""
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
  """The command that plans the run of this process for devices that are not here."""
  flags = [argument for argument in sys.argv[1:] if argument.lstrip('-').startswith('config')]
  return f'python -m gptjax.plan {shlex.join(flags) or EXAMPLE} --topology=v5e:8x8 --search'
