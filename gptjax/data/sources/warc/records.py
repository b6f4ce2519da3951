"""Records of WARC files (ISO 28500), also from a position in the middle of a file.

A record has headers, an empty line, and a content of `Content-Length` bytes. In a `.warc.gz` file each record
is a gzip member of its own, so that reading can begin at any of them; a file that is one member, or whose
members are not records, can be read from its beginning. Positions are bytes of the file as it is stored.

No library reads the records. FastWARC 2.0 ends without an error in a file that is cut short within a header,
cannot go on after a damaged member, and ends the process with an error of Rust if the storage fails. warcio
1.8 also ends without an error in a file that is cut short, and decompresses a whole block of any size. The
tests compare the records of sound files with those of FastWARC.

A border of two parts may fall within an archive that is itself the content of a record. Then the records in
it are read, too, by each reader in the same way.
"""

import re
import zlib
from typing import NamedTuple

from gptjax.data.sources import decompression, file_access
from gptjax.data.sources.decompression import DamagedFile

MAX_CONTENT = 1 << 26  # bytes of a record that is read; larger ones are passed over
MAX_HEADERS = 1 << 16  # bytes
CHUNK = 1 << 16        # bytes read at a time
PROBE = 1 << 12        # bytes of a member by which it is recognized
OVERLAP = 1 << 8       # bytes that are searched again with those that follow
_GZIP = b'\x1f\x8b\x08'
_VERSION = re.compile(rb'WARC/[01]\.[0-9]{1,2}\r?\n')
_PLAIN_RECORD = re.compile(rb'(?:(?<=\r\n\r\n)|(?<=\n\n))WARC/[01]\.[0-9]{1,2}\r?\n[A-Za-z-]+:')
_END_OF_HEADERS = re.compile(rb'\r?\n\r?\n')
_LENGTH = re.compile(r'[0-9]{1,18}')
_CONTINUATION = re.compile(r'\r?\n[ \t]+')
_PADDING = b'\r\n\0'    # between records and after members


class Record(NamedTuple):
  """A record, or a problem where one was expected."""
  start: int        # position at which it begins, or its member
  headers: dict     # {name in lower case: value}
  content: bytes    # of a record that is too long, the beginning
  problem: str = ''


def read(path, is_wanted, first=0, end=None):
  """Yield the records of a file that are wanted, and a Record with a problem for each damaged place.

  Args:
    path: of the file, `.warc.gz`, plain, or compressed in another way.
    is_wanted: function of the headers that returns whether to read the content.
    first, end: positions; only the records that begin in [first, end).
  """
  stored = path.endswith('.gz') or not decompression.format_of(path)
  with (file_access.open_stored if stored else file_access.open_bytes)(path) as file:
    new = _Gzip if path.endswith('.gz') else _Plain
    start, damaged = _find(file, new, first, end) if first else 0, False
    while start is not None:
      stream = new(file, start)
      try:
        for record in _records(stream, is_wanted, end):
          damaged = False
          yield record
        return
      except DamagedFile as error:
        if end is not None and stream.start >= end and new.is_record(file, stream.start):
          return  # the reader of the next part finds it
        if not damaged:  # what is found next may be the rest of the same damage
          yield Record(stream.start, {}, b'', error.args[0])
        damaged = True
        # In a stream that has no positions, what follows cannot be found.
        start = _find(file, new, stream.start + 1, end) if stored else None


def _find(file, new, first, end):
  """Return the first position in [first, end) at which a record begins; None if there is none."""
  at, held = max(0, first - OVERLAP), b''
  while end is None or at + len(held) < end + OVERLAP:
    file.seek(at + len(held))
    chunk = file.read(CHUNK)
    held += chunk
    for position in new.candidates(held):
      position += at
      if position >= first and (end is None or position < end) and new.is_record(file, position):
        return position
    if not chunk:
      return None
    at, held = at + len(held[:-OVERLAP]), held[-OVERLAP:]
  return None


def _records(stream, is_wanted, end):
  while _follows(stream):
    stream.mark()
    if end is not None and stream.start >= end and stream.is_aligned:
      return
    headers = _headers(stream)
    length = headers.get('content-length', '')
    if not _LENGTH.fullmatch(length):
      raise DamagedFile(f'damaged: a record with the length {length[:20]!r}')
    size, wanted = int(length), is_wanted(headers)
    if wanted and size <= MAX_CONTENT:
      content = stream.take(size)
      stream.check()
      yield Record(stream.start, headers, content)
    else:
      start, head = stream.start, stream.take(min(size, MAX_HEADERS)) if wanted else b''
      stream.drop(size - len(head))
      if wanted:
        yield Record(start, headers, head, f'too long: a record of more than {MAX_CONTENT:,} bytes')


def _follows(stream):
  """Return whether another record follows; if the member in which it would be is damaged, that is where."""
  try:
    return stream.skip(_PADDING)
  except DamagedFile:
    stream.mark()
    raise


def _headers(stream):
  """Return the headers of the record at which a stream is."""
  if not _VERSION.match(stream.peek(16)):
    raise DamagedFile('damaged: a record does not begin with WARC/1')
  text = stream.until(_END_OF_HEADERS, MAX_HEADERS)
  return parse_headers(text.partition(b'\n')[2].decode('utf-8', 'replace'))


