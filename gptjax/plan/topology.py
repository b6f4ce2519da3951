"""Devices by topology name, as described by their compilers; no such device needs to be present."""

import math
import re

from jax.experimental import topologies

from gptjax.errors import InputError
from gptjax.parallel import libtpu
from gptjax.plan import gpu

MAX_DEVICES = 2**20
# Dimensions of a slice; an additional number is the number of slices.
DIMENSIONS = {'v2': 2, 'v3': 2, 'v4': 3, 'v5e': 2, 'v5p': 3, 'v6e': 2, 'tpu7x': 3}


def describe(name):
  """Return devices for a mesh to compile for; programs cannot run on them.

  Args:
    name: generation and shape of a slice, like 'v5e:16x16' or 'v5p:4x4x8'; an additional number is the number
      of slices: 'v5e:16x16x2'. Or a GPU and the number of GPUs per host: 'h100:8'; an additional number is
      the number of hosts: 'h100:8x16'.

  Returns:
    A list of device descriptions, one for each device that JAX would show.

  Raises:
    ValueError: their compiler is not installed, or does not support the topology.
  """
  generation, _, shape = name.partition(':')
  if generation in gpu.KINDS:
    return _gpus(generation, name, shape)
  check_name(name)
  if generation not in DIMENSIONS or not re.fullmatch(r'[1-9]\d*(x[1-9]\d*)*', shape):
    raise InputError(f'{name!r} is not a topology: use GENERATION:SHAPE, like v5e:4x4 or v5p:2x2x4, of '
                     f'{", ".join(DIMENSIONS)}; or h100:8, a100:8')
  _check_device_count(name, shape)
  sizes, rank = shape.split('x'), DIMENSIONS[generation]
  if len(sizes) not in (rank, rank + 1):
    raise InputError(f'a slice of {generation} has {rank} dimensions, but {name!r} has {len(sizes)} '
                     'numbers (an additional one is the number of slices)')
  libtpu.configure_without_tpu()
  options = {'num_slices': int(sizes[rank])} if len(sizes) > rank and int(sizes[rank]) > 1 else {}
  if generation in ('v4', 'v5p'):
    options['chip_config_name'] = 'megacore'  # a chip as one device, as JAX shows it
  slice_name = f'{generation}:{"x".join(sizes[:rank])}'
  try:
    return topologies.get_topology_desc(platform='tpu', topology_name=slice_name, **options).devices
  except RuntimeError as error:
    if 'not installed' in str(error):
      raise InputError("the TPU compiler is not installed: pip install 'gptjax[plan-tpu]' (Linux)") from None
    raise InputError(f'libtpu does not support {name}: {str(error).splitlines()[0]}') from None


def check_name(name):
  """Raise InputError for cloud names of slices like 'v5e-256', with the corresponding topology."""
  match = re.fullmatch(r'(v\d[ep]?|v5litepod|tpu7x)-(\d{1,5})', name)
  if not match:
    return
  generation = match[1].replace('v5litepod', 'v5e')
  cores = 1 if generation in ('v5e', 'v6e') else 2  # per chip: other names count cores
  chips = int(match[2]) // cores
  if generation not in DIMENSIONS or chips < 4 or chips & (chips - 1):
    raise InputError(f'{name!r} is not a topology: use its shape in chips, like v5e:4x4 or v5p:2x2x4')
  rank, power = DIMENSIONS[generation], chips.bit_length() - 1
  sizes = [2 ** ((power + i) // rank) for i in range(rank)] if power > 2 or rank == 2 else [2, 2, 1]
  suggestion = f'{generation}:{"x".join(map(str, sizes))}'
  raise InputError(f'{name!r} is not a topology: did you mean {suggestion}? Slices are named by their shape')


def _check_device_count(name, shape):
  if len(shape) > 40 or math.prod(map(int, shape.split('x'))) > MAX_DEVICES:
    raise InputError(f'{name[:40]!r} has more than {MAX_DEVICES:,} devices, the maximum')


def _gpus(kind, name, shape):
  if not re.fullmatch(r'[1-9]\d*(x[1-9]\d*)?', shape):
    raise InputError(f'{name!r} is not a topology: use {kind}:8, or {kind}:8x16 for 16 hosts of eight GPUs')
  _check_device_count(name, shape)
  gpus_per_host, _, hosts = shape.partition('x')
  try:
    return topologies.get_topology_desc(kind, 'cuda', target_config=gpu.target_config(kind),
                                        topology=f'{hosts or 1}x1x{gpus_per_host}').devices
  except (NotImplementedError, RuntimeError) as error:
    raise InputError("the GPU compiler is not installed: pip install 'gptjax[plan-gpu]' (Linux, 5 GB, no GPU "
                     f'needed; {str(error).splitlines()[0][:80]})') from None
