"""Documents, in pieces of bounded size, from text files and from text in memory.

At most one document of MAX_DOCUMENT bytes is in memory, whatever the source. A text file that is one
document needs less: it is read twice, once to validate it and once in pieces.
"""

import codecs
import hashlib
import re
from typing import NamedTuple

from gptjax.data.sources import file_signatures
from gptjax.data.sources.decompression import DamagedFile
from gptjax.data.sources.file_access import CHUNK, open_bytes

MAX_PIECE = 1 << 20     # characters: longer documents are encoded in pieces of at most this size
MAX_DOCUMENT = 1 << 26  # bytes of a document, or of its line of JSON


class Piece(NamedTuple):
  """A document, or characters [start, start + len(text)) of one that is longer than MAX_PIECE."""
  text: str
  location: str             # file and line at which the document starts, for messages
  digest: bytes = b''       # 16 bytes, of the text of the whole document
  start: int = 0
  length: int = 0           # characters of the whole document
  fields: dict = {}         # noqa: RUF012  # of the record, see `fields.origin_fields`
  problem: str = ''         # why the document is unusable, `KIND` or `KIND: DETAILS`


def bytes_digest(data):
  """Return 16 bytes that identify a document in UTF-8: in practice only equal texts have equal digests."""
  return hashlib.blake2b(data, digest_size=16).digest()


def document_pieces(text, location, fields):
  """Yield the pieces of a document in memory, or a piece with a problem if it is empty or not Unicode."""
  if not text or text.isspace():
    yield Piece('', location, problem='empty')
    return
  try:
    data = text.encode()
  except UnicodeEncodeError as error:
    surrogate = error.object[error.start]
    yield Piece('', location, problem=f'not Unicode: unpaired surrogate {surrogate!a}')
    return
  if len(data) > MAX_DOCUMENT:
    yield Piece('', location, problem=too_long_problem())
    return
  digest = bytes_digest(data)
  del data
  if len(text) <= MAX_PIECE:
    yield Piece(text, location, digest, 0, len(text), fields)
    return
  start = 0
  while start < len(text):
    stop = start + cut_position(text[start:start + MAX_PIECE + 1])
    yield Piece(text[start:stop], location, digest, start, len(text), fields)
    start = stop


# After a letter or digit that precedes punctuation: GPT-2's pre-tokenization always splits there.
_BEFORE_PUNCTUATION = re.compile(r'[^\W_](?=[,.;:!?\u3001\u3002\uff0c\uff1f])')


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
  positions = [match.end() for match in _BEFORE_PUNCTUATION.finditer(text, low, limit)]
  return positions[-1] if positions else limit


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


def cut_into_pieces(texts, location, digest, length):
  """Yield the pieces of a document given as an iterator of texts with `length` characters in total."""
  texts, rest, start = iter(texts), '', 0
  while start < length:
    while len(rest) <= MAX_PIECE and (text := next(texts, None)) is not None:
      rest += text
    stop = cut_position(rest)
    yield Piece(rest[:stop], location, digest, start, length, {})
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


def decode_document(data, location, fields):
  """Yield the pieces of a document of UTF-8 bytes in memory."""
  if len(data) > MAX_DOCUMENT:
    yield Piece('', location, problem=too_long_problem())
    return
  try:
    text = data.decode()
  except UnicodeDecodeError as error:
    yield Piece('', location, problem=not_utf8_problem(error))
    return
  yield from document_pieces(text, location, fields)
