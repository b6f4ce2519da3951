"""What programs of a GPU are made with, found without touching it: driver, ptxas, libdevice, packages."""

import contextlib
import importlib.util
import os
import re
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

REQUIRED = {'jax': (0, 10), 'flax': (0, 12), 'optax': (0, 2, 8), 'numpy': (2,)}  # setup.py has them, too
OPTIONAL = {'torch': 'the contenders of PyTorch', 'transformers': 'those of transformers'}
PTXAS, LIBDEVICE = 'bin/ptxas', 'nvvm/libdevice/libdevice.10.bc'
WHEELS = ('nvidia.cu13', 'nvidia.cuda_nvcc')  # packages in which JAX looks for them, in this order
QUERY = ('name', 'memory.total', 'driver_version', 'clocks.max.sm', 'clocks.max.mem', 'power.limit')
TOOL_TIMEOUT_S = 20  # seconds after which a tool counts as broken


def gpu_info():
  """{field of QUERY: value as nvidia-smi has it} of the first GPU; {}: there is no such tool, or no GPU."""
  said = _output(['nvidia-smi', f'--query-gpu={",".join(QUERY)}', '--format=csv,noheader,nounits'])
  values = said.splitlines()[0].split(', ') if said.strip() else []
  return dict(zip(QUERY, values)) if len(values) == len(QUERY) else {}


def gpu_memory(found):
  """Bytes of memory of `gpu()`; 0: not known."""
  with contextlib.suppress(KeyError, ValueError):
    return int(found['memory.total']) << 20
  return 0


def pip_cuda_root():
  """The folder in which JAX finds a CUDA toolkit that pip has installed; '' if there is none."""
  for name in WHEELS:
    with contextlib.suppress(ImportError, ValueError):
      spec = importlib.util.find_spec(name)
      for folder in (spec and spec.submodule_search_locations) or ():
        if (Path(folder) / PTXAS).exists():
          return str(folder)
  return ''


def system_cuda_root():
  """The folder of a CUDA toolkit that pip has not installed; '' if there is none."""
  named = [os.environ.get(name, '') for name in ('CUDA_HOME', 'CUDA_PATH', 'CUDA_DIR')]
  on_path = shutil.which('ptxas')
  roots = [*named, '/usr/local/cuda', *([str(Path(on_path).resolve().parents[1])] if on_path else ())]
  return next((root for root in roots if root and (Path(root) / PTXAS).exists()), '')


def cuda_environment():
  """Variables by which JAX finds ptxas and libdevice, where it would not by itself."""
  root = '' if 'CUDA_ROOT' in os.environ or pip_cuda_root() else system_cuda_root()
  return {'CUDA_ROOT': root} if root else {}


def cuda_facts():
  """[(what, value)]: the GPU, ptxas and libdevice."""
  root = os.environ.get('CUDA_ROOT') or pip_cuda_root() or system_cuda_root()
  ptxas, libdevice = (Path(root) / name for name in (PTXAS, LIBDEVICE))
  there = lambda path: root and path.exists()
  said = _output([str(ptxas), '--version']) if there(ptxas) else ''
  release = re.search(r'release [\d.]+, V([\d.]+)', said)
  return [('nvidia-smi', gpu_info() or 'absent, or it finds no GPU'),
          ('ptxas', f'{ptxas}{f" {release[1]}" if release else ""}' if there(ptxas) else 'absent'),
          ('libdevice', str(libdevice) if there(libdevice) else 'absent')]


def package_facts():
  """[(what, value)]: packages that are absent, or older than gptjax needs."""
  found = []
  for name, least in REQUIRED.items():
    wanted = '.'.join(map(str, least))
    have = version(name)
    if have is None or _numbers(have) < least:
      found.append((name, f'{have or "absent"}, but gptjax needs {wanted} or newer: pip install --no-index '
                          f'--find-links=WHEELS "{name}>={wanted}", from a folder of wheels'))
  for name, what in OPTIONAL.items():
    if importlib.util.find_spec(name) is None:
      found.append((name, f'absent: {what} are left out'))
  return found


def version(package):
  """As installed; None where it is not."""
  try:
    return metadata.version(package)
  except metadata.PackageNotFoundError:
    return None


def _numbers(text):
  return tuple(int(part) for part in re.findall(r'\d+', text.partition('+')[0])[:3])


def _output(command):
  """What a tool prints; '' where it is absent, fails or hangs."""
  try:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=TOOL_TIMEOUT_S).stdout
  except (OSError, subprocess.SubprocessError):
    return ''
