"""Documents from tar archives: a file in the archive is a document, or several between separators.

The archive is read as a stream, and nothing is unpacked: the names in it are for messages alone. Folders,
links and devices are passed over. No file and no header of it may have more than MAX_DOCUMENT bytes.
"""

import io
import tarfile

from gptjax.data.sources import file_signatures, files
from gptjax.errors import InputError
from gptjax.text.printable import printable

MAX_HEADERS = 1 << 20  # bytes that the headers between two files may have together


def pieces(path, separator):
  """The pieces of the documents of an archive, in its order; see `files.Piece`.

  Args:
    path: of the archive, which is plain, .gz or .zst.
    separator: between documents in a file of it; '': each is one document.
  """
  with files.open_bytes(path) as raw:
    source, place = _Bounded(raw), path
    try:
      with _read(lambda: tarfile.open(fileobj=source, mode='r|', errors='backslashreplace')) as archive:
        source.left = MAX_HEADERS
        while (member := _read(archive.next)) is not None:
          archive.members = []  # it would keep all of them
          source.left = member.size + MAX_HEADERS
          if member.isreg():
            place = f'{path}:{printable(member.name)}'
            yield from _documents(archive.extractfile(member), member.size, place, separator)
    except files.DamagedFile as error:
      yield files.Piece('', place, problem=error.args[0])
    except (tarfile.TarError, OSError, EOFError) as error:
      yield files.Piece('', place, problem=f'damaged or cut short: {error}')


def _read(step):
  """What a step of tarfile gives; it raises a plain ValueError for some damaged headers."""
  try:
    return step()
  except InputError:
    raise
  except ValueError as error:
    raise tarfile.ReadError(str(error)) from None


def _documents(file, size, place, separator):
  if size > files.MAX_DOCUMENT:
    yield files.Piece('', place, problem=f'too long: a file of more than {files.MAX_DOCUMENT:,} bytes')
    return
  data = io.BufferedReader(io.BytesIO(file.read()))
  if separator:
    yield from files.separated_documents(data, place, separator.encode())
    return
  try:
    offset = files.skip_byte_order_mark(data)
  except files.DamagedFile as error:
    yield files.Piece('', place, problem=error.args[0])
    return
  text = data.read()
  if 0 in text:
    yield files.Piece('', place, problem=file_signatures.nul_byte_problem(offset + text.index(0)))
    return
  yield from files.decode_document(text, place, {})


class _Bounded(io.RawIOBase):
  """Gives `left` bytes of a file, then files.Broken: what a header says of its length is not trusted."""

  def __init__(self, file):
    self._file, self.left = file, MAX_HEADERS

  def readable(self):
    return True

  def readinto(self, buffer):
    n = self._file.readinto(buffer)
    self.left -= n
    if self.left < 0:
      raise files.DamagedFile(f'damaged or cut short: headers of more than {MAX_HEADERS:,} bytes')
    return n
