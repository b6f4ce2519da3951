"""Folders of this machine for what a process writes as files and then puts into a bucket.

    CACHE/outgoing/TOKEN/lock     locked while the process runs
    CACHE/outgoing/TOKEN/NAME/    what goes to one folder in a bucket

A process removes its folder when it ends, and the folders of killed processes when it starts, except for
those with the file `keep`: they hold what could not be put into the bucket.
"""

import atexit
import contextlib
import hashlib
import os
import secrets

from gptjax.errors import InputError
from gptjax.storage.files import atomic, buckets, cache, locks
from gptjax.storage.files.paths import Url

LOCK, KEEP = 'lock', 'keep'
SMALL = 1 << 20  # bytes: files up to this size are put by one request

_roots = {}  # {(process, folder of the cache): (folder of this process, its open lock)}


def folder(url):
  """Return the Path of the folder for what goes below a Url; it exists."""
  path = _root() / f'{url.name}-{hashlib.sha256(str(url).encode()).hexdigest()[:12]}'
  path.mkdir(exist_ok=True)
  return path


@contextlib.contextmanager
def temporary(url):
  """Context manager of an unused Path for a file or a folder that goes to a Url; removed at the end."""
  path = folder(url.parent) / f'{secrets.token_hex(4)}-{url.name}'
  try:
    yield path
  finally:
    atomic.remove(path)


@contextlib.contextmanager
def replacing(path):
  """Context manager of a new binary file of any size that replaces one, here or in a bucket, at the end.

  If the block raises, nothing is replaced.

  Args:
    path: Path or Url.
  """
  if not isinstance(path, Url):
    atomic.remove_leftovers(path.parent, path.name)  # of killed processes; the caller owns the folder
    with atomic.replacing(path) as file:
      yield file
    return
  with temporary(path) as here:
    with atomic.replacing(here) as file:
      yield file
    put_file(path, here)


def keep():
  """Keep the folder of this process when it ends, because not all of it is in the bucket."""
  (_root() / KEEP).touch()


def forget():
  """Undo `keep`: all is in the bucket by now."""
  (_root() / KEEP).unlink(missing_ok=True)


def put_file(url, path):
  """Put a file into a bucket."""
  if path.stat().st_size <= SMALL:
    buckets.put(url, path.read_bytes())
  else:
    buckets.put_file(url, path)


def put_folder(url, path, last=()):
  """Put all files below a folder into a bucket.

  Args:
    url: of the folder in the bucket.
    path: Path of the folder of this machine.
    last: names of the files that are put after all others.
  """
  files = {str(file.relative_to(path)): file for file in path.rglob('*') if file.is_file()}
  for name in sorted(files, key=lambda name: (name in last, name)):
    put_file(url / name, files[name])


def _root():
  parent = cache.root() / 'outgoing'
  key = os.getpid(), parent
  if key not in _roots:
    parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    _remove_abandoned(parent)
    while (found := _new_root(parent)) is None:
      pass
    _roots[key] = found
    atexit.register(_remove_own, key)
  return _roots[key][0]


def _new_root(parent):
  """Return (a new folder, its locked file); None if another process removed it before it was locked."""
  path = parent / secrets.token_hex(8)
  path.mkdir(mode=0o700)
  lock = open(path / LOCK, 'w', opener=atomic.no_follow)
  locks.lock(lock)
  if os.fstat(lock.fileno()).st_nlink:
    return path, lock
  lock.close()
  return None


def _remove_own(key):
  path, lock = _roots[key]
  if key[0] == os.getpid() and not (path / KEEP).exists():
    atomic.remove(path)
  lock.close()


def _remove_abandoned(parent):
  """Remove the folders of processes that have ended; without flock they are not known, and stay."""
  for path in parent.iterdir():
    # OSError: another process is removing it; BlockingIOError: its process is running.
    with (contextlib.suppress(OSError, InputError),
          open(path / LOCK, 'r+', opener=atomic.no_follow) as lock):
      if locks.lock(lock, wait=False) and not (path / KEEP).exists():
        atomic.remove(path)
