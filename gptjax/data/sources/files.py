"""Files of documents: plain, .gz or .zst, local or remote; and documents from files of text.

At most one document of MAX_DOCUMENT bytes is in memory, whatever the source, and of a text file that is one
document not even that: it is read twice, once to see that it is sound and once in pieces.
"""

import codecs
import contextlib
import glob
import gzip
import hashlib
import io
import re
import zlib
from pathlib import Path
from typing import NamedTuple

from gptjax.data.sources import file_signatures
from gptjax.errors import InputError
from gptjax.text import text_checks
from gptjax.text.redacted import without_secrets

MAX_PIECE = 1 << 20           # characters: a longer document is encoded in pieces of at most this
MAX_DOCUMENT = 1 << 26    # bytes of a document, or of the line of JSON that it stands in
CHUNK = 1 << 20           # bytes read at a time
DECOMPRESSED_CHUNK = 1 << 13          # bytes decompressed at a time
COMPRESSED_SUFFIXES = '.gz', '.zst'  # what names of such files end in


class Piece(NamedTuple):
  """A document, or characters [start, start + len(text)) of one that is longer than PIECE."""
  text: str
  place: str                # file and line where the document begins, for messages
  digest: bytes = b''       # 16 bytes: of the text of the whole document
  start: int = 0
  length: int = 0           # characters of the whole document
  fields: dict = {}         # noqa: RUF012  # of the record, see `fields.origin`
  problem: str = ''         # why there is no text, `KIND` or `KIND: DETAILS`


class DamagedFile(Exception):
  """The file's bytes are not what its name says."""


def find_files(pattern):
  """[(path, bytes)] of files that match a glob pattern (`**` too), by name; maybe [].

  Raises:
    ValueError: what lies behind the pattern cannot be reached.
  """
  if '://' in pattern:
    with _reaching(pattern):
      import fsspec
      system, path = fsspec.core.url_to_fs(pattern)
      found = system.glob(path, detail=True) if glob.has_magic(path) else (
        {path: system.info(path)} if system.exists(path) else {})
      return [(system.unstrip_protocol(name), info['size'])
              for name, info in sorted(found.items()) if info['type'] == 'file']
  found = [pattern] if Path(pattern).is_file() else sorted(glob.glob(pattern, recursive=True))
  for path in found:  # names go into the manifest, which is JSON
    text_checks.require_valid(path, 'the name of a file')
  return [(path, Path(path).stat().st_size) for path in found if Path(path).is_file()]


@contextlib.contextmanager
def _reaching(path):
  """Makes a ValueError, in one line, of whatever keeps a file from being listed, opened or read.

  What that is differs from one file system of fsspec to another: packages that are not installed,
  credentials, the network, a disk.
  """
  try:
    yield
  except Exception as error:
    why = getattr(error, 'strerror', None) or f'{type(error).__name__} {error}'
    line = f'{path} cannot be read: {" ".join(str(why).split())}'
    # The cause, which a traceback would show, can quote the URL.
    raise InputError(without_secrets(line, path)) from (None if '://' in path else error)


def open_bytes(path):
  """A buffered reader of the file's content, decompressed if its name ends in .gz or .zst.

  Raises:
    ValueError: the file cannot be opened; later, by the reader, it cannot be read.
    Broken: later, by the reader: the compressed content is damaged.
  """
  with _reaching(path):
    if '://' in path:
      import fsspec
      raw = _Raw(path, fsspec.open(path, 'rb').open())
    else:
      raw = _Raw(path, open(path, 'rb', buffering=0))
  if path.endswith('.gz'):
    return io.BufferedReader(_Decompressed(gzip.GzipFile(fileobj=raw), raw, path), CHUNK)
  if path.endswith('.zst'):
    import pyarrow
    return io.BufferedReader(_Decompressed(pyarrow.CompressedInputStream(raw, 'zstd'), raw, path), CHUNK)
  return io.BufferedReader(raw, CHUNK)


class _Raw(io.RawIOBase):
  """A file as it lies there, whose failures cannot be taken for damage of its content."""

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
    with _reaching(self._path):
      return self._file.readinto(buffer)

  def close(self):
    self._file.close()
    super().close()


