"""Copies, on this machine, of what is in a bucket: verified while they are downloaded, and shared by runs.

    CACHE/files/SHA256        a file by the digest of its content, such as a shard of a corpus
    CACHE/folders/SHA256/     a small folder by the names, sizes and tags of its objects
    CACHE/*/NAME.lock         locked by a process that downloads NAME

If the cache would grow beyond its limit, or beyond the free space, the files are deleted that were used least
recently. A file in use keeps its content: deleting it on Linux and macOS removes its name only.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
from pathlib import Path

from gptjax import defaults
from gptjax.errors import InputError
from gptjax.storage.files import atomic, buckets, paths
from gptjax.storage.files.paths import Url

FREE = 1 << 30  # bytes of the disk that the cache leaves free
TRIES = 5       # downloads of a folder whose objects are replaced meanwhile


class _Settings:
  """Of this process; `configure` sets them."""
  folder = Path(paths.local(defaults.get_config().data.cache_dir))
  limit = 0.0


def configure(folder, limit_gb):
  """Set the folder of the cache, and its limit in GB (0: the free space of the disk)."""
  _Settings.folder, _Settings.limit = Path(folder), limit_gb * 1e9


def root():
  """Return the Path of the folder of the cache, which may not exist."""
  return _Settings.folder


class TooSmall(InputError):
  """The disk or the limit has not enough room for a file."""


def file(url, sha256, size, on_bytes=lambda chunk: None):
  """Return the Path of a copy of an object, after downloading it unless it is there.

  Args:
    url: of the object.
    sha256: digest of its content, hex.
    size: its bytes.
    on_bytes: called with each downloaded chunk; what it raises ends the download.

  Raises:
    TooSmall: no room for it.
    InputError: the object is missing, has another size, or another digest.
  """
  path = _Settings.folder / 'files' / sha256
  with _locked(path):
    if _has_size(path, size):
      os.utime(path)
      return path
    found = buckets.entry(url)
    if found is None:
      raise InputError(f'{url} is missing: copy it again, or prepare the corpus again')
    if found.size != size:
      raise InputError(f'{url} has {found.size:,} bytes, not {size:,} as in its manifest: copy it again, or '
                       'prepare the corpus again')
    _make_room(path.parent, size)
    digest = hashlib.sha256()
    def check(chunk):
      digest.update(chunk)
      on_bytes(chunk)
    with _removed_on_error(path):
      buckets.download(url, path, size, check)
      if digest.hexdigest() != sha256:
        raise InputError(f'{url} is damaged: its SHA-256 is {digest.hexdigest()[:12]}, not {sha256[:12]} as '
                         'in its manifest; copy it again, or prepare the corpus again')
  return path


def folder(location, wanted=lambda name: True):
  """Return a folder of this machine: a Path unchanged, or a copy of the objects below a Url.

  Args:
    location: Path or Url.
    wanted: function of the name of an object below the Url: whether to copy it.

  Raises:
    InputError: there are no objects, no room for them, or they are replaced again and again meanwhile.
  """
  if not isinstance(location, Url):
    return location
  for _ in range(TRIES):
    entries = {name: entry for name, entry in buckets.find(location).items() if wanted(name)}
    if not entries:
      raise InputError(f'{location} does not exist, or is empty')
    path = _copy(location, entries, lambda: {
      name: entry for name, entry in buckets.find(location).items() if wanted(name)})
    if path:
      return path
  raise InputError(f'{location} was replaced while it was read, {TRIES} times: try again later')


def _copy(location, entries, find):
  """Return the Path of a copy of these objects, or None if they are others after the download."""
  key = hashlib.sha256(repr((str(location), sorted(entries.items()))).encode()).hexdigest()
  path = _Settings.folder / 'folders' / key / location.name
  with _locked(path.parent):
    if not path.is_dir():
      _make_room(path.parent.parent, sum(entry.size for entry in entries.values()))
      new = atomic.new_name(path)
      try:
        for name, entry in entries.items():
          target = paths.below(new, name)
          target.parent.mkdir(parents=True, exist_ok=True)
          try:
            buckets.download(location / name, target, entry.size)
          except FileNotFoundError:
            return None
        if find() != entries:
          return None
        atomic.sync_tree(new)
        atomic.rename(new, path)
      finally:
        atomic.remove(new)
  return path


def local_file(location):
  """Like `folder` for one file."""
  if not isinstance(location, Url):
    return location
  entry = buckets.entry(location)
  if entry is None:
    raise InputError(f'{location} does not exist')
  key = hashlib.sha256(repr((str(location), entry)).encode()).hexdigest()
  path = _Settings.folder / 'folders' / key / location.name
  with _locked(path.parent):
    if not path.is_file():
      _make_room(path.parent.parent, entry.size)
      path.parent.mkdir(parents=True, exist_ok=True)
      buckets.download(location, path, entry.size)
  return path


def room_for(size):
  """Return whether the cache could hold `size` bytes, if it held nothing else."""
  held = sum(path.stat().st_size for path in _files(_Settings.folder / 'files'))
  free = shutil.disk_usage(_existing(_Settings.folder)).free + held - FREE
  return size <= min(free, _Settings.limit or free)


@contextlib.contextmanager
def _locked(path):
  path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
  with open(path.with_name(f'{path.name}.lock'), 'a', opener=atomic.no_follow) as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    yield


@contextlib.contextmanager
def _removed_on_error(path):
  try:
    yield
  except BaseException:
    atomic.remove(path)
    raise


def _has_size(path, size):
  return path.is_file() and path.stat().st_size == size


def _files(folder):
  return [path for path in folder.glob('*') if path.is_file() and path.suffix not in ('.lock', '.new')]


def _existing(folder):
  return next(path for path in (folder, *folder.parents) if path.exists())


def _make_room(folder, size):
  """Delete the files used least recently until there is room for `size` bytes; TooSmall if there is none."""
  free = lambda: shutil.disk_usage(_existing(_Settings.folder)).free - FREE
  oldest = sorted(_files(_Settings.folder / 'files'), key=lambda path: path.stat().st_mtime)
  held = sum(path.stat().st_size for path in oldest)
  while free() < size or (_Settings.limit and held + size > _Settings.limit):
    if not oldest:
      raise TooSmall(f'the cache {folder} has no room for {size:,} bytes: free some, or set '
                     'config.data.cache_dir or config.data.cache_gb')
    path = oldest.pop(0)
    held -= path.stat().st_size
    path.unlink()
