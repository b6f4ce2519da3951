"""Software for compiling GPU programs, found without using the GPU: driver, ptxas, libdevice, packages."""

import contextlib
import importlib.util
import os
import re
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

REQUIRED = {'jax': (0, 10), 'flax': (0, 12), 'optax': (0, 2, 8), 'numpy': (2,)}  # as in setup.py
OPTIONAL = {'torch': 'the PyTorch contenders', 'transformers': 'the transformers contenders'}
PTXAS, LIBDEVICE = 'bin/ptxas', 'nvvm/libdevice/libdevice.10.bc'
WHEELS = ('nvidia.cu13', 'nvidia.cuda_nvcc')  # packages that JAX searches for them, in this order
QUERY = ('name', 'memory.total', 'driver_version', 'clocks.max.sm', 'clocks.max.mem', 'power.limit')
TOOL_TIMEOUT_S = 20  # a tool that takes longer counts as broken


def gpu_info():
  """{field of QUERY: value reported by nvidia-smi} of the first GPU; {} without nvidia-smi or a GPU."""
  output = _output(['nvidia-smi', f'--query-gpu={",".join(QUERY)}', '--format=csv,noheader,nounits'])
  values = output.splitlines()[0].split(', ') if output.strip() else []
  return dict(zip(QUERY, values)) if len(values) == len(QUERY) else {}


def gpu_memory(info):
  """Memory in bytes from the result of `gpu_info`; 0: unknown."""
  with contextlib.suppress(KeyError, ValueError):
    return int(info['memory.total']) << 20
  return 0


def pip_cuda_root():
  """The folder where JAX finds a CUDA toolkit installed by pip; '' if there is none."""
  for name in WHEELS:
    with contextlib.suppress(ImportError, ValueError):
      spec = importlib.util.find_spec(name)
      for folder in (spec and spec.submodule_search_locations) or ():
        if (Path(folder) / PTXAS).exists():
          return str(folder)
  return ''


def system_cuda_root():
  """The folder of a CUDA toolkit that was not installed by pip; '' if there is none."""
  from_environment = [os.environ.get(name, '') for name in ('CUDA_HOME', 'CUDA_PATH', 'CUDA_DIR')]
  on_path = shutil.which('ptxas')
  from_path = [str(Path(on_path).resolve().parents[1])] if on_path else []
  roots = [*from_environment, '/usr/local/cuda', *from_path]
  return next((root for root in roots if root and (Path(root) / PTXAS).exists()), '')


def cuda_environment():
  """Variables with which JAX finds ptxas and libdevice if it would not find them by itself."""
  root = '' if 'CUDA_ROOT' in os.environ or pip_cuda_root() else system_cuda_root()
  return {'CUDA_ROOT': root} if root else {}


def cuda_facts():
  """[(what, value)]: the GPU, ptxas and libdevice."""
  root = os.environ.get('CUDA_ROOT') or pip_cuda_root() or system_cuda_root()
  ptxas, libdevice = (Path(root) / name for name in (PTXAS, LIBDEVICE))
  exists = lambda path: root and path.exists()
  output = _output([str(ptxas), '--version']) if exists(ptxas) else ''
  release = re.search(r'release [\d.]+, V([\d.]+)', output)
  return [('nvidia-smi', gpu_info() or 'absent, or no GPU found'),
          ('ptxas', f'{ptxas}{f" {release[1]}" if release else ""}' if exists(ptxas) else 'absent'),
          ('libdevice', str(libdevice) if exists(libdevice) else 'absent')]


def package_facts():
  """[(what, value)]: packages that are absent, or older than gptjax needs."""
  facts = []
  for name, minimum in REQUIRED.items():
    required = '.'.join(map(str, minimum))
    installed = version(name)
    if installed is None or _numbers(installed) < minimum:
      facts.append((name, f'{installed or "absent"}, but gptjax needs {required} or newer: pip install '
                    f'--no-index --find-links=WHEELS "{name}>={required}", from a folder of wheels'))
  for name, what in OPTIONAL.items():
    if importlib.util.find_spec(name) is None:
      facts.append((name, f'absent: {what} are skipped'))
  return facts


def version(package):
  """The installed version of a package; None if it is not installed."""
  try:
    return metadata.version(package)
  except metadata.PackageNotFoundError:
    return None


def _numbers(text):
  return tuple(int(part) for part in re.findall(r'\d+', text.partition('+')[0])[:3])


def _output(command):
  """The stdout of a tool; '' if the tool is absent, fails or hangs."""
  try:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=TOOL_TIMEOUT_S).stdout
  except (OSError, subprocess.SubprocessError):
    return ''
