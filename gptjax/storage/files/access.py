"""Files of runs and corpora, on this machine or in a bucket: the same functions for a Path and for a Url.

On this machine a file is replaced by a rename, after a sync (`atomic`); in a bucket by one put (`buckets`). A
folder in a bucket is the common beginning of some names: it is there if an object is.
"""

import errno
import os
import threading
import time

from gptjax.storage.files import atomic, bounded, buckets
from gptjax.storage.files.paths import Url

APART = 1.1  # seconds between two `write` of an object
_turns, _lock = {}, threading.Lock()  # {Url: time of the last or next one}


def read(path, max_bytes=bounded.MAX_FILE_BYTES):
  """Return the bytes of a file.

  Args:
    path: Path or Url.
    max_bytes: of a larger file nothing is read.

  Raises:
    FileNotFoundError: there is none.
    InputError: it is larger.
  """
  if not isinstance(path, Url):
    return bounded.read(path, max_bytes)
  try:
    return buckets.read(path, max_bytes)
  except FileNotFoundError:  # of fsspec, without a number
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from None


def write(path, content):
  """Write or replace a file (str, as UTF-8, or bytes), whole and durably; its folder need exist only here.

  This process replaces an object at most once per second, because GCS refuses to do so more often.
  """
  if isinstance(path, Url):
    _wait_for_turn(path)
    buckets.put(path, content)
  else:
    atomic.write(path, content)


def _wait_for_turn(url):
  """Return when `write` may replace an object."""
  with _lock:
    now = time.monotonic()
    for old in [name for name, turn in _turns.items() if turn < now - APART]:
      del _turns[old]
    turn = _turns[url] = max(now, _turns.get(url, now - APART) + APART)
  time.sleep(turn - now)


def create(path, content):
  """Write a file unless there is one; returns whether it was written."""
  if isinstance(path, Url):
    return buckets.create(path, content)
  new = atomic.new_name(path)
  atomic.write(new, content)
  try:
    os.link(new, path)  # unlike a rename, it replaces nothing
  except FileExistsError:
    return False
  except OSError as error:  # a file system without hard links
    if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
      raise
    if path.exists():
      return False
    atomic.rename(new, path)
  finally:
    atomic.remove(new)
  atomic.sync(path.parent)
  return True


def copy(path, target):
  """Write a file of up to 64 MB, here or in a bucket, to another place."""
  write(target, read(path))


def is_file(path):
  """Return whether there is a file."""
  return buckets.entry(path) is not None if isinstance(path, Url) else path.is_file()


def is_folder(path):
  """Return whether there is a folder; in a bucket, one with an object in it."""
  return bool(buckets.names(path)) if isinstance(path, Url) else path.is_dir()


def names(folder):
  """Return the sorted names of the files and folders in a folder; [] if it does not exist."""
  if isinstance(folder, Url):
    return buckets.names(folder)
  return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def remove(path):
  """Remove a file; it need not exist."""
  if isinstance(path, Url):
    buckets.remove(path)
  else:
    path.unlink(missing_ok=True)


def make_folder(path):
  """Create a folder of this machine, durably, with its parents; in a bucket there is nothing to create."""
  if not isinstance(path, Url):
    atomic.make_folders(path)
