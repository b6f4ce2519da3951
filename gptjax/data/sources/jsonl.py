"""Documents from files of JSON objects, one per line."""

import re

from gptjax.data.sources import decompression, fields, file_access, files
from gptjax.storage.files import bounded

_counted = {}  # {path: {byte: number of lines that begin up to it}}, so that parts count only what is new
TOO_LONG = 'too long'
IN_PART = re.compile(r'(.*):after byte (\d+), line (\d+)')  # a location in a part of a file


def pieces(path, field, first=0, end=None):
  """Yield the pieces of the documents of a file of JSON objects, one per line; blank lines are skipped.

  Args:
    path: of the file.
    field: with the text.
    first, end: bytes; only the lines that begin after byte `first` (all, if it is 0), up to byte `end`.
  """
  for location, line, problem in lines(path, first, end):
    if problem:
      yield files.Piece('', location, problem=problem)
    elif not line.isspace():
      yield from _json_document(line, location, field)


def lines(path, first=0, end=None, long_window=False):
  """Yield (location, line with its line break, '') or (location, b'', problem) for each line of a file.

  What follows a damaged place is not read.

  Args:
    path: of the file.
    first, end: as for `pieces`.
    long_window: as for `file_access.open_bytes`.
  """
  number = 0
  with file_access.open_bytes(path, long_window) as file:
    if first:
      file.seek(first)
      _read_line(file, end)  # of the part before, also if it begins at `first`
    while end is None or file.tell() <= end:
      number += 1
      location = f'{path}:after byte {first}, line {number}' if first else f'{path}:{number}'
      try:
        if number == 1 and not first:
          files.skip_byte_order_mark(file)
        line, complete = _read_line(file, end)
      except decompression.DamagedFile as error:
        yield location, b'', error.args[0]
        return
      if not line:
        return
      if complete:
        yield location, line, ''
      else:
        yield location, b'', f'{TOO_LONG}: a line of {files.MAX_DOCUMENT:,} bytes or more'


def _read_line(file, end):
  """Return (the next line, True), or (its first files.MAX_DOCUMENT bytes, False) if it is longer.

  The rest of a longer line is not read after byte `end`, which may be None: no other line begins before it.
  """
  line = rest = file.readline(files.MAX_DOCUMENT)
  if len(line) < files.MAX_DOCUMENT or line.endswith(b'\n'):
    return line, True
  while rest and not rest.endswith(b'\n') and (end is None or file.tell() <= end):
    rest = file.readline(file_access.CHUNK)
  return line, False


def shown_location(location):
  """Return `FILE:LINE` for the location of a line, counted from the beginning of the file."""
  match = IN_PART.fullmatch(location)
  if not match:
    return location
  return f'{match[1]}:{_lines_begun(match[1], int(match[2])) + int(match[3])}'


def _lines_begun(path, position):
  """Return the number of lines of a file that begin up to a byte."""
  known = _counted.setdefault(path, {0: 1})
  at = max(start for start in known if start <= position)
  count = known[at]
  with file_access.open_bytes(path) as file:
    file.seek(at)
    while at < position and (chunk := file.read(min(position - at, file_access.CHUNK))):
      count += chunk.count(b'\n')
      at += len(chunk)
  known[position] = count
  return count


def _json_document(line, location, field):
  try:
    record = bounded.parse(line)
  except UnicodeDecodeError as error:
    yield files.Piece('', location, problem=files.not_utf8_problem(error))
    return
  except ValueError as error:
    more = ', and it has NUL bytes' * (0 in line)
    if line.strip() in (b'[', b'{'):
      more += ', the first of several lines: write each object in one line (jq -c, with .[] for an array)'
    yield files.Piece('', location, problem=f'not JSON: {error}{more}')
    return
  yield from fields.record_pieces(record, location, field)
