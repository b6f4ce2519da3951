"""Documents from files of text, JSON lines and Parquet: plain, .gz or .zst, local or remote.

At most one document of MAX_DOCUMENT bytes is in memory, and of a text file that is one document not
even that: it is read twice, once to see that it is sound and once in pieces.
"""

import codecs
import contextlib
import glob
import gzip
import hashlib
import io
import json
import re
import zlib
from pathlib import Path
from typing import NamedTuple

from gptjax import text_checks
from gptjax.errors import InputError

PIECE = 1 << 20           # characters: a longer document is encoded in pieces of at most this
MAX_DOCUMENT = 1 << 26    # bytes of a line of JSON, or between two separators
CHUNK = 1 << 20           # bytes read at a time
LITTLE = 1 << 13          # bytes decompressed at a time
COMPRESSED = '.gz', '.zst'  # what names of such files end in
FIELDS = ('url', 'domain', 'title')  # of a record, beside its text: what the cleaning looks at


class Piece(NamedTuple):
  """A document, or characters [start, start + len(text)) of one that is longer than PIECE."""
  text: str
  place: str                # file and line where the document begins, for messages
  digest: bytes = b''       # 16 bytes: of the text of the whole document
  start: int = 0
  length: int = 0           # characters of the whole document
  fields: dict = {}         # noqa: RUF012  # those of FIELDS that the record has
  problem: str = ''         # why there is no text, `KIND` or `KIND: DETAILS`


class _Broken(Exception):
  """The file's bytes are not what its name says."""


def find(pattern):
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
    text_checks.require_sound(path, 'the name of a file')
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
    raise InputError(f'{path} cannot be read: {" ".join(str(why).split())}') from error


def open_bytes(path):
  """A buffered reader of the file's content, decompressed if its name ends in .gz or .zst.

  Raises:
    ValueError: the file cannot be opened; later, by the reader, it cannot be read.
    _Broken: later, by the reader: the compressed content is damaged.
  """
  with _reaching(path):
    if '://' in path:
      import fsspec
      raw = _Raw(path, fsspec.open(path, 'rb').open())
    else:
      raw = _Raw(path, open(path, 'rb', buffering=0))
  if path.endswith('.gz'):
    return io.BufferedReader(_Decompressed(gzip.GzipFile(fileobj=raw), raw), CHUNK)
  if path.endswith('.zst'):
    import pyarrow
    return io.BufferedReader(_Decompressed(pyarrow.CompressedInputStream(raw, 'zstd'), raw), CHUNK)
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

  def __init__(self, source, raw):
    self._source, self._raw = source, raw

  def readable(self):
    return True

  def readinto(self, buffer):
    try:
      data = self._source.read1(min(len(buffer), LITTLE))
    except (EOFError, OSError, zlib.error) as error:
      raise _Broken(f'damaged or cut short: {error}') from None
    buffer[:len(data)] = data
    return len(data)

  def close(self):
    self._source.close()
    self._raw.close()
    super().close()


def text_digest(text):
  """16 bytes that name a document: equal texts, and in practice no others, have equal ones."""
  return hashlib.blake2b(text.encode(), digest_size=16).digest()


def document(text, place, fields):
  """The pieces of a document whose text is in memory; a problem if it is empty or not Unicode."""
  if not text or text.isspace():
    yield Piece('', place, problem='empty')
    return
  try:
    digest = text_digest(text)
  except UnicodeEncodeError as error:
    half = error.object[error.start]
    yield Piece('', place, problem=f'not Unicode: half of a surrogate pair {half!a}')
    return
  if len(text) <= PIECE:
    yield Piece(text, place, digest, 0, len(text), fields)
    return
  start = 0
  while start < len(text):
    stop = start + cut(text[start:start + PIECE + 1])
    yield Piece(text[start:stop], place, digest, start, len(text), fields)
    start = stop


# Between a letter or digit and a mark that GPT-2's pre-split never joins to it.
_BEFORE_MARK = re.compile(r'[^\W_](?=[,.;:!?\u3001\u3002\uff0c\uff1f])')


def cut(text):
  """Where to cut a long document so that its pieces give the tokens of the whole.

  Args:
    text: the rest of the document; what fits into a piece and at least one character more.

  Returns:
    All of it if it fits into a piece. Else the last position up to PIECE that has a line break
    after it and no white space before it; or else a space; or else a punctuation mark after a
    letter. No token of GPT-2 spans any of these. Text with none of the three in half a million
    characters is cut anywhere.
  """
  if len(text) <= PIECE:
    return len(text)
  low = PIECE // 2
  for seam in '\n ':
    at = text.rfind(seam, low, PIECE + 1)
    while at > 0 and text[at - 1].isspace():
      at = text.rfind(seam, low, at)
    if at > 0:
      return at
  marks = [match.end() for match in _BEFORE_MARK.finditer(text, low, PIECE)]
  return marks[-1] if marks else PIECE


def text_pieces(path, separator):
  """The pieces of a text file: of one document, or of those between separators."""
  if separator:
    return _separated(path, separator.encode())
  return _one_document(path)


def _one_document(path):
  with open_bytes(path) as file:
    try:
      digest, length = _survey(file)
    except _Broken as error:
      yield Piece('', f'{path}:{error.args[1]}', problem=error.args[0])
      return
  if not length:
    yield Piece('', f'{path}:1', problem='empty')
    return
  decoder = codecs.getincrementaldecoder('utf-8')()
  with open_bytes(path) as file:
    yield from cut_up(map(decoder.decode, iter(lambda: file.read(CHUNK), b'')), f'{path}:1', digest, length)


