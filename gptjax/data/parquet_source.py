"""Documents from Parquet files, a row each."""

import re

import pyarrow
from pyarrow import parquet

from gptjax.data import fields, files
from gptjax.errors import InputError

UNSUPPORTED = re.compile(r'not (currently )?supported|not implemented|encrypted', re.IGNORECASE)
SHOWN = 30  # columns that a message lists


def pieces(path, field):
  """The pieces of the documents of a Parquet file.

  Args:
    path: of the file; no .gz or .zst, in which nothing can be looked up.
    field: column with the text; 'meta.text': the field `text` of the column `meta`.

  Raises:
    InputError: the file uses what this Arrow cannot read.
  """
  number = 0
  with files.open_bytes(path) as raw:
    try:
      file = parquet.ParquetFile(raw, pre_buffer=False, buffer_size=files.CHUNK)
      columns = dict(_columns(file.schema_arrow))
      if field not in columns:
        more = f' and {len(columns) - SHOWN} more' if len(columns) > SHOWN else ''
        yield files.Piece('', f'{path}:1', problem=f'no such field: {field!r} is not a column, there are '
                          f'{", ".join(list(columns)[:SHOWN])}{more}')
        return
      origins = [section + name for section in fields.SECTIONS for name in fields.FIELDS]
      names = [field, *(name for name in origins if name != field and _is_text(columns.get(name)))]
      for batch in file.iter_batches(batch_size=16, columns=names):
        for record in _records(batch):
          number += 1
          place = f'{path}:{number}'
          if isinstance(record, str):
            yield files.Piece('', place, problem=record)
          else:
            yield from fields.pieces(record, place, field)
    except (pyarrow.ArrowException, OSError) as error:
      if isinstance(error, MemoryError):
        raise
      why = ' '.join(str(error).split())
      if isinstance(error, NotImplementedError) or UNSUPPORTED.search(why):  # sound, so never left out
        raise InputError(f'{path} cannot be read here: {why}') from None
      yield files.Piece('', f'{path}:{number + 1}', problem=f'damaged or cut short: {why}')


def _records(batch):
  """[dict of a row, or why it cannot be read] of a batch."""
  try:
    return batch.to_pylist()
  except (ValueError, OverflowError) as error:
    if batch.num_rows > 1:
      return [record for row in range(batch.num_rows) for record in _records(batch.slice(row, 1))]
    return [files.not_utf8(error) if isinstance(error, UnicodeDecodeError) else f'not text: {error}']


def _is_text(kind):
  """Whether a column of this type, None for none, has text."""
  if kind is not None and pyarrow.types.is_dictionary(kind):
    kind = kind.value_type
  return kind in (pyarrow.string(), pyarrow.large_string(), pyarrow.string_view())


def _columns(schema, before=''):
  """(name, type) of columns, and dotted those of what is inside of structures."""
  for field in schema:
    yield before + field.name, field.type
    if pyarrow.types.is_struct(field.type):
      yield from _columns(field.type, f'{before}{field.name}.')
