"""Finds files and opens them: local or remote (fsspec), plain or compressed; errors have one line."""

import contextlib
import glob
import io
from pathlib import Path

from gptjax.data.sources import decompression, hub_revisions
from gptjax.errors import InputError
from gptjax.storage.files import buckets, paths
from gptjax.storage.files.paths import Url
from gptjax.text import text_checks
from gptjax.text.redacted import without_secrets

CHUNK = 1 << 20  # bytes read at a time


def find_files(pattern):
  """Return [(path, bytes)] of the files that match a glob pattern (also `**`), sorted by name; may be [].

  Paths on the Hugging Face Hub have the commit in them, see `hub_revisions`.

  Raises:
    ValueError: the file system cannot be accessed.
  """
  if '://' in pattern:
    with _read_errors(pattern):
      return _repeated(pattern, lambda: _find_remote(pattern))
  paths = [pattern] if Path(pattern).is_file() else sorted(glob.glob(pattern, recursive=True))
  for path in paths:  # the manifest, which is JSON, records the names
    text_checks.require_valid(path, 'the name of a file')
  return [(path, Path(path).stat().st_size) for path in paths if Path(path).is_file()]


def files_in(folder):
  """Return {name: (path, bytes)} of the files in a folder, here or at a URL."""
  return {path.rpartition('/')[2]: (path, size) for path, size in find_files(f'{glob.escape(folder)}/*')}


def is_folder(path):
  """Whether there is a folder of this name, here or at a URL.

  Raises:
    ValueError: the file system cannot be accessed.
  """
  if '://' not in path:
    return Path(path).is_dir()
  with _read_errors(path):
    return _repeated(path, lambda: _is_remote_folder(path))


def _is_remote_folder(url):
  import fsspec
  url = hub_revisions.pinned(url)
  system, path = fsspec.core.url_to_fs(url, **buckets.file_system_options(url))
  return not glob.has_magic(path) and system.isdir(path)


def _find_remote(pattern):
  import fsspec
  pattern = hub_revisions.pinned(pattern)
  system, path = fsspec.core.url_to_fs(pattern, **buckets.file_system_options(pattern))
  details = system.glob(path, detail=True) if glob.has_magic(path) else (
    {path: system.info(path)} if system.exists(path) else {})
  return [(system.unstrip_protocol(name), info['size'])
          for name, info in sorted(details.items()) if info['type'] == 'file']


def _repeated(url, attempt):
  """Return attempt(), repeated if the URL is in a bucket and the storage fails for a reason that passes."""
  bucket = _in_bucket(url)
  return buckets.repeated(bucket, attempt) if bucket else attempt()


def _in_bucket(url):
  """Return the Url of what is in a bucket, or None."""
  scheme, rest = paths.split_url(url)
  scheme = 'gs' if scheme == 'gcs' else scheme
  return Url(scheme, rest) if scheme in paths.BUCKETS else None


@contextlib.contextmanager
def _read_errors(path):
  """Convert any error of listing, opening or reading a file into a ValueError with a one-line message.

  The errors differ between the file systems of fsspec: missing packages, credentials, the network, a disk.
  """
  try:
    yield
  except InputError as error:  # of `buckets`
    raise type(error)(without_secrets(str(error), path)) from None
  except Exception as error:
    if isinstance(error, FileNotFoundError) and (bucket := _in_bucket(path)):  # its text is an internal path
      reason = f'it does not exist: it was removed, or {buckets.no_bucket(bucket)}'
    else:
      reason = getattr(error, 'strerror', None) or f'{type(error).__name__} {error}'
    message = f'{path} cannot be read: {" ".join(str(reason).split())}'
    # A traceback would show the cause, which can contain the URL.
    raise InputError(without_secrets(message, path)) from (None if '://' in path else error)


def open_bytes(path, long_window=False):
  """Return a buffered reader of the file's content, decompressed if its name says so.

  Args:
    path: path or URL.
    long_window: whether a .zst file may take 2 GiB of memory, see `decompression`.

  Raises:
    ValueError: the file cannot be opened; also raised by the reader if it cannot be read.
    DamagedFile: raised by the reader if the compressed content is damaged.
  """
  raw = _open_raw(path)
  if kind := decompression.format_of(path):
    return io.BufferedReader(decompression.Decompressed(kind, raw, path, long_window), CHUNK)
  return io.BufferedReader(raw, CHUNK)


def open_stored(path):
  """Return a buffered reader of the bytes of a file as they are stored; errors as for `open_bytes`."""
  return io.BufferedReader(_open_raw(path), CHUNK)


def _open_raw(path):
  with _read_errors(path):
    return _Raw(path, _Remote(path) if '://' in path else open(path, 'rb', buffering=0))


class _Raw(io.RawIOBase):
  """The raw file; its errors are distinguished from damaged content."""

  def __init__(self, path, file):
    self._path, self._file = path, file

  def readable(self):
    return True

  def seekable(self):
    return True

  def seek(self, offset, whence=0):
    return self._file.seek(offset, whence)

  def tell(self):
    return self._file.tell()

  def readinto(self, buffer):
    with _read_errors(self._path):
      return self._file.readinto(buffer)

  def close(self):
    self._file.close()
    super().close()


class _Remote:
  """A file at a URL, opened again at the same position when an attempt to read it is repeated."""

  def __init__(self, url):
    self._url, self._file, self._position = url, None, 0
    self._attempt(lambda file: None)

  def seek(self, offset, whence=0):
    return self._attempt(lambda file: file.seek(offset, whence))

  def tell(self):
    return self._position

  def readinto(self, buffer):
    return self._attempt(lambda file: file.readinto(buffer))

  def close(self):
    if self._file:
      self._file.close()

  def _attempt(self, work):
    return _repeated(self._url, lambda: self._once(work))

  def _once(self, work):
    try:
      if self._file is None:
        import fsspec
        self._file = fsspec.open(self._url, 'rb', **buckets.file_system_options(self._url)).open()
        if self._position:
          self._file.seek(self._position)
      result = work(self._file)
      self._position = self._file.tell()
      return result
    except Exception:
      file, self._file = self._file, None
      if file:
        with contextlib.suppress(Exception):
          file.close()
      raise
