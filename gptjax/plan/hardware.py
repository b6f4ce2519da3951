"""What the vendors say of the devices that can be planned for."""

from typing import NamedTuple

from gptjax.errors import InputError


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
  intra_bandwidth: float
  inter_bandwidth: float


# TPUs: docs.cloud.google.com/tpu/docs/v4, v5e, v5p and v6e ("System architecture"). near: half of the
# "bidirectional inter-chip interconnect bandwidth per chip"; for v4, which gives none, a pod's all-reduce
# bandwidth by its chips. far: "data center network bandwidth" of a chip, or of a pod by its chips; v4's is
# not given: v5e's. memory: what libtpu 0.0.42.1 says that a program can have.
# GPUs: NVIDIA's data sheets of the SXM modules with 80 GB; near: NVLink, half of both ways; far: a network
# card for each GPU, 400 and 200 Gbit/s, as in DGX systems.
DEVICES = {
  'v4': Device(275e12, 30.75 * 2**30, 1.2e12, 270e9, 3.1e9),
  'v5e': Device(197e12, 15.75 * 2**30, 0.819e12, 200e9, 3.1e9),
  'v5p': Device(459e12, 95.74 * 2**30, 2.765e12, 600e9, 6.2e9),
  'v6e': Device(918e12, 31.25 * 2**30, 1.6e12, 400e9, 12.5e9),
  'h100': Device(989e12, 79.1 * 2**30, 3.35e12, 450e9, 50e9),
  'a100': Device(312e12, 79.1 * 2**30, 2.039e12, 300e9, 25e9),
}


def device_for(topology):
  """The Device of a topology's name, like 'v5e:16x16'.

  Raises:
    ValueError: its facts are not known here.
  """
  name = topology.partition(':')[0]
  if name not in DEVICES:
    raise InputError(f'{name!r} is not one of the devices whose speed is known: {", ".join(DEVICES)}')
  return DEVICES[name]
