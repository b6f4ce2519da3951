"""Copies, on this machine, of what is in a bucket, shared by the runs that read it.

    CACHE/files/SHA256        a file by the digest of its content, such as a shard of a corpus
    CACHE/folders/KEY/NAME    a small file or folder; KEY: digest of the names, sizes and tags of its objects
    CACHE/*/NAME.lock         locked by a process that downloads or deletes NAME
    CACHE/folders/KEY.used    locked (shared) by each process that uses it
    CACHE/spool/, outgoing/   what is prepared for a bucket and not yet uploaded

A file by its digest is verified while it is downloaded. A folder has no digest: it is downloaded again if its
objects are others after the download.

If files and folders would grow beyond the limit, or beyond the free space, those are deleted that were used
least recently. What a process uses is locked, and is not deleted: that would free no space. Without `flock`
nothing is deleted.
"""

import contextlib
import hashlib
import os
import shutil
import sys
import threading
from pathlib import Path
from typing import NamedTuple

from gptjax import defaults, errors
from gptjax.errors import InputError
from gptjax.storage.files import atomic, buckets, locks, paths
from gptjax.storage.files.paths import Url

FREE = 1 << 30  # bytes of the disk that the cache leaves free
TRIES = 5       # downloads of a folder whose objects are replaced meanwhile


class _Settings:
  """Of this process; `configure` sets them."""
  folder = Path(paths.local(defaults.get_config().data.cache_dir))
  limit = 0.0


_reserved = {}      # SHA-256: bytes of the files that this process keeps in the cache
_verified = set()   # SHA-256 of the files that this process has read whole
_arriving = {}      # {path of what this process is downloading: bytes}
_used = {}          # {folder of the cache that this process uses: (its open file `.used`, bytes)}
_lock = threading.Lock()


def configure(folder, limit_gb):
  """Set the folder of the cache, and its limit in GB (0: the free space of the disk)."""
  _Settings.folder, _Settings.limit = Path(folder), limit_gb * 1e9


def root():
  """Return the Path of the folder of the cache, which may not exist."""
  return _Settings.folder


errors.cache_folder = root


class TooSmall(InputError):
  """The disk or the limit has not enough room for a file."""


