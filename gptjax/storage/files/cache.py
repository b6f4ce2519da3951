"""Copies, on this machine, of what is in a bucket: verified while they are downloaded, and shared by runs.

    CACHE/files/SHA256        a file by the digest of its content, such as a shard of a corpus
    CACHE/folders/SHA256/     a small folder by the names, sizes and tags of its objects
    CACHE/*/NAME.lock         locked by a process that downloads NAME
    CACHE/spool/              what is prepared for a bucket and not yet uploaded

If the cache would grow beyond its limit, or beyond the free space, the files are deleted that were used least
recently. A file in use keeps its content: deleting it on Linux and macOS removes its name only.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import sys
import threading
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


_reserved = {}      # SHA-256: bytes of the files that this process keeps in the cache
_verified = set()   # SHA-256 of the files that this process has read whole
_lock = threading.Lock()


def configure(folder, limit_gb):
  """Set the folder of the cache, and its limit in GB (0: the free space of the disk)."""
  _Settings.folder, _Settings.limit = Path(folder), limit_gb * 1e9


def root():
  """Return the Path of the folder of the cache, which may not exist."""
  return _Settings.folder


class TooSmall(InputError):
  """The disk or the limit has not enough room for a file."""


def file(url, sha256, size, on_bytes=lambda chunk: None, *, verify=False):
  """Return the Path of a copy of an object, after downloading it unless it is there.

  Another process may delete the file (see above): open it at once, and call again if it is missing.

  Args:
    url: of the object.
    sha256: digest of its content, hex.
    size: its bytes.
    on_bytes: called with each chunk that is downloaded or verified; what it raises ends the download.
    verify: if a copy is there, compare its digest, once per process; a damaged one is downloaded again.

  Raises:
    TooSmall: no room for it.
    InputError: the object is missing, has another size, or another digest.
  """
  path = _Settings.folder / 'files' / sha256
  with _locked(path):
    if _has_size(path, size):
      if not verify or sha256 in _verified or _digest(path, on_bytes) == sha256:
        _verified.update([sha256] if verify else [])
        os.utime(path)
        return path
      print(f'{path} is damaged: downloading {url} again', file=sys.stderr)
      atomic.remove(path)
    found = buckets.entry(url)
    if found is None:
      raise InputError(f'{url} is missing: copy it again, or prepare the corpus again')
    if found.size != size:
      raise InputError(wrong_size(url, found.size, size))
    atomic.remove_leftovers(path.parent, path.name)
    _make_room(path.parent, size)
    check = digest_check(url, sha256, size)
    def on_chunk(chunk):
      check(chunk)
      on_bytes(chunk)
    buckets.download(url, path, size, on_chunk)
    _verified.add(sha256)
  return path


def held(sha256, size):
  """Return the Path of a file that is in the cache, or None."""
  path = _Settings.folder / 'files' / sha256
  return path if _has_size(path, size) else None


def wrong_size(url, actual, size):
  """Return the message about an object of another size than its manifest says."""
  return (f'{url} has {actual:,} bytes, not {size:,} as in its manifest: copy it again, or prepare the '
          'corpus again')


def digest_check(url, sha256, size):
  """Return a function to be called with each chunk of an object; at the end InputError for another digest."""
  digest, seen = hashlib.sha256(), 0
  def check(chunk):
    nonlocal seen
    digest.update(chunk)
    seen += len(chunk)
    if seen >= size and digest.hexdigest() != sha256:
      raise InputError(f'{url} is damaged: its SHA-256 is {digest.hexdigest()[:12]}, not {sha256[:12]} as in '
                       'its manifest; copy it again, or prepare the corpus again')
  return check


def reserve(sha256, size):
  """Return whether the cache has room for a file beside all that this process has reserved before.

  What is reserved is not deleted by this process to make room for other files.
  """
  with _lock:
    if sha256 not in _reserved:
      if not room_for(sum(_reserved.values()) + size):
        return False
      _reserved[sha256] = size
  return True


def adopt(path, sha256):
  """Move a file of this content into the cache, if there is room; else remove it."""
  target = _Settings.folder / 'files' / sha256
  with _locked(target):
    if reserve(sha256, path.stat().st_size) and not target.exists():
      with contextlib.suppress(OSError):  # on another file system
        os.replace(path, target)
  atomic.remove(path)


def spool(location):
  """Return a folder of this machine, which need not exist, for what is prepared for a Url."""
  return _Settings.folder / 'spool' / hashlib.sha256(str(location).encode()).hexdigest()[:32] / location.name


def folder(location, wanted=lambda name, entry: True):
  """Return a folder of this machine: a Path unchanged, or a copy of the objects below a Url.

  Args:
    location: Path or Url.
    wanted: function of an object's name below the Url and its buckets.Entry: whether to copy it.

  Raises:
    InputError: there are no objects, no room for them, or they are replaced again and again meanwhile.
  """
  if not isinstance(location, Url):
    return location
  find = lambda: {name: entry for name, entry in buckets.find(location).items() if wanted(name, entry)}
  for _ in range(TRIES):
    entries = find()
    if not entries:
      raise InputError(f'{location} does not exist, or is empty')
    path = _copy(location, entries, find)
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
  free = _free() + sum(facts.st_size for _, facts in _files())
  return size <= min(free, _Settings.limit or free)


@contextlib.contextmanager
def _locked(path):
  try:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = open(path.with_name(f'{path.name}.lock'), 'a', opener=atomic.no_follow)
  except OSError as error:
    raise InputError(f'the cache {_Settings.folder} is not writable ({error.strerror}): set '
                     'config.data.cache_dir to another folder') from None
  with lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    yield


def _has_size(path, size):
  return path.is_file() and path.stat().st_size == size


def _digest(path, on_bytes):
  digest = hashlib.sha256()
  with open(path, 'rb') as opened:
    while chunk := opened.read(buckets.CHUNK):
      digest.update(chunk)
      on_bytes(chunk)
  return digest.hexdigest()


def _files():
  """Return [(Path, stat result)] of the whole files by digest."""
  found = []
  for path in (_Settings.folder / 'files').glob('*'):
    with contextlib.suppress(FileNotFoundError):  # another process has deleted it
      if path.suffix not in ('.lock', '.new'):
        found.append((path, path.stat()))
  return found


def _free():
  """Return the bytes of the disk that the cache may still fill."""
  existing = next(path for path in (_Settings.folder, *_Settings.folder.parents) if path.exists())
  return shutil.disk_usage(existing).free - FREE


def _make_room(folder, size):
  """Delete the files used least recently until there is room for `size` bytes; TooSmall if there is none."""
  files = _files()
  held_bytes = sum(facts.st_size for _, facts in files)
  oldest = sorted((facts.st_mtime, path, facts.st_size) for path, facts in files
                  if path.name not in _reserved)
  while _free() < size or (_Settings.limit and held_bytes + size > _Settings.limit):
    if not oldest:
      raise TooSmall(f'the cache {folder} has no room for {size:,} bytes: free some, or set '
                     'config.data.cache_dir or config.data.cache_gb')
    _, path, freed = oldest.pop(0)
    held_bytes -= freed
    path.unlink(missing_ok=True)
