"""Configuration of libtpu on machines without TPUs, where only `gptjax.plan` uses it, to compile."""

import glob
import importlib.util
import os
from pathlib import Path

GOOGLE, NETWORK_CARD = '0x1ae0', '0x0042'  # PCI ids: the vendor of TPUs, and its other device
NO_TPU_VARIABLES = {'TPU_SKIP_MDS_QUERY': '1', 'TPU_ACCELERATOR_TYPE': 'v5litepod-8',
                    'TPU_WORKER_HOSTNAMES': 'localhost', 'TPU_WORKER_ID': '0',
                    'ALLOW_MULTIPLE_LIBTPU_LOAD': '1'}


def configure_without_tpu():
  """Set variables with which libtpu does not query the network for TPUs, and admits several processes."""
  for name, value in NO_TPU_VARIABLES.items():
    os.environ.setdefault(name, value)


def silence_without_tpu(devices='/sys/bus/pci/devices'):
  """Call `configure_without_tpu` where libtpu is installed and there is no TPU.

  JAX loads libtpu in every process, and without these variables libtpu logs errors.

  Args:
    devices: folder in which the kernel lists PCI devices.
  """
  if importlib.util.find_spec('libtpu') and not any(map(is_tpu, glob.glob(f'{devices}/*'))):
    configure_without_tpu()


def is_tpu(device):
  """Return whether a device is a TPU, given its folder in `/sys/bus/pci/devices`."""
  vendor, kind = (Path(device, name) for name in ('vendor', 'device'))
  return (vendor.exists() and vendor.read_text().strip() == GOOGLE
          and kind.exists() and kind.read_text().strip() != NETWORK_CARD)
