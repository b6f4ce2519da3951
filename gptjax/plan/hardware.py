"""Vendor specifications of the devices that can be planned for."""

from typing import NamedTuple

from gptjax.errors import InputError


class Device(NamedTuple):
  """One device as JAX shows it; decimal units, bytes and seconds.

  flops: dense bfloat16, per second.
  memory: bytes available to a program.
  bandwidth: of that memory, bytes per second.
  intra_bandwidth: bytes per second to devices of the same slice or host, one way, over all links.
  inter_bandwidth: the same to other slices or hosts.
  """
  flops: float
  memory: float
  bandwidth: float
  intra_bandwidth: float
  inter_bandwidth: float


# TPUs: docs.cloud.google.com/tpu/docs/v4, v5e, v5p and v6e ("System architecture"). intra_bandwidth: half of
# the "bidirectional inter-chip interconnect bandwidth per chip"; for v4, which has no such figure, a pod's
# all-reduce bandwidth divided by its chips. inter_bandwidth: "data center network bandwidth" of a chip, or of
# a pod divided by its chips; v4 has no such figure and uses v5e's. memory: as reported by libtpu 0.0.42.1.
# GPUs: NVIDIA's data sheets of the SXM modules with 80 GB; intra_bandwidth: NVLink, half of both directions;
# inter_bandwidth: one network card per GPU, 400 and 200 Gbit/s, as in DGX systems.
DEVICES = {
  'v4': Device(275e12, 30.75 * 2**30, 1.2e12, 270e9, 3.1e9),
  'v5e': Device(197e12, 15.75 * 2**30, 0.819e12, 200e9, 3.1e9),
  'v5p': Device(459e12, 95.74 * 2**30, 2.765e12, 600e9, 6.2e9),
  'v6e': Device(918e12, 31.25 * 2**30, 1.6e12, 400e9, 12.5e9),
  'h100': Device(989e12, 79.1 * 2**30, 3.35e12, 450e9, 50e9),
  'a100': Device(312e12, 79.1 * 2**30, 2.039e12, 300e9, 25e9),
}


def device_for(topology):
  """Return the Device of a topology, like 'v5e:16x16'.

  Raises:
    ValueError: its specifications are not in DEVICES.
  """
  name = topology.partition(':')[0]
  if name not in DEVICES:
    raise InputError(f'{name!r} is not a known device: use one of {", ".join(DEVICES)}')
  return DEVICES[name]
