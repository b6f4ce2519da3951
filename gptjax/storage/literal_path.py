"""Paths for libraries that interpret some characters of a path.

Orbax lists folders with `glob`, which interprets `*`, `?` and `[` in the folder's path as patterns;
TensorStore treats a backslash as a slash; epath treats a path that starts with `/gs/` or similar as a bucket.
A folder with such a path is opened, and the library gets the path of its file descriptor, which has no such
characters.
"""

import contextlib
import os
import re
from pathlib import Path

from gptjax.errors import InputError

SPECIAL = re.compile(r'[*?[\\]|^/(gs|s3|az|hf)/')
DESCRIPTORS = Path('/proc/self/fd')  # on Linux, a folder with links to open folders


def check(folder):
  """Raise InputError for a folder that Orbax cannot write to: a special path on a system without /proc."""
  path = str(Path(folder).absolute())
  if (match := SPECIAL.search(path)) and not DESCRIPTORS.is_dir():
    raise InputError(f'{path} has {match.group()!r} in it, with which checkpoints cannot be written on this '
                     'system: choose a path without * ? [ \\')


@contextlib.contextmanager
def literal(folder):
  """Context manager that gives a path to an existing folder which no library interprets."""
  folder = Path(folder).absolute()
  check(folder)
  if not SPECIAL.search(str(folder)):
    yield folder
    return
  descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
  try:
    yield DESCRIPTORS / str(descriptor)
  finally:
    os.close(descriptor)