def parse_headers(text):
  """Return {name in lower case: value} of lines `NAME: VALUE`, which may be continued.

  Of several lines with a name, the first counts.
  """
  found = {}
  for line in _CONTINUATION.sub(' ', text).split('\n'):
    name, colon, value = line.partition(':')
    if colon:
      found.setdefault(name.strip().lower(), value.strip())
  return found


class _Stream:
  """Bytes that are read one after the other; `start` is where the current record or its member begins."""

  def __init__(self, file, start):
    if start:
      file.seek(start)
    self._file, self._data = file, bytearray()
    self.start, self.is_aligned = start, True

  def skip(self, characters):
    """Pass over these bytes; returns whether anything follows."""
    while True:
      rest = self._data.lstrip(characters)
      if rest:
        self._cut(len(self._data) - len(rest))
        return True
      self._cut(len(self._data))
      if not self._more():
        return False

  def peek(self, size):
    while len(self._data) < size and self._more():
      pass
    return bytes(self._data[:size])

  def until(self, pattern, limit):
    """Return and pass over the bytes up to the end of a match of a pattern."""
    searched = 0
    while not (match := pattern.search(self._data, searched)):
      searched = max(0, len(self._data) - 4)
      if len(self._data) > limit:
        raise DamagedFile(f'damaged: headers of more than {limit:,} bytes')
      if not self._more():
        raise DamagedFile('cut short within the headers of a record')
    return self._cut(match.end())

  def take(self, size):
    """Return and pass over so many bytes."""
    while len(self._data) < size:
      if not self._more():
        raise DamagedFile('cut short within a record')
    return self._cut(size)

  def drop(self, size):
    """Pass over so many bytes."""
    while size > len(self._data):
      size -= len(self._data)
      self._cut(len(self._data))
      if not self._more():
        raise DamagedFile('cut short within a record')
    self._cut(size)


class _Plain(_Stream):
  """A file without compression, or what has been decompressed."""

  def __init__(self, file, start):
    super().__init__(file, start)
    self._position = start  # of the first of the bytes in memory

  def mark(self):
    """Set `start` to the position of the next byte."""
    self.start = self._position

  def check(self):
    """Do nothing: there is no checksum."""

  def _more(self):
    chunk = self._file.read(CHUNK)
    self._data += chunk
    return bool(chunk)

  def _cut(self, size):
    cut = bytes(self._data[:size])
    del self._data[:size]
    self._position += size
    return cut

  @staticmethod
  def candidates(data):
    return [match.start() for match in _PLAIN_RECORD.finditer(data)]

  @staticmethod
  def is_record(file, position):
    del file, position
    return True


class _Gzip(_Stream):
  """A file of gzip members. The bytes in memory are of one member, except for the end of a record."""

  def __init__(self, file, start):
    super().__init__(file, start)
    self._decoder, self._compressed, self._read = None, b'', start
    self._members = [(0, start)]  # (index of its first byte in memory, position) of members in memory

  def mark(self):
    """Set `start` to the position of the member of the next byte."""
    while len(self._members) > 1 and self._members[1][0] <= 0:
      del self._members[0]
    index, self.start = self._members[0]
    self.is_aligned = index == 0

  def check(self):
    """Read on to the end of the member, if it is near, so that its checksum is compared."""
    while not self._decoder.eof and len(self._data) < CHUNK:
      self._step()

  def _more(self):
    """Decompress some bytes, of the next member where one has ended; returns whether there are any."""
    while True:
      if self._decoder is None or self._decoder.eof:
        if self._decoder:
          self._compressed = self._decoder.unused_data
        while not self._compressed.strip(b'\0'):
          self._compressed = self._next()
          if not self._compressed:
            return False
        self._compressed = self._compressed.lstrip(b'\0')
        self._decoder = zlib.decompressobj(31)
        member = (len(self._data), self._read - len(self._compressed))
        self._members = [*self._members, member] if self._data else [member]
      if self._step():
        return True

  def _step(self):
    """Decompress some bytes of the current member, and return whether there are any."""
    self._compressed = self._compressed or self._next()
    if not self._compressed:
      raise DamagedFile('cut short within a gzip member')
    try:
      data = self._decoder.decompress(self._compressed, CHUNK)
    except zlib.error as error:
      raise DamagedFile(f'damaged: {error}') from None
    self._compressed = self._decoder.unconsumed_tail
    self._data += data
    return bool(data)

  def _next(self):
    chunk = self._file.read(CHUNK)
    self._read += len(chunk)
    return chunk

  def _cut(self, size):
    cut = bytes(self._data[:size])
    del self._data[:size]
    self._members = [(index - size, position) for index, position in self._members]
    return cut

  @staticmethod
  def candidates(data):
    found, at = [], data.find(_GZIP)
    while at >= 0:
      found.append(at)
      at = data.find(_GZIP, at + 1)
    return found

  @staticmethod
  def is_record(file, position):
    file.seek(position)
    try:
      return bool(_VERSION.match(zlib.decompressobj(31).decompress(file.read(PROBE), 32)))
    except zlib.error:
      return False
