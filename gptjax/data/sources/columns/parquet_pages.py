"""Checks the pages of Parquet files while they are read, and rejects a large page before decompression.

A page of 200 kB may decompress to 2 GB, and only its header has the size. Headers use the compact protocol of
Thrift (https://parquet.apache.org/docs/file-format/data-pages; apache/parquet-format, `PageHeader`).
"""

HEADER_READS = (1 << 10, 1 << 16, 1 << 24)  # bytes read to find a header; Arrow allows the last
# Types of Thrift's compact protocol.
TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = range(1, 13)
UNCOMPRESSED_SIZE, COMPRESSED_SIZE = 2, 3  # fields of a page header: the sizes of its page
MAX_DEPTH = 16


class PageTooLarge(Exception):
  """A page is larger than the limit after decompression; the argument is its size in bytes."""


class DamagedHeader(Exception):
  """A page header is invalid."""


class PageCheckedFile:
  """A file of column pages that checks their sizes; it has the methods that Arrow calls.

  limit: maximum bytes of a page after decompression. It may be changed between reads.

  Raises:
    PageTooLarge, DamagedHeader: by `read`, before Arrow gets the page.
  """

  closed = False

  def __init__(self, file, limit):
    """Wrap an open file; `watch` sets the pages to check."""
    self._file, self.limit = file, limit
    self._chunks = []  # [start of the next page, end of the column chunk]

  def watch(self, row_group, columns):
    """Check only the pages of these columns (indices) of a row group (pyarrow's metadata)."""
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
    """Return the length in the file of the page at `start`; `data` has its first bytes."""
    for size in (0, *HEADER_READS):
      if size:  # the header extends beyond `data`
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
    raise DamagedHeader(f'the page at byte {start:,} has no valid header')

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
    """Do nothing: the owner of the file closes it."""


def _struct(data, at, depth):
  """Return ({field: integer} of a struct, its end); IndexError if the data ends before it."""
  values, field = {}, 0
  while byte := data[at]:
    at, kind = at + 1, byte & 15
    if byte >> 4:
      field += byte >> 4
    else:
      field, at = _signed_varint(data, at)
    if kind in (TRUE, FALSE):
      continue
    if kind in (I16, I32, I64):
      values[field], at = _signed_varint(data, at)
    else:
      at = _skip_value(data, at, kind, depth)
  return values, at + 1


def _skip_value(data, at, kind, depth):
  """Return the end of a value of this kind that starts at `at`."""
  if depth > MAX_DEPTH:
    raise DamagedHeader('a page header is nested too deeply')
  if kind in (TRUE, FALSE, BYTE):  # in a list, a boolean is a byte
    at += 1
  elif kind in (I16, I32, I64):
    _, at = _signed_varint(data, at)
  elif kind == DOUBLE:
    at += 8
  elif kind == BINARY:
    size, at = _varint(data, at)
    at += size
  elif kind in (LIST, SET):
    size, inner, at = data[at] >> 4, data[at] & 15, at + 1
    if size == 15:
      size, at = _varint(data, at)
    for _ in range(size):
      at = _skip_value(data, at, inner, depth + 1)
  elif kind == STRUCT:
    _, at = _struct(data, at, depth + 1)
  else:
    raise DamagedHeader(f'a page header has a value of type {kind}')
  if at > len(data):
    raise IndexError
  return at


def _varint(data, at):
  """Return (an unsigned varint, its end)."""
  value, shift = 0, 0
  while True:
    byte, at = data[at], at + 1
    value |= (byte & 127) << shift
    shift += 7
    if byte < 128:
      return value, at
    if shift > 63:
      raise DamagedHeader('a page header has a number of more than 64 bits')


def _signed_varint(data, at):
  """Return (a zigzag-encoded integer, its end)."""
  value, at = _varint(data, at)
  return (value >> 1) ^ -(value & 1), at
