"""When, where and with which software a benchmark was measured; stored with every result."""

import datetime
import os
import platform
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import gptjax
from gptjax.text.redacted import redacted

# Prefixes of environment variables that are recorded.
FLAGS = 'XLA_', 'JAX_', 'LIBTPU_', 'CUDA_DEVICE_', 'NVIDIA_TF32', 'TORCH', 'PYTORCH'


def machine_info(packages, device=''):
  """Return a dict that describes the machine and the software.

  Its keys: 'date', 'command', 'commit', 'code', 'device', 'processor', 'cores', 'python', 'flags',
  'versions'.

  commit: of the checkout, with '-dirty' if files differ from it; '' outside a checkout. code: digest of
  gptjax's files. flags: {environment variable: value} of those that affect compilation. JSON can write all
  values.

  Args:
    packages: import names; those that are not installed are skipped.
    device: name of the device as its driver reports it; '': the processor.
  """
  from gptjax.config import resolve  # imports JAX, which --help does not need
  installed = metadata.packages_distributions()
  processor = _processor()
  return {'date': datetime.date.today().isoformat(),
          'command': _command(sys.orig_argv),
          'commit': _commit(), 'code': resolve.code_digest(), 'device': device or processor,
          'processor': processor, 'cores': available_cores(), 'python': platform.python_version(),
          'flags': {name: value for name, value in sorted(os.environ.items()) if name.startswith(FLAGS)},
          'versions': {'gptjax': gptjax.__version__, **{
            name: metadata.version(installed[name][0]) for name in packages if name in installed}}}


def available_cores():
  """Number of cores that this process may use."""
  return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()


def _command(argv):
  """The command line without the folders of Python and of the console script."""
  words = ['python', *map(redacted, argv[1:])]
  return shlex.join(['gptjax', *words[2:]] if Path(words[1]).name == 'gptjax' else words)


def _commit():
  try:
    output = subprocess.run(['git', 'describe', '--always', '--dirty'], capture_output=True,
                            text=True, cwd=Path(gptjax.__file__).parent, check=False)
  except OSError:  # git is not installed
    return ''
  return output.stdout.strip()


def _processor(path='/proc/cpuinfo'):
  """The name of the processor; with family and model where many have the same name, such as 'AMD EPYC'."""
  info = Path(path)
  lines = info.read_text().splitlines() if info.exists() else []
  facts = {name.strip(): value.strip() for name, _, value in (line.partition(':') for line in lines)}
  name = facts.get('model name') or platform.processor() or platform.machine()
  if not facts.keys() >= {'cpu family', 'model'} or any(map(str.isdigit, name.partition('@')[0])):
    return name
  return f'{name} (family {facts["cpu family"]}, model {facts["model"]})'