def cut_up(texts, place, digest, length):
  """The pieces of a document that comes as texts one after the other, of `length` characters together."""
  texts, rest, start = iter(texts), '', 0
  while start < length:
    while len(rest) <= PIECE and (text := next(texts, None)) is not None:
      rest += text
    stop = cut(rest)
    yield Piece(rest[:stop], place, digest, start, length, {})
    rest, start = rest[stop:], start + stop


def _survey(file):
  """(digest, characters) of a whole text, 0 characters if it is blank; or _Broken(why, line)."""
  seen = hashlib.blake2b(digest_size=16)
  decoder, lines, length, blank = codecs.getincrementaldecoder('utf-8')(), 1, 0, True
  try:
    while chunk := file.read(CHUNK):
      text = decoder.decode(chunk)
      seen.update(chunk)
      length += len(text)
      lines += chunk.count(b'\n')
      blank = blank and (not text or text.isspace())
    decoder.decode(b'', final=True)
  except UnicodeDecodeError as error:
    lines += error.object[:error.start].count(b'\n')
    raise _Broken(_not_utf8(error), lines) from None
  except _Broken as error:
    raise _Broken(*error.args, lines) from None
  return seen.digest(), 0 if blank else length


def _not_utf8(error):
  return f'not UTF-8: byte 0x{error.object[error.start]:02x} ({error.reason})'


def _separated(path, separator):
  """Documents between separators; blank text before the first and after the last is none."""
  line, index = 1, 0
  with open_bytes(path) as file:
    split = _split(file, separator)
    while True:
      try:
        part, last = next(split)
      except StopIteration:
        return
      except _Broken as error:
        yield Piece('', f'{path}:{line}', problem=error.args[0])
        return
      if part.strip() or not (last or index == 0):
        # The document's own first line, not the line break after the separator.
        at = f'{path}:{line + part[:len(part) - len(part.lstrip())].count(10)}'
        yield from _decoded(part, at, {})
      line += part.count(b'\n') + separator.count(b'\n')
      index += 1


def _split(file, separator):
  """(bytes between separators, whether these are the last)."""
  rest = b''
  while chunk := file.read(CHUNK):
    *parts, rest = (rest + chunk).split(separator)
    for part in parts:
      yield part, False
    if len(rest) > MAX_DOCUMENT:
      raise _Broken(f'too long: no separator {separator.decode()!r} in {MAX_DOCUMENT:,} bytes')
  yield rest, True


def _decoded(data, place, fields):
  try:
    text = data.decode()
  except UnicodeDecodeError as error:
    yield Piece('', place, problem=_not_utf8(error))
    return
  yield from document(text, place, fields)


def jsonl_pieces(path, field):
  """The pieces of the documents of a file of JSON objects, one a line; blank lines are no error."""
  number = 0
  with open_bytes(path) as file:
    while True:
      number += 1
      place = f'{path}:{number}'
      try:
        line, whole = _line(file)
      except _Broken as error:
        yield Piece('', place, problem=error.args[0])
        return
      if not line:
        return
      if not whole:
        yield Piece('', place, problem=f'too long: a line of {MAX_DOCUMENT:,} bytes or more')
      elif not line.isspace():
        yield from _json_document(line, place, field)


def _line(file):
  """(the next line, True), or (its first MAX_DOCUMENT bytes, False) if it is longer."""
  line = rest = file.readline(MAX_DOCUMENT)
  if len(line) < MAX_DOCUMENT or line.endswith(b'\n'):
    return line, True
  while rest and not rest.endswith(b'\n'):
    rest = file.readline(CHUNK)
  return line, False


def _json_document(line, place, field):
  try:
    record = json.loads(line.decode())
  except UnicodeDecodeError as error:
    yield Piece('', place, problem=_not_utf8(error))
    return
  except (ValueError, RecursionError) as error:
    yield Piece('', place, problem=f'not JSON: {error}')
    return
  yield from record_pieces(record, place, field)


def record_pieces(record, place, field):
  """The pieces of a record (a dict of str or bytes) whose text is in `field`."""
  if not isinstance(record, dict) or field not in record:
    has = sorted(record) if isinstance(record, dict) else type(record).__name__
    yield Piece('', place, problem=f'no such field: {field!r} is not in {has}')
    return
  fields = {name: record[name] for name in FIELDS if isinstance(record.get(name), str)}
  value = record[field]
  if isinstance(value, bytes):
    yield from _decoded(value, place, fields)
  elif isinstance(value, str):
    yield from document(value, place, fields)
  else:
    kind = 'empty' if value is None else f'not text: {field!r} is {type(value).__name__}'
    yield Piece('', place, problem=kind)


def parquet_pieces(path, field):
  """The pieces of the documents of a Parquet file, one a row."""
  import pyarrow
  from pyarrow import parquet
  number = 0
  with open_bytes(path) as raw:
    try:
      file = parquet.ParquetFile(raw, pre_buffer=False, buffer_size=CHUNK)
      names = [name for name in (field, *FIELDS) if name in file.schema_arrow.names]
      for batch in file.iter_batches(batch_size=16, columns=names):
        for record in batch.to_pylist():
          number += 1
          yield from record_pieces(record, f'{path}:{number}', field)
    except (pyarrow.ArrowInvalid, OSError) as error:
      yield Piece('', f'{path}:{number + 1}', problem=f'damaged or cut short: {error}')
