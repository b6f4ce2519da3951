"""Paths for libraries that read some characters of a path as something else.

Orbax lists folders with `glob`, which takes `*`, `?` and `[` in the folder's own path for patterns;
TensorStore takes a backslash for a slash; epath takes `/gs/` and the like at the start of a path for a
bucket. A folder with such a path is opened, and the library is given the path of its file descriptor, which
has none of them.
"""

import contextlib
import os
import re
from pathlib import Path

from gptjax.errors import InputError

SPECIAL = re.compile(r'[*?[\\]|^/(gs|s3|az|hf)/')
DESCRIPTORS = Path('/proc/self/fd')  # of Linux: a folder below which open folders can be entered


def check(folder):
  """Refuses a folder that Orbax could not write to (InputError): a special path where there is no /proc."""
  path = str(Path(folder).absolute())
  if (found := SPECIAL.search(path)) and not DESCRIPTORS.is_dir():
    raise InputError(f'{path} has {found.group()!r} in it, with which checkpoints cannot be written on this '
                     'system: choose a path without * ? [ \\')


@contextlib.contextmanager
def literal(folder):
  """A path to an existing folder which every library takes as it is, for as long as the context lasts."""
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