def file(url, sha256, size, on_bytes=lambda chunk: None, *, verify=False):
  """Return the Path of a copy of an object, after downloading it unless it is there.

  Another process may delete the file before it is in use: open it at once and call `hold`, and call again if
  it is missing.

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
  with _locked(path) as locked:
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
    if locked:
      atomic.remove_leftovers(path.parent, path.name)
    check = digest_check(url, sha256, size)
    def on_chunk(chunk):
      check(chunk)
      on_bytes(chunk)
    try:
      with _room(path, size):
        buckets.download(url, path, size, on_chunk)
    except TooSmall:
      with _lock:
        _reserved.pop(sha256, None)
      raise
    _verified.add(sha256)
  return path


def hold(file):
  """Keep a file of the cache from being deleted while it, or a memory map of it, is open.

  Raises:
    FileNotFoundError: it was deleted after it was opened.
  """
  locks.lock(file, shared=True)
  if not os.fstat(file.fileno()).st_nlink:
    raise FileNotFoundError(file.name)


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
  def download(new, entries):
    for name, entry in entries.items():
      target = paths.below(new, name)
      target.parent.mkdir(parents=True, exist_ok=True)
      buckets.download(location / name, target, entry.size)
    atomic.sync_tree(new)
  return _copy(location, find, download)


def local_file(location):
  """Like `folder` for one file."""
  if not isinstance(location, Url):
    return location
  def find():
    entry = buckets.entry(location)
    return {'': entry} if entry else {}
  return _copy(location, find, lambda new, entries: buckets.download(location, new, entries[''].size))


def _copy(location, find, download):
  """Return the Path of a copy of what is at a Url.

  Args:
    location: Url.
    find: function that returns {name: buckets.Entry} of its objects.
    download: function of (Path, entries) that writes the copy there.
  """
  for _ in range(TRIES):
    entries = find()
    if not entries:
      raise InputError(f'{location} does not exist, or is empty')
    key = hashlib.sha256(repr((str(location), sorted(entries.items()))).encode()).hexdigest()
    path = _Settings.folder / 'folders' / key / location.name
    with _locked(path.parent) as locked:
      if path.exists() or _download(path, locked, entries, find, download):
        _use(path.parent)
        return path
  raise InputError(f'{location} was replaced while it was read, {TRIES} times: try again later')


def _download(path, locked, entries, find, download):
  """Whether the objects were still the same after they were downloaded to `path`."""
  path.parent.mkdir(parents=True, exist_ok=True)
  if locked:
    atomic.remove_leftovers(path.parent)
  new = atomic.new_name(path)
  try:
    with _room(path, sum(entry.size for entry in entries.values())):
      download(new, entries)
      if find() != entries:
        return False
      atomic.rename(new, path)
  except FileNotFoundError:  # an object
    return False
  except OSError:
    if locked or not path.exists():  # else another process has it by now
      raise
  finally:
    atomic.remove(new)
  return True


def _use(folder):
  """Keep a folder of the cache, which is locked, from being deleted while this process runs."""
  os.utime(folder)
  with _lock:
    if folder not in _used:
      file = open(folder.with_name(f'{folder.name}.used'), 'a', opener=atomic.no_follow)
      locks.lock(file, shared=True)
      _used[folder] = file, _size(folder)


def room_for(size):
  """Return whether the cache could hold `size` bytes beside the folders that this process uses."""
  free = _free() + sum(kept.size for kept in _kept())
  used = sum(n_bytes for folder, (_, n_bytes) in _used.items() if folder.is_relative_to(_Settings.folder))
  return size <= min(free, _Settings.limit or free) - used


@contextlib.contextmanager
def _locked(path):
  """Context manager of the lock of a file or folder; yields whether the file system has locks."""
  try:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = open(_lock_of(path), 'a', opener=atomic.no_follow)
  except OSError as error:
    raise InputError(f'the cache {_Settings.folder} is not writable ({error.strerror}): set '
                     'config.data.cache_dir to another folder') from None
  with lock:
    yield locks.lock(lock)


def _lock_of(path):
  return path.with_name(f'{path.name}.lock')


def _has_size(path, size):
  return path.is_file() and path.stat().st_size == size


def _digest(path, on_bytes):
  digest = hashlib.sha256()
  with open(path, 'rb') as opened:
    while chunk := opened.read(buckets.CHUNK):
      digest.update(chunk)
      on_bytes(chunk)
  return digest.hexdigest()


class _Kept(NamedTuple):
  """A file by its digest, or a folder by its key."""
  used: float  # time of the last use
  path: Path
  size: int


def _kept():
  """Return [_Kept] of all that is whole in the cache."""
  found = []
  for path in (*(_Settings.folder / 'files').glob('*'), *(_Settings.folder / 'folders').glob('*')):
    with contextlib.suppress(FileNotFoundError):  # another process has deleted it
      if path.suffix not in ('.lock', '.new', '.used'):
        found.append(_Kept(path.stat().st_mtime, path, _size(path)))
  return found


def _size(path):
  """Return the bytes of a file, or of all files below a folder."""
  if not path.is_dir():
    return path.stat().st_size
  return sum(file.lstat().st_size for file in path.rglob('*') if not file.is_dir())


def _free():
  """Return the bytes of the disk that the cache may still fill."""
  existing = next(path for path in (_Settings.folder, *_Settings.folder.parents) if path.exists())
  return shutil.disk_usage(existing).free - FREE


@contextlib.contextmanager
def _room(path, size, on_disk=False):
  """Context manager of the time in which `size` bytes arrive at `path`, after making room for them."""
  with _lock:
    _make_room(size, on_disk)
    _arriving[path] = size
  try:
    yield
  finally:
    with _lock:
      _arriving.pop(path, None)


def _make_room(size, on_disk):
  """Delete what was used least recently and is not in use, until there is room for `size` bytes.

  Args:
    size: bytes.
    on_disk: whether these are on the disk of the cache already, outside the files and folders.

  Raises:
    TooSmall: there is not enough to delete; then nothing is deleted.
  """
  _remove_leftovers()
  kept, needed = _kept(), size + sum(_arriving.values())
  missing = 0 if on_disk else needed - _free()
  if _Settings.limit:
    missing = max(missing, sum(one.size for one in kept) + needed - _Settings.limit)
  with contextlib.ExitStack() as unlock:
    deleted = []
    for one in sorted(kept):
      if missing > 0 and one.path.name not in _reserved and _lock_unused(one.path, unlock):
        deleted.append(one.path)
        missing -= one.size
    if missing > 0:
      raise TooSmall(f'the cache {_Settings.folder} has no room for {size:,} bytes beside what is in use '
                     f'(it leaves {FREE / 1e9:.1f} GB of the disk free): free some of the disk, or set '
                     'config.data.cache_dir or config.data.cache_gb')
    for path in deleted:
      atomic.remove(path)


def _lock_unused(path, unlock):
  """Lock a file or folder that no process uses, until `unlock` is closed; False if it cannot be locked."""
  use = (path.with_name(f'{path.name}.used'), 'a') if path.is_dir() else (path, 'r+b')
  with contextlib.suppress(OSError):  # BlockingIOError: it is in use
    return all(locks.lock(unlock.enter_context(open(name, mode, opener=atomic.no_follow)), wait=False)
               for name, mode in ((_lock_of(path), 'a'), use))
  return False


def _remove_leftovers():
  """Remove what killed processes have downloaded in part."""
  parts = {path: path.with_name(f'{match[1]}.lock') for path in (_Settings.folder / 'files').glob('*.new')
           if (match := atomic.LEFTOVER.fullmatch(path.name))}
  parts |= {path: _lock_of(path.parent) for path in (_Settings.folder / 'folders').glob('*/*.new')}
  for path, name in parts.items():
    with contextlib.suppress(OSError), open(name, 'a', opener=atomic.no_follow) as lock:
      if locks.lock(lock, wait=False):  # BlockingIOError: it is being downloaded
        atomic.remove(path)
