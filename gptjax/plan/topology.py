"""Devices by name, none of which need be here: TPU slices and GPUs as their compilers describe them."""

import math
import os
import re

from jax.experimental import topologies

from gptjax.errors import InputError
from gptjax.plan import gpu

MOST_DEVICES = 2**20
# Dimensions of a slice; one more number is the count of slices.
DIMENSIONS = {'v2': 2, 'v3': 2, 'v4': 3, 'v5e': 2, 'v5p': 3, 'v6e': 2, 'tpu7x': 3}


def describe(name):
  """Devices to make a mesh of and to compile for, never to run on.

  Args:
    name: generation and shape of a slice, like 'v5e:16x16' or 'v5p:4x4x8'; with one more number, several
      such slices: 'v5e:16x16x2'. Or a GPU and how many of them a host has: 'h100:8'; with one more number,
      several such hosts: 'h100:8x16'.

  Returns:
    A list of described devices, one for each that JAX would show.

  Raises:
    ValueError: the compiler for them is not installed, or knows no such slice.
  """
  generation, _, shape = name.partition(':')
  if generation in gpu.KINDS:
    return _gpus(generation, name, shape)
  if generation not in DIMENSIONS or not re.fullmatch(r'[1-9]\d*(x[1-9]\d*)*', shape):
    raise InputError(f'{name!r} is not a topology: say GENERATION:SHAPE, like v5e:4x4 or v5p:2x2x4, of '
                     f'{", ".join(DIMENSIONS)}; or h100:8, a100:8')
  _require_few(name, shape)
  sizes, rank = shape.split('x'), DIMENSIONS[generation]
  if len(sizes) not in (rank, rank + 1):
    raise InputError(f'a slice of {generation} has {rank} dimensions, and {name!r} gives {len(sizes)} '
                     'numbers (one more than dimensions: the number of slices)')
  alone()
  wanted = {'num_slices': int(sizes[rank])} if len(sizes) > rank and int(sizes[rank]) > 1 else {}
  if generation in ('v4', 'v5p'):
    wanted['chip_config_name'] = 'megacore'  # a chip as one device, as JAX shows it
  one = f'{generation}:{"x".join(sizes[:rank])}'
  try:
    return topologies.get_topology_desc(platform='tpu', topology_name=one, **wanted).devices
  except RuntimeError as error:
    if 'not installed' in str(error):
      raise InputError("the TPU compiler is not here: pip install 'gptjax[plan-tpu]' (Linux)") from None
    raise InputError(f'libtpu knows no {name}: {str(error).splitlines()[0]}') from None


def _require_few(name, shape):
  if len(shape) > 40 or math.prod(map(int, shape.split('x'))) > MOST_DEVICES:
    raise InputError(f'{name[:40]!r} is more than {MOST_DEVICES:,} devices, the most that can be planned')


def _gpus(kind, name, shape):
  if not re.fullmatch(r'[1-9]\d*(x[1-9]\d*)?', shape):
    raise InputError(f'{name!r} is not a topology: say {kind}:8, or {kind}:8x16 for 16 hosts of eight')
  _require_few(name, shape)
  each, _, hosts = shape.partition('x')
  try:
    return topologies.get_topology_desc(kind, 'cuda', target_config=gpu.target(kind),
                                        topology=f'{hosts or 1}x1x{each}').devices
  except (NotImplementedError, RuntimeError) as error:
    raise InputError("the GPU compiler is not here: pip install 'gptjax[plan-gpu]' (Linux, 5 GB, no GPU "
                     f'needed; {str(error).splitlines()[0][:80]})') from None


def alone():
  """Tells libtpu that there is no TPU to look for; it would ask the network, and let in one process only."""
  for name, value in (('TPU_SKIP_MDS_QUERY', '1'), ('TPU_ACCELERATOR_TYPE', 'v5litepod-8'),
                      ('TPU_WORKER_HOSTNAMES', 'localhost'), ('TPU_WORKER_ID', '0'),
                      ('ALLOW_MULTIPLE_LIBTPU_LOAD', '1')):
    os.environ.setdefault(name, value)
