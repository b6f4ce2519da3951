"""Files that are there whole or not at all, after a kill or a crash too."""

import os
from pathlib import Path


def write(path, content):
  """Writes or replaces a file: readers see the old one or the new one.

  Args:
    path: of the file.
    content: str, written as UTF-8, or bytes.
  """
  path = Path(path)
  fresh = path.with_name(path.name + '.new')
  with open(fresh, 'wb') as file:
    file.write(content.encode() if isinstance(content, str) else content)
    file.flush()
    os.fsync(file.fileno())
  fresh.replace(path)
