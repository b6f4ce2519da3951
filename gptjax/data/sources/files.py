"""Opens files of documents (plain, .gz or .zst, local or remote) and reads documents from text files.

At most one document of MAX_DOCUMENT bytes is in memory, whatever the source. A text file that is one
document needs less: it is read twice, once to validate it and once in pieces.
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
from gptjax.storage.files import buckets
from gptjax.text import text_checks
from gptjax.text.redacted import without_secrets

MAX_PIECE = 1 << 20       # characters: longer documents are encoded in pieces of at most this size
MAX_DOCUMENT = 1 << 26    # bytes of a document, or of its line of JSON
CHUNK = 1 << 20           # bytes read at a time
DECOMPRESSED_CHUNK = 1 << 13          # bytes decompressed at a time
COMPRESSED_SUFFIXES = '.gz', '.zst'  # suffixes of compressed files


class Piece(NamedTuple):
  """A document, or characters [start, start + len(text)) of one that is longer than PIECE."""
  text: str
  place: str                # file and line at which the document starts, for messages
  digest: bytes = b''       # 16 bytes, of the text of the whole document
  start: int = 0
  length: int = 0           # characters of the whole document
  fields: dict = {}         # noqa: RUF012  # of the record, see `fields.origin_fields`
  problem: str = ''         # why the document is unusable, `KIND` or `KIND: DETAILS`


class DamagedFile(Exception):
  """The content of the file does not have the expected format."""


def find_files(pattern):
  """Return [(path, bytes)] of the files that match a glob pattern (also `**`), sorted by name; may be [].

  Raises:
    ValueError: the file system cannot be accessed.
  """
  if '://' in pattern:
    with _read_errors(pattern):
      import fsspec
      system, path = fsspec.core.url_to_fs(pattern, **buckets.file_system_options(pattern))
      details = system.glob(path, detail=True) if glob.has_magic(path) else (
        {path: system.info(path)} if system.exists(path) else {})
      return [(system.unstrip_protocol(name), info['size'])
              for name, info in sorted(details.items()) if info['type'] == 'file']
  paths = [pattern] if Path(pattern).is_file() else sorted(glob.glob(pattern, recursive=True))
  for path in paths:  # the manifest, which is JSON, records the names
    text_checks.require_valid(path, 'the name of a file')
  return [(path, Path(path).stat().st_size) for path in paths if Path(path).is_file()]


@contextlib.contextmanager
def _read_errors(path):
  """Convert any error of listing, opening or reading a file into a ValueError with a one-line message.

  The errors differ between the file systems of fsspec: missing packages, credentials, the network, a disk.
  """
  try:
    yield
  except Exception as error:
    reason = getattr(error, 'strerror', None) or f'{type(error).__name__} {error}'
    message = f'{path} cannot be read: {" ".join(str(reason).split())}'
    # A traceback would show the cause, which can contain the URL.
    raise InputError(without_secrets(message, path)) from (None if '://' in path else error)


def open_bytes(path):
  """Return a buffered reader of the file's content, decompressed if its name ends in .gz or .zst.

  Raises:
    ValueError: the file cannot be opened; also raised by the reader if it cannot be read.
    DamagedFile: raised by the reader if the compressed content is damaged.
  """
  with _read_errors(path):
    if '://' in path:
      import fsspec
      raw = _Raw(path, fsspec.open(path, 'rb', **buckets.file_system_options(path)).open())
    else:
      raw = _Raw(path, open(path, 'rb', buffering=0))
  if path.endswith('.gz'):
    return io.BufferedReader(_Decompressed(gzip.GzipFile(fileobj=raw), raw, path), CHUNK)
  if path.endswith('.zst'):
    import pyarrow
    return io.BufferedReader(_Decompressed(pyarrow.CompressedInputStream(raw, 'zstd'), raw, path), CHUNK)
  return io.BufferedReader(raw, CHUNK)


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


class _Decompressed(io.RawIOBase):
  """Decompresses in small chunks, so that all content before a damaged part is returned."""

  def __init__(self, source, raw, path):
    self._source, self._raw, self._path = source, raw, path

  def readable(self):
    return True

  def readinto(self, buffer):
    try:
      data = self._source.read1(min(len(buffer), DECOMPRESSED_CHUNK))
    except (EOFError, OSError, zlib.error) as error:
      if 'requires too much memory' in str(error):  # not damaged, so it must not be skipped
        raise InputError(f'{self._path} is compressed with a window of more than 128 MiB, which is '
                         'not supported: compress it again without --long and --ultra (zstd -d --long=31, '
                         'then zstd)') from None
      raise DamagedFile(f'damaged or cut short: {error}') from None
    buffer[:len(data)] = data
    return len(data)

  def close(self):
    self._source.close()
    self._raw.close()
    super().close()


def text_digest(text):
  """Return 16 bytes that identify a document: in practice only equal texts have equal digests."""
  return bytes_digest(text.encode())


def bytes_digest(data):
  """Return the `text_digest` of UTF-8 data."""
  return hashlib.blake2b(data, digest_size=16).digest()


def document_pieces(text, place, fields):
  """Yield the pieces of a document in memory, or a piece with a problem if it is empty or not Unicode."""
  if not text or text.isspace():
    yield Piece('', place, problem='empty')
    return
  try:
    data = text.encode()
  except UnicodeEncodeError as error:
    surrogate = error.object[error.start]
    yield Piece('', place, problem=f'not Unicode: unpaired surrogate {surrogate!a}')
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


# After a letter or digit that precedes punctuation: GPT-2's pre-tokenization always splits there.
_BEFORE_MARK = re.compile(r'[^\W_](?=[,.;:!?\u3001\u3002\uff0c\uff1f])')


def cut_position(text, limit=None):
  """Return the position at which to cut a long document so that its pieces have the tokens of the whole.

  Args:
    text: the rest of the document: at least one character more than a piece, unless the document ends.
    limit: characters of a piece; None: MAX_PIECE.

  Returns:
    The length of the text if it fits into a piece. Otherwise the last position up to `limit` that is followed
    by a line break and not preceded by white space; or else by a space; or else by punctuation and preceded
    by a letter. No token of GPT-2 spans any of these. If the second half of a piece has none of them, the
    position is `limit`.
  """
  limit = MAX_PIECE if limit is None else limit
  if len(text) <= limit:
    return len(text)
  low = limit // 2
  for separator in '\n ':
    at = text.rfind(separator, low, limit + 1)
    while at > 0 and text[at - 1].isspace():
      at = text.rfind(separator, low, at)
    if at > 0:
      return at
  marks = [match.end() for match in _BEFORE_MARK.finditer(text, low, limit)]
  return marks[-1] if marks else limit


def text_pieces(path, separator):
  """Yield the pieces of a text file: of one document, or of the documents between separators."""
  if separator:
    return _separated_file(path, separator.encode())
  return _one_document(path)


def _separated_file(path, separator):
  with open_bytes(path) as file:
    yield from separated_documents(file, path, separator)


def _one_document(path):
  with open_bytes(path) as file:
    try:
      digest, length = _validate(file)
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
  """Yield the pieces of a document given as an iterator of texts with `length` characters in total."""
  texts, rest, start = iter(texts), '', 0
  while start < length:
    while len(rest) <= MAX_PIECE and (text := next(texts, None)) is not None:
      rest += text
    stop = cut_position(rest)
    yield Piece(rest[:stop], place, digest, start, length, {})
    rest, start = rest[stop:], start + stop


def skip_byte_order_mark(file):
  """Skip a byte-order mark and return its length; DamagedFile if the file does not start like text.

  Args:
    file: a buffered reader at the start of the file.
  """
  head = file.peek(file_signatures.HEAD_BYTES)
  if why := file_signatures.not_text_problem(head[:file_signatures.HEAD_BYTES]):
    raise DamagedFile(why)
  mark = file_signatures.BYTE_ORDER_MARK
  return len(file.read(len(mark))) if head.startswith(mark) else 0


def _validate(file):
  """Return (digest, characters) of a text, 0 characters if it is blank; raise DamagedFile(reason, line)."""
  digest = hashlib.blake2b(digest_size=16)
  decoder, lines, length, blank = codecs.getincrementaldecoder('utf-8')(), 1, 0, True
  try:
    offset = skip_byte_order_mark(file)
    while chunk := file.read(CHUNK):
      text = decoder.decode(chunk)
      if (at := chunk.find(0)) >= 0:
        lines += chunk[:at].count(b'\n')
        raise DamagedFile(file_signatures.nul_byte_problem(offset + at))
      digest.update(chunk)
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
  return digest.digest(), 0 if blank else length


def too_long_problem():
  return f'too long: a document of more than {MAX_DOCUMENT:,} bytes'


def not_utf8_problem(error):
  return f'not UTF-8: byte 0x{error.object[error.start]:02x} ({error.reason})'


def separated_documents(file, path, separator):
  """Yield the documents between separators (bytes); a blank first or last part is skipped."""
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
      # The first line of the document, not the line break after the separator.
      at = f'{path}:{line + part[:len(part) - len(part.lstrip())].count(10)}'
      yield from decode_document(part, at, {})
    line += part.count(b'\n') + separator.count(b'\n')
    index += 1


def _split(file, separator):
  """Yield (bytes between separators, whether they are the last)."""
  offset, held, size = skip_byte_order_mark(file), [], 0
  tail = b''  # may contain the start of a separator
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
  """Yield the pieces of a document of UTF-8 bytes in memory."""
  if len(data) > MAX_DOCUMENT:
    yield Piece('', place, problem=too_long_problem())
    return
  try:
    text = data.decode()
  except UnicodeDecodeError as error:
    yield Piece('', place, problem=not_utf8_problem(error))
    return
  yield from document_pieces(text, place, fields)
