"""Parquet files whose pages are looked at while they are read: a large one is refused before it is unpacked.

A page of 200 kB may unpack to 2 GB, and only its own header says so. Headers are Thrift's, in its compact
protocol (https://parquet.apache.org/docs/file-format/data-pages; apache/parquet-format, `PageHeader`).
"""

HEADER_READS = (1 << 10, 1 << 16, 1 << 24)  # bytes read to find a header; Arrow allows the last
# Types of Thrift's compact protocol.
TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = range(1, 13)
UNCOMPRESSED_SIZE, COMPRESSED_SIZE = 2, 3  # fields of a page header: its page's sizes
MAX_DEPTH = 16


class PageTooLarge(Exception):
  """A page that unpacks to more than the limit; its size in bytes."""


class DamagedHeader(Exception):
  """A page header that is none."""


class PageCheckedFile:
  """A file from which pages of columns are read; the methods that Arrow calls.

  limit: bytes that a page may unpack to. It may be changed between readings.

  Raises:
    LargePage, Damaged: by `read`, before the page gets to Arrow.
  """

  closed = False

  def __init__(self, file, limit):
    """From an open file; `watch` says where its pages are."""
    self._file, self.limit = file, limit
    self._chunks = []  # [where the next page begins, where the column chunk ends]

  def watch(self, row_group, columns):
    """Looks at the pages of these columns (numbers) of a row group (pyarrow's metadata), and no others."""
    self._chunks = []
    for column in map(row_group.column, columns):
      starts = column.dictionary_page_offset, column.data_page_offset
      start = min(offset for offset in starts if offset)
      self._chunks.append([start, start + column.total_compressed_size])

  def read(self, size=-1):
    at = self._file.tell()
    data = self._file.read(size)
    for chunk in self._chunks:
      while at <= chunk[0] < min(at + len(data), chunk[1]):
        chunk[0] += self._page(chunk[0], data[chunk[0] - at:chunk[0] - at + HEADER_READS[0]], at + len(data))
    return data

  def _page(self, start, data, back):
    """The length in the file of the page that begins at `start`, of which some bytes are at hand."""
    for size in (0, *HEADER_READS):
      if size:  # the header goes on in what has not been read yet
        self._file.seek(start)
        data = self._file.read(size)
        self._file.seek(back)
      try:
        fields, header = _struct(data, 0, 0)
      except IndexError:
        continue
      unpacked, packed = fields.get(UNCOMPRESSED_SIZE), fields.get(COMPRESSED_SIZE)
      if unpacked is None or packed is None or packed < 0:
        break
      if unpacked > self.limit:
        raise PageTooLarge(unpacked)
      return header + packed
    raise DamagedHeader(f'the page at byte {start:,} has no header')

  def readable(self):
    return True

  def seekable(self):
    return True

  def writable(self):
    return False

  def seek(self, offset, whence=0):
    return self._file.seek(offset, whence)

  def tell(self):
    return self._file.tell()

  def flush(self):
    pass

  def close(self):
    """Leaves the file to whoever has opened it."""


def _struct(data, at, depth):
  """({field: whole number} of a struct, where it ends); IndexError: it goes on after the data."""
  found, field = {}, 0
  while byte := data[at]:
    at, kind = at + 1, byte & 15
    if byte >> 4:
      field += byte >> 4
    else:
      field, at = _number(data, at)
    if kind in (TRUE, FALSE):
      continue
    if kind in (I16, I32, I64):
      found[field], at = _number(data, at)
    else:
      at = _after(data, at, kind, depth)
  return found, at + 1


def _after(data, at, kind, depth):
  """Where a value of a kind ends that begins at `at`."""
  if depth > MAX_DEPTH:
    raise DamagedHeader('a page header is nested too deeply')
  if kind in (TRUE, FALSE, BYTE):  # in a list, a truth value is a byte
    at += 1
  elif kind in (I16, I32, I64):
    _, at = _number(data, at)
  elif kind == DOUBLE:
    at += 8
  elif kind == BINARY:
    size, at = _length(data, at)
    at += size
  elif kind in (LIST, SET):
    size, inner, at = data[at] >> 4, data[at] & 15, at + 1
    if size == 15:
      size, at = _length(data, at)
    for _ in range(size):
      at = _after(data, at, inner, depth + 1)
  elif kind == STRUCT:
    _, at = _struct(data, at, depth + 1)
  else:
    raise DamagedHeader(f'a page header has a value of type {kind}')
  if at > len(data):
    raise IndexError
  return at


def _length(data, at):
  """(a length, where it ends): a number without a sign."""
  value, shift = 0, 0
  while True:
    byte, at = data[at], at + 1
    value |= (byte & 127) << shift
    shift += 7
    if byte < 128:
      return value, at
    if shift > 63:
      raise DamagedHeader('a page header has a number of more than 64 bits')


def _number(data, at):
  """(a whole number, where it ends), which is stored with its sign last."""
  value, at = _length(data, at)
  return (value >> 1) ^ -(value & 1), at
