"""Files of this machine that are read or written in parts: shards, logs, columns of an index.

Whole files are read and written with `access`, which also takes those in buckets.
"""

import glob
import os
import shutil
from pathlib import Path

import numpy as np

from gptjax.errors import InputError
from gptjax.storage.files import atomic

PARTIAL_SUFFIX = '.part'  # of the name of an AppendOnlyFile until it is complete
CHUNK = 1 << 22           # bytes


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


def part(path, start, stop):
  """Return the bytes [start, stop) of a file."""
  with opened(path) as file:
    file.seek(start)
    return file.read(stop - start)


def chunks(path):
  """Yield the bytes of a file, CHUNK at a time."""
  with opened(path) as file:
    while chunk := file.read(CHUNK):
      yield chunk


def size(path):
  """Return the size of a file in bytes; FileNotFoundError if there is none."""
  return path.stat().st_size


def free_bytes(folder):
  """Return the free bytes of the disk that a folder is on."""
  return shutil.disk_usage(folder).free


def matching(folder, pattern):
  """Return the sorted files and folders below a folder whose path from there matches a pattern of `glob`."""
  return sorted(map(Path, glob.glob(str(Path(glob.escape(str(folder))) / pattern), recursive=True)))


def array(file, dtype, count=-1):
  """Return the next `count` items of a file, a path or an open file; -1: all."""
  return np.fromfile(file, dtype, count)


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


class AppendOnlyFile:
  """A file that is only appended to; after `sync`, `length` bytes of it are on disk.

  Until it is complete, its name ends with PARTIAL_SUFFIX.
  """

  def __init__(self, path, length):
    """Open the file, truncated to its committed length (0: a new file)."""
    self.path = Path(path)
    self._part = self.path.with_name(self.path.name + PARTIAL_SUFFIX)
    if self.path.exists():  # the process was killed between `complete` and the next commit
      os.replace(self.path, self._part)
    self._file = opened(self._part, 'r+b' if self._part.exists() else 'w+b')
    atomic.sync(self._part.parent)  # a later commit must not refer to a file name that is not on disk
    size = self._file.seek(0, os.SEEK_END)
    if size < length:
      raise InputError(f'{self._part} has {size:,} bytes, not the {length:,} that were committed: '
                       f'remove {self.path.parent} and start again')
    self._file.truncate(length)
    self._file.seek(length)
    self.length = length

  def write(self, data):
    self._file.write(data)
    self.length += len(data)

  def sync(self):
    self._file.flush()
    os.fsync(self._file.fileno())

  def close(self):
    self._file.close()

  def complete(self):
    """Rename the complete file to its final name, or remove it if it is empty."""
    self.sync()
    self.close()
    if self.length:
      atomic.rename(self._part, self.path)
    else:
      self._part.unlink()
