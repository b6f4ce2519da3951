"""Checks the messages of Arrow files while they are read, and rejects a large record batch before it is read.

A file is a sequence of messages (https://arrow.apache.org/docs/format/Columnar.html, "Encapsulated message
format"): the size of the metadata, the metadata (a FlatBuffer), and a body of a size that the metadata has. A
body of few bytes may decompress to any size, which stands before each of its buffers. Arrow accepts a stream
that ends between two messages; here it must have the mark of its end, or it may have been cut short.
"""

import collections
import struct

from gptjax.data.sources.file_access import CHUNK

FILE_MARK = b'ARROW1'        # the first and last bytes of the file format: a stream with an index after it
CONTINUATION = b'\xff' * 4   # begins a message; without it, it is of Arrow before 0.15
MAX_METADATA = 1 << 24       # bytes of the metadata of a message
DICTIONARY, BATCH = 2, 3     # kinds of messages
# Indices of fields in their FlatBuffers table.
KIND, HEADER, BODY_LENGTH = 1, 2, 3              # of a message
BUFFERS, COMPRESSION = 2, 3                      # of a record batch
DICTIONARY_ID, DICTIONARY_DATA, IS_DELTA = 0, 1, 2  # of a dictionary


class BatchTooLarge(Exception):
  """A record batch is larger than the limit; the argument is its size in bytes."""


class DamagedStream(Exception):
  """The messages are invalid."""


class CheckedStream:
  """A stream of Arrow messages that checks their sizes; it has the methods that Arrow calls.

  `read` raises BatchTooLarge or DamagedStream before Arrow gets the message.
  """

  closed = False

  def __init__(self, file, limit):
    """Wrap a buffered reader at its beginning.

    Args:
      file: the reader, of a stream or of the file format.
      limit: maximum bytes of a record batch, or of all dictionaries, after decompression.
    """
    self._file, self._limit = file, limit
    self._ready = collections.deque()  # checked bytes that Arrow has not read
    self._body, self._ended = 0, False  # bytes of a body to read from the file, whether the stream has ended
    self._dictionaries = {}  # {id: bytes}
    self._first = None       # message
    self._is_file = file.peek(len(FILE_MARK)).startswith(FILE_MARK)
    if self._is_file:
      self._exactly(8)

  def read(self, size=-1):
    parts = []
    while size:
      if not self._ready and not self._body:
        if self._ended:
          break
        self._next_message()
      if self._ready:
        part = self._ready.popleft()
        if size < len(part):
          self._ready.appendleft(part[size:])
          part = part[:size]
      else:
        part = self._exactly(min(size, self._body))
        self._body -= len(part)
      parts.append(part)
      size -= len(part)
    return parts[0] if len(parts) == 1 else b''.join(parts)

  def rewind(self):
    """Return to the beginning, if no more than the first message was read: the schema."""
    self._ready.clear()
    self._ready.append(self._first)

  def readable(self):
    return True

  def seekable(self):
    return False

  def writable(self):
    return False

  def tell(self):
    return 0

  def flush(self):
    pass

  def close(self):
    """Do nothing: the owner of the file closes it."""

  def _exactly(self, size):
    data = self._file.read(size)
    if len(data) < size:
      raise DamagedStream('the file ends within a message')
    return data

  def _next_message(self):
    """Read the metadata of the next message into `_ready`, and its body too if it is compressed."""
    start = self._file.read(4)
    if not start:
      raise DamagedStream('the mark of its end is missing')
    if start == CONTINUATION:
      start += self._exactly(4)
    if len(start) < 4:
      raise DamagedStream('the file ends within a message')
    size, = struct.unpack('<i', start[-4:])
    if size == 0:
      self._end()
      self._ready.append(start)
      self._ended = True
      return
    if not 0 < size <= MAX_METADATA:
      raise DamagedStream(f'a message has {size:,} bytes of metadata')
    metadata = self._exactly(size)
    self._ready.append(start + metadata)
    self._first = self._first or start + metadata
    try:
      self._check(metadata)
    except struct.error:
      raise DamagedStream('the metadata of a message is invalid') from None

  def _end(self):
    """Check what follows the mark of the end: nothing, or the index of the file format."""
    tail, size = b'', 0
    while data := self._file.read(CHUNK):
      tail, size = (tail + data)[-len(FILE_MARK):], size + len(data)
    if self._is_file and tail != FILE_MARK:
      raise DamagedStream('the file ends within its index')
    if not self._is_file and size:
      raise DamagedStream(f'{size:,} bytes follow the mark of its end')

  def _check(self, metadata):
    """Check the size of the body of a message; a compressed one is read for it."""
    message = _Table(metadata, _unpack('<I', metadata, 0))
    kind, header = message.number('<B', KIND), message.table(HEADER)
    length = message.number('<q', BODY_LENGTH)
    if not 0 <= length <= self._limit:
      if length < 0:
        raise DamagedStream('the metadata of a message is invalid')
      raise BatchTooLarge(length)
    batch = header.table(DICTIONARY_DATA) if kind == DICTIONARY and header else header
    self._body = size = length
    if kind not in (DICTIONARY, BATCH) or batch is None:
      return
    if batch.table(COMPRESSION):
      body, self._body = self._exactly(length), 0
      self._ready.append(body)
      size = sum(_uncompressed_size(body, *buffer) for buffer in batch.buffers())
    if kind == DICTIONARY:
      number = header.number('<q', DICTIONARY_ID)
      before = self._dictionaries.get(number, 0) if header.number('<B', IS_DELTA) else 0
      self._dictionaries[number] = before + size
      size = sum(self._dictionaries.values())
    if size > self._limit:
      raise BatchTooLarge(size)


def _uncompressed_size(body, offset, length):
  """Return the size of a buffer in a compressed body; it is stored before it, -1 if not compressed."""
  if not length:
    return 0
  size = _unpack('<q', body, offset)
  return max(length, size)


class _Table:
  """A table of a FlatBuffer."""

  def __init__(self, data, at):
    self._data, self._at = data, at
    self._fields = at - _unpack('<i', data, at)
    self._size = _unpack('<H', data, self._fields)

  def _position(self, field):
    """Return where a field is, or None."""
    entry = 4 + 2 * field
    offset = _unpack('<H', self._data, self._fields + entry) if entry + 2 <= self._size else 0
    return self._at + offset if offset else None

  def number(self, kind, field):
    """Return a number of this struct format; 0, the default, if it is missing."""
    at = self._position(field)
    return 0 if at is None else _unpack(kind, self._data, at)

  def table(self, field):
    """Return the table in a field, or None."""
    at = self._position(field)
    return None if at is None else _Table(self._data, at + _unpack('<I', self._data, at))

  def buffers(self):
    """Yield (offset, length) of each buffer of a record batch."""
    at = self._position(BUFFERS)
    if at is None:
      return
    at += _unpack('<I', self._data, at)
    for number in range(_unpack('<I', self._data, at)):
      yield tuple(_unpack('<q', self._data, at + 4 + 16 * number + i) for i in (0, 8))


def _unpack(kind, data, at):
  """Return one number; struct.error if it is not within the data."""
  if at < 0:
    raise struct.error
  return struct.unpack_from(kind, data, at)[0]
