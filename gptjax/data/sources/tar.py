"""Documents from tar archives: a file in the archive is one document, or several with separators.

The archive is read as a stream, and nothing is extracted: its file names are only used in messages. Folders,
links and devices are skipped. A file in it may have at most MAX_DOCUMENT bytes, its headers MAX_HEADERS.
"""

import io
import tarfile

from gptjax.data.sources import decompression, file_access, file_signatures, files
from gptjax.errors import InputError
from gptjax.text.printable import printable

MAX_HEADERS = 1 << 20  # bytes of all headers between two files


def pieces(path, separator):
  """Yield the pieces of the documents of an archive, in order; see `files.Piece`.

  Args:
    path: path of the archive, plain or compressed.
    separator: text between documents in a file of the archive; '': each file is one document.
  """
  with file_access.open_bytes(path) as raw:
    source, location = _BoundedReader(raw), path
    try:
      open_archive = lambda: tarfile.open(fileobj=source, mode='r|', errors='backslashreplace')
      with _call_tarfile(open_archive) as archive:
        source.remaining = MAX_HEADERS
        while (member := _call_tarfile(archive.next)) is not None:
          archive.members = []  # else the list of all members would grow
          source.remaining = member.size + MAX_HEADERS
          if member.isreg():
            location = f'{path}:{printable(member.name)}'
            yield from _documents(archive.extractfile(member), member.size, location, separator)
        # Python's tarfile takes the end of a file for the end of the archive, wherever a header is cut.
        if source.n_read < archive.offset + tarfile.BLOCKSIZE:
          raise tarfile.ReadError('the archive has no end')
    except decompression.DamagedFile as error:
      yield files.Piece('', location, problem=error.args[0])
    except (tarfile.TarError, OSError, EOFError) as error:
      yield files.Piece('', location, problem=f'damaged or cut short: {error}')


def _call_tarfile(function):
  """Call a function of tarfile; convert the plain ValueError for some damaged headers to a ReadError."""
  try:
    return function()
  except InputError:
    raise
  except ValueError as error:
    raise tarfile.ReadError(str(error)) from None


def _documents(file, size, location, separator):
  if size > files.MAX_DOCUMENT:
    yield files.Piece('', location, problem=f'too long: a file of more than {files.MAX_DOCUMENT:,} bytes')
    return
  data = io.BufferedReader(io.BytesIO(file.read()))
  if separator:
    yield from files.separated_documents(data, location, separator.encode())
    return
  try:
    offset = files.skip_byte_order_mark(data)
  except decompression.DamagedFile as error:
    yield files.Piece('', location, problem=error.args[0])
    return
  text = data.read()
  if 0 in text:
    yield files.Piece('', location, problem=file_signatures.nul_byte_problem(offset + text.index(0)))
    return
  yield from files.decode_document(text, location, {})


class _BoundedReader(io.RawIOBase):
  """Reads at most `remaining` bytes, then raises DamagedFile: lengths in headers are untrusted."""

  def __init__(self, file):
    self._file, self.remaining, self.n_read = file, MAX_HEADERS, 0

  def readable(self):
    return True

  def readinto(self, buffer):
    n = self._file.readinto(buffer)
    self.remaining -= n
    self.n_read += n
    if self.remaining < 0:
      raise decompression.DamagedFile(f'damaged or cut short: headers of more than {MAX_HEADERS:,} bytes')
    return n
