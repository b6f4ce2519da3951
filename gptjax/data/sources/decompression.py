"""Decompresses files while they are read: .gz, .zst, .bz2 and .xz, in bounded memory."""

import bz2
import gzip
import io
import lzma
import zlib
from typing import NamedTuple

from gptjax.errors import InputError

DECOMPRESSED_CHUNK = 1 << 13  # bytes decompressed at a time
COMPRESSED_CHUNK = 1 << 16    # bytes read at a time
MAX_WINDOW = 1 << 27          # bytes of history that a compressed file may refer to; the limit of zstd
LONG_WINDOW_LOG = 31          # of `zstd --long=31`: 2 GiB of history
XZ_MEMORY = MAX_WINDOW + (1 << 21)  # the decoder of xz needs a little more than its window
PADDING = b'\0'               # may follow a member


class DamagedFile(Exception):
  """The content of the file does not have the expected format."""


class Format(NamedTuple):
  """A format of compressed files."""
  suffixes: tuple
  command: str    # decompresses a file
  reader: object  # function from the raw file to an object with `read1`


def _open_zstd(raw):
  import pyarrow
  return pyarrow.CompressedInputStream(raw, 'zstd')


def _open_long_zstd(raw):
  try:
    from compression import zstd  # Python 3.14
  except ModuleNotFoundError:
    try:
      from backports import zstd
    except ModuleNotFoundError:
      raise InputError("a .zst file that may be compressed with --long=31 needs backports.zstd: "
                       "pip install 'gptjax[webtext]'") from None
  options = {zstd.DecompressionParameter.window_log_max: LONG_WINDOW_LOG}
  return _Members(raw, lambda: zstd.ZstdDecompressor(options=options), zstd.ZstdError)


FORMATS = (
  Format(('.gz', '.tgz'), 'gunzip', lambda raw: gzip.GzipFile(fileobj=raw)),
  Format(('.zst', '.zstd', '.tzst'), 'zstd -d', _open_zstd),
  Format(('.bz2', '.tbz2', '.tbz'), 'bunzip2', lambda raw: _Members(raw, bz2.BZ2Decompressor)),
  Format(('.xz', '.txz'), 'unxz',
         lambda raw: _Members(raw, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, XZ_MEMORY))))
SUFFIXES = tuple(suffix for kind in FORMATS for suffix in kind.suffixes)


def format_of(path):
  """Return the Format of a file according to its name, or None if the file is not compressed."""
  return next((kind for kind in FORMATS if path.endswith(kind.suffixes)), None)


class Decompressed(io.RawIOBase):
  """The content of a compressed file, in small chunks, so that all content before a damaged part is returned.

  A file may have several members, one after the other. Reading raises DamagedFile if the compressed content
  is damaged, and InputError if it needs too much memory.
  """

  def __init__(self, kind, raw, path, long_window=False):
    """Wrap an open file.

    Args:
      kind: its Format.
      raw: the open file, closed with this one.
      path: its name, for messages.
      long_window: whether zstd may take 2 GiB of memory, for files of `zstd --long=31`.
    """
    reader = _open_long_zstd if long_window and kind.reader is _open_zstd else kind.reader
    self._source, self._raw, self._path, self._empty = reader(raw), raw, path, True

  def readable(self):
    return True

  def readinto(self, buffer):
    try:
      data = self._source.read1(min(len(buffer), DECOMPRESSED_CHUNK))
      if not data and self._empty and not self._raw.tell():
        raise EOFError('the file is empty')
    except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
      # Not damaged, so it must not be skipped.
      if 'requires too much memory' in str(error):
        raise InputError(f'{self._path} is compressed with a window of more than 128 MiB, which is '
                         'not supported: compress it again without --long and --ultra (zstd -d --long=31, '
                         'then zstd)') from None
      if 'Memory usage limit' in str(error):
        raise InputError(f'{self._path} is compressed with a dictionary of more than 128 MiB, which is '
                         'not supported: compress it again (unxz, then xz)') from None
      raise DamagedFile(f'damaged or cut short: {error}') from None
    self._empty = False
    buffer[:len(data)] = data
    return len(data)

  def close(self):
    close = getattr(self._source, 'close', None)
    if close:
      close()
    self._raw.close()
    super().close()


class _Members:
  """Reads members one after the other. Those of Python's bz2 and lzma ignore what follows the first one."""

  def __init__(self, raw, new, error=OSError):
    self._raw, self._new, self._error, self._member = raw, new, error, None

  def read1(self, size):
    """Return up to `size` bytes, b'' at the end."""
    while True:
      if self._member is None or self._member.eof:
        data = self._next_member()
        if not data:
          return b''
        self._member = self._new()
      elif not self._member.needs_input:
        data = b''
      else:
        data = self._raw.read(COMPRESSED_CHUNK)
        if not data:
          raise EOFError('the file ends within a compressed part')
      try:
        text = self._member.decompress(data, size)
      except self._error as error:
        raise OSError(error) from None
      if text:
        return text

  def _next_member(self):
    """Return the first bytes of the next member, b'' if there is none."""
    data = self._member.unused_data.lstrip(PADDING) if self._member else b''
    while not data:
      chunk = self._raw.read(COMPRESSED_CHUNK)
      if not chunk:
        return b''
      data = chunk.lstrip(PADDING) if self._member else chunk
    return data
