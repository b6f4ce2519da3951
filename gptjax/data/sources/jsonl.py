"""Documents from files of JSON objects, one per line."""

from gptjax.data.sources import decompression, fields, file_access, files
from gptjax.storage.files import bounded


def pieces(path, field):
  """Yield the pieces of the documents of a file of JSON objects, one per line; blank lines are skipped."""
  number = 0
  with file_access.open_bytes(path) as file:
    while True:
      number += 1
      location = f'{path}:{number}'
      try:
        if number == 1:
          files.skip_byte_order_mark(file)
        line, complete = _read_line(file)
      except decompression.DamagedFile as error:
        yield files.Piece('', location, problem=error.args[0])
        return
      if not line:
        return
      if not complete:
        yield files.Piece('', location, problem=f'too long: a line of {files.MAX_DOCUMENT:,} bytes or more')
      elif not line.isspace():
        yield from _json_document(line, location, field)


def _read_line(file):
  """Return (the next line, True), or (its first files.MAX_DOCUMENT bytes, False) if it is longer."""
  line = rest = file.readline(files.MAX_DOCUMENT)
  if len(line) < files.MAX_DOCUMENT or line.endswith(b'\n'):
    return line, True
  while rest and not rest.endswith(b'\n'):
    rest = file.readline(file_access.CHUNK)
  return line, False


def _json_document(line, location, field):
  try:
    record = bounded.parse(line)
  except UnicodeDecodeError as error:
    yield files.Piece('', location, problem=files.not_utf8_problem(error))
    return
  except ValueError as error:
    yield files.Piece('', location, problem=f'not JSON: {error}' + ', and it has NUL bytes' * (0 in line))
    return
  yield from fields.record_pieces(record, location, field)
