"""What stands beside every figure: when, where, and with what it was measured."""

import datetime
import os
import platform
from importlib import metadata
from pathlib import Path

import gptjax


def machine(packages):
  """{'date', 'processor', 'cores', 'python', 'versions': {package: version}}; JSON can write it.

  Args:
    packages: names as they are imported; those that are not installed are left out.
  """
  installed = metadata.packages_distributions()
  return {'date': datetime.date.today().isoformat(), 'processor': _processor(),
          'cores': len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count(),
          'python': platform.python_version(),
          'versions': {'gptjax': gptjax.__version__, **{
            name: metadata.version(installed[name][0]) for name in packages if name in installed}}}


def _processor():
  info = Path('/proc/cpuinfo')
  lines = info.read_text().splitlines() if info.exists() else []
  named = (line.partition(':')[2].strip() for line in lines if line.startswith('model name'))
  return next(named, platform.processor() or platform.machine())
