"""What the vendors say of the devices that can be planned for."""

from typing import NamedTuple


class Device(NamedTuple):
  """One device as JAX shows it; decimal units, bytes and seconds.

  flops: dense bfloat16, a second.
  memory: bytes that a program can have.
  bandwidth: of that memory, bytes a second.
  near: bytes a second to the devices of its slice or its host, one way, over all its links.
  far: the same to other slices or hosts.
  """
  flops: float
  memory: float
  bandwidth: float
  near: float
  far: float


# TPUs: Cloud TPU's system architecture pages; links by 4 (v5e, v6e) or 6, far: a host's network by its chips.
# GPUs: NVIDIA's data sheets for SXM modules of 80 GB; far: a network card a GPU, 400 and 200 Gbit/s.
DEVICES = {
  'v4': Device(275e12, 32 * 2**30, 1.23e12, 270e9, 3.1e9),
  'v5e': Device(197e12, 15.75 * 2**30, 0.82e12, 180e9, 3.1e9),
  'v5p': Device(459e12, 95.7 * 2**30, 2.77e12, 540e9, 6.2e9),
  'v6e': Device(918e12, 31.25 * 2**30, 1.64e12, 360e9, 12.5e9),
  'h100': Device(989e12, 79.1 * 2**30, 3.35e12, 450e9, 50e9),
  'a100': Device(312e12, 79.1 * 2**30, 2.04e12, 300e9, 25e9),
}


def of(topology):
  """The Device of a topology's name, like 'v5e:16x16'.

  Raises:
    ValueError: its facts are not known here.
  """
  name = topology.partition(':')[0]
  if name not in DEVICES:
    raise ValueError(f'{name!r} is not one of the devices whose speed is known: {", ".join(DEVICES)}')
  return DEVICES[name]
