"""Files of this machine that are read or written in parts: shards, logs, columns of an index.

Whole files are read and written with `access`, which also takes those in buckets.
"""

import glob
import shutil
import stat
from pathlib import Path

import numpy as np

from gptjax.errors import InputError
from gptjax.storage.files import atomic

CHUNK = 1 << 22  # bytes


def opened(path, mode='rb', **options):
  """Return an open file; the arguments are those of `open`. Nothing is written through a symbolic link."""
  return open(path, mode, **options, opener=None if mode in ('r', 'rb') else atomic.no_follow)


def lines_at_end(path):
  """Return a file of text, open at its end; each line is written at once."""
  return opened(path, 'a', buffering=1)


def content(path):
  """Return the bytes of a file of any size."""
  with opened(path) as file:
    return file.read()


class TooShort(InputError):
  """A file has fewer bytes than were to be read."""


def part(path, start, stop):
  """Return the bytes [start, stop) of a file; TooShort if it has fewer."""
  with opened(path) as file:
    file.seek(start)
    content = file.read(stop - start)
  if len(content) < stop - start:
    raise TooShort(f'{path} has fewer than {stop:,} bytes: it was changed or cut short')
  return content


def chunks(path):
  """Yield the bytes of a file, CHUNK at a time."""
  with opened(path) as file:
    while chunk := file.read(CHUNK):
      yield chunk


def size(path):
  """Return the size of a file in bytes.

  Raises:
    FileNotFoundError: there is none.
    InputError: it is a device or the like, which has no size.
  """
  status = path.stat()
  if not stat.S_ISREG(status.st_mode):
    raise InputError(f'{path} is not a file: remove it')
  return status.st_size


def modified(path):
  """Return when the content of a file was written last, in nanoseconds."""
  return path.stat().st_mtime_ns


def free_bytes(folder):
  """Return the free bytes of the disk that a folder is on."""
  return shutil.disk_usage(folder).free


def matching(folder, pattern):
  """Return the sorted files and folders below a folder whose path from there matches a pattern of `glob`."""
  return sorted(map(Path, glob.glob(str(Path(glob.escape(str(folder))) / pattern), recursive=True)))


def mapped(file, dtype, count, offset=0):
  """Return a memory map of `count` items of a file, from byte `offset` on, as a read-only array.

  Args:
    file: a path or an open file.
    dtype: of the items.
    count: number of items, or the shape of the array.
    offset: bytes.
  """
  # A plain array that shares the memory: slicing np.memmap itself is ten times slower.
  return np.asarray(np.memmap(file, dtype, 'r', offset, count)) if count else np.empty(0, dtype)