class _Decompressed(io.RawIOBase):
  """Gives a decompressor's output a little at a time, so that all before its damage comes out."""

  def __init__(self, source, raw, path):
    self._source, self._raw, self._path = source, raw, path

  def readable(self):
    return True

  def readinto(self, buffer):
    try:
      data = self._source.read1(min(len(buffer), DECOMPRESSED_CHUNK))
    except (EOFError, OSError, zlib.error) as error:
      if 'requires too much memory' in str(error):  # sound, so that it must not be left out as damaged
        raise InputError(f'{self._path} is compressed with a window of more than 128 MiB, which cannot be '
                         'read here: write it again without --long and --ultra (zstd -d --long=31, then zstd)'
                         ) from None
      raise DamagedFile(f'damaged or cut short: {error}') from None
    buffer[:len(data)] = data
    return len(data)

  def close(self):
    self._source.close()
    self._raw.close()
    super().close()


def text_digest(text):
  """16 bytes that name a document: equal texts, and in practice no others, have equal ones."""
  return bytes_digest(text.encode())


def bytes_digest(data):
  """`text_digest` of a text in UTF-8."""
  return hashlib.blake2b(data, digest_size=16).digest()


def document_pieces(text, place, fields):
  """The pieces of a document whose text is in memory; a problem if it is empty or not Unicode."""
  if not text or text.isspace():
    yield Piece('', place, problem='empty')
    return
  try:
    data = text.encode()
  except UnicodeEncodeError as error:
    half = error.object[error.start]
    yield Piece('', place, problem=f'not Unicode: half of a surrogate pair {half!a}')
    return
  if len(data) > MAX_DOCUMENT:
    yield Piece('', place, problem=too_long_problem())
    return
  digest = bytes_digest(data)
  del data
  if len(text) <= MAX_PIECE:
    yield Piece(text, place, digest, 0, len(text), fields)
    return
  start = 0
  while start < len(text):
    stop = start + cut_position(text[start:start + MAX_PIECE + 1])
    yield Piece(text[start:stop], place, digest, start, len(text), fields)
    start = stop


# Between a letter or digit and a mark that GPT-2's pre-split never joins to it.
_BEFORE_MARK = re.compile(r'[^\W_](?=[,.;:!?\u3001\u3002\uff0c\uff1f])')


def cut_position(text, most=None):
  """Where to cut a long document so that its pieces give the tokens of the whole.

  Args:
    text: the rest of the document; what fits into a piece and at least one character more.
    most: characters of a piece; None: PIECE.

  Returns:
    All of it if it fits into a piece. Else the last position up to `most` that has a line break
    after it and no white space before it; or else a space; or else a punctuation mark after a
    letter. No token of GPT-2 spans any of these. Text with none of the three in half of a piece
    is cut anywhere.
  """
  most = MAX_PIECE if most is None else most
  if len(text) <= most:
    return len(text)
  low = most // 2
  for seam in '\n ':
    at = text.rfind(seam, low, most + 1)
    while at > 0 and text[at - 1].isspace():
      at = text.rfind(seam, low, at)
    if at > 0:
      return at
  marks = [match.end() for match in _BEFORE_MARK.finditer(text, low, most)]
  return marks[-1] if marks else most


def text_pieces(path, separator):
  """The pieces of a text file: of one document, or of those between separators."""
  if separator:
    return _separated_file(path, separator.encode())
  return _one_document(path)


def _separated_file(path, separator):
  with open_bytes(path) as file:
    yield from separated_documents(file, path, separator)


def _one_document(path):
  with open_bytes(path) as file:
    try:
      digest, length = _survey(file)
    except DamagedFile as error:
      yield Piece('', f'{path}:{error.args[1]}', problem=error.args[0])
      return
  if not length:
    yield Piece('', f'{path}:1', problem='empty')
    return
  decoder = codecs.getincrementaldecoder('utf-8')()
  with open_bytes(path) as file:
    skip_byte_order_mark(file)
    texts = map(decoder.decode, iter(lambda: file.read(CHUNK), b''))
    yield from cut_into_pieces(texts, f'{path}:1', digest, length)


