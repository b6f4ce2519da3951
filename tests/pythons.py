"""Interpreters of this machine other than the one that runs the tests."""

import os
import shutil
import subprocess
from pathlib import Path


def find(version):
  """The path of a Python, '3.12' say, that works; None: this machine has none.

  On PATH, or of pyenv, whose stand-ins on PATH only name the versions that it has.
  """
  pyenv = Path(os.environ.get('PYENV_ROOT') or Path.home() / '.pyenv') / 'versions'
  paths = [shutil.which(f'python{version}'), *sorted(pyenv.glob(f'{version}.*/bin/python'), reverse=True)]
  return next((str(path) for path in paths if path and _works(path)), None)


def _works(path):
  try:
    done = subprocess.run([path, '-c', 'import venv, ensurepip'], capture_output=True, check=False)
  except OSError:
    return False
  return done.returncode == 0
