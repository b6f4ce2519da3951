"""Devices by name, none of which need be here: TPU slices and GPUs as their compilers describe them."""

import math
import re

from jax.experimental import topologies

from gptjax.errors import InputError
from gptjax.parallel import libtpu
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
  check_name(name)
  if generation not in DIMENSIONS or not re.fullmatch(r'[1-9]\d*(x[1-9]\d*)*', shape):
    raise InputError(f'{name!r} is not a topology: say GENERATION:SHAPE, like v5e:4x4 or v5p:2x2x4, of '
                     f'{", ".join(DIMENSIONS)}; or h100:8, a100:8')
  _check_device_count(name, shape)
  sizes, rank = shape.split('x'), DIMENSIONS[generation]
  if len(sizes) not in (rank, rank + 1):
    raise InputError(f'a slice of {generation} has {rank} dimensions, and {name!r} gives {len(sizes)} '
                     'numbers (one more than dimensions: the number of slices)')
  libtpu.configure_without_tpu()
  options = {'num_slices': int(sizes[rank])} if len(sizes) > rank and int(sizes[rank]) > 1 else {}
  if generation in ('v4', 'v5p'):
    options['chip_config_name'] = 'megacore'  # a chip as one device, as JAX shows it
  slice_name = f'{generation}:{"x".join(sizes[:rank])}'
  try:
    return topologies.get_topology_desc(platform='tpu', topology_name=slice_name, **options).devices
  except RuntimeError as error:
    if 'not installed' in str(error):
      raise InputError("the TPU compiler is not here: pip install 'gptjax[plan-tpu]' (Linux)") from None
    raise InputError(f'libtpu knows no {name}: {str(error).splitlines()[0]}') from None


def check_name(name):
  """Refuses 'v5e-256', the name that clouds give a slice, and says what it is here (InputError)."""
  match = re.fullmatch(r'(v\d[ep]?|v5litepod|tpu7x)-(\d{1,5})', name)
  if not match:
    return
  generation = match[1].replace('v5litepod', 'v5e')
  cores = 1 if generation in ('v5e', 'v6e') else 2  # of a chip: all other names count cores
  chips = int(match[2]) // cores
  if generation not in DIMENSIONS or chips < 4 or chips & (chips - 1):
    raise InputError(f'{name!r} is not a topology: say its shape in chips, like v5e:4x4 or v5p:2x2x4')
  rank, power = DIMENSIONS[generation], chips.bit_length() - 1
  sizes = [2 ** ((power + i) // rank) for i in range(rank)] if power > 2 or rank == 2 else [2, 2, 1]
  suggestion = f'{generation}:{"x".join(map(str, sizes))}'
  raise InputError(f'{name!r} is not a topology: did you mean {suggestion}? Slices are named by their shape')


def _check_device_count(name, shape):
  if len(shape) > 40 or math.prod(map(int, shape.split('x'))) > MOST_DEVICES:
    raise InputError(f'{name[:40]!r} is more than {MOST_DEVICES:,} devices, the most that can be planned')


def _gpus(kind, name, shape):
  if not re.fullmatch(r'[1-9]\d*(x[1-9]\d*)?', shape):
    raise InputError(f'{name!r} is not a topology: say {kind}:8, or {kind}:8x16 for 16 hosts of eight')
  _check_device_count(name, shape)
  gpus_per_host, _, hosts = shape.partition('x')
  try:
    return topologies.get_topology_desc(kind, 'cuda', target_config=gpu.target_config(kind),
                                        topology=f'{hosts or 1}x1x{gpus_per_host}').devices
  except (NotImplementedError, RuntimeError) as error:
    raise InputError("the GPU compiler is not here: pip install 'gptjax[plan-gpu]' (Linux, 5 GB, no GPU "
                     f'needed; {str(error).splitlines()[0][:80]})') from None