def cut_into_pieces(texts, place, digest, length):
  """The pieces of a document that comes as texts one after the other, of `length` characters together."""
  texts, rest, start = iter(texts), '', 0
  while start < length:
    while len(rest) <= MAX_PIECE and (text := next(texts, None)) is not None:
      rest += text
    stop = cut_position(rest)
    yield Piece(rest[:stop], place, digest, start, length, {})
    rest, start = rest[stop:], start + stop


def skip_byte_order_mark(file):
  """Passes over a byte-order mark, and gives its length; Broken if the file does not begin like text.

  Args:
    file: a buffered reader at its beginning.
  """
  head = file.peek(file_signatures.HEAD_BYTES)
  if why := file_signatures.not_text_problem(head[:file_signatures.HEAD_BYTES]):
    raise DamagedFile(why)
  mark = file_signatures.BYTE_ORDER_MARK
  return len(file.read(len(mark))) if head.startswith(mark) else 0


def _survey(file):
  """(digest, characters) of a whole text, 0 characters if it is blank; or Broken(why, line)."""
  seen = hashlib.blake2b(digest_size=16)
  decoder, lines, length, blank = codecs.getincrementaldecoder('utf-8')(), 1, 0, True
  try:
    offset = skip_byte_order_mark(file)
    while chunk := file.read(CHUNK):
      text = decoder.decode(chunk)
      if (at := chunk.find(0)) >= 0:
        lines += chunk[:at].count(b'\n')
        raise DamagedFile(file_signatures.nul_byte_problem(offset + at))
      seen.update(chunk)
      offset += len(chunk)
      length += len(text)
      lines += chunk.count(b'\n')
      blank = blank and (not text or text.isspace())
    decoder.decode(b'', final=True)
  except UnicodeDecodeError as error:
    lines += error.object[:error.start].count(b'\n')
    raise DamagedFile(not_utf8_problem(error), lines) from None
  except DamagedFile as error:
    raise DamagedFile(*error.args, lines) from None
  return seen.digest(), 0 if blank else length


def too_long_problem():
  return f'too long: a document of more than {MAX_DOCUMENT:,} bytes'


def not_utf8_problem(error):
  return f'not UTF-8: byte 0x{error.object[error.start]:02x} ({error.reason})'


def separated_documents(file, path, separator):
  """Documents between separators (bytes); blank text before the first and after the last is none."""
  line, index = 1, 0
  split = _split(file, separator)
  while True:
    try:
      part, last = next(split)
    except StopIteration:
      return
    except DamagedFile as error:
      yield Piece('', f'{path}:{line}', problem=error.args[0])
      return
    if part.strip() or not (last or index == 0):
      # The document's own first line, not the line break after the separator.
      at = f'{path}:{line + part[:len(part) - len(part.lstrip())].count(10)}'
      yield from decode_document(part, at, {})
    line += part.count(b'\n') + separator.count(b'\n')
    index += 1


def _split(file, separator):
  """(bytes between separators, whether these are the last)."""
  offset, held, size, tail = skip_byte_order_mark(file), [], 0, b''  # a separator may begin in the tail
  while chunk := file.read(CHUNK):
    if (at := chunk.find(0)) >= 0:
      raise DamagedFile(file_signatures.nul_byte_problem(offset + at))
    offset += len(chunk)
    first, *others = (tail + chunk).split(separator)
    if others:
      yield b''.join([*held, first]), False
      *whole, first = others
      for part in whole:
        yield part, False
      held, size = [], 0
    cut_at = max(0, len(first) - len(separator) + 1)
    held.append(first[:cut_at])
    size, tail = size + cut_at, first[cut_at:]
    if size + len(tail) > MAX_DOCUMENT:
      raise DamagedFile(f'too long: no separator {separator.decode()!r} in {MAX_DOCUMENT:,} bytes')
  yield b''.join([*held, tail]), True


def decode_document(data, place, fields):
  """The pieces of a document that is UTF-8 in memory."""
  if len(data) > MAX_DOCUMENT:
    yield Piece('', place, problem=too_long_problem())
    return
  try:
    text = data.decode()
  except UnicodeDecodeError as error:
    yield Piece('', place, problem=not_utf8_problem(error))
    return
  yield from document_pieces(text, place, fields)
