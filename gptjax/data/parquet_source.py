"""Documents from Parquet files, a row each."""

import pyarrow
from pyarrow import parquet

from gptjax.data import fields, files

SHOWN = 30  # columns that a message lists


def pieces(path, field):
  """The pieces of the documents of a Parquet file.

  Args:
    path: of the file; no .gz or .zst, in which nothing can be looked up.
    field: column with the text; 'meta.text': the field `text` of the column `meta`.
  """
  number = 0
  with files.open_bytes(path) as raw:
    try:
      file = parquet.ParquetFile(raw, pre_buffer=False, buffer_size=files.CHUNK)
      columns = list(_columns(file.schema_arrow))
      if field not in columns:
        more = f' and {len(columns) - SHOWN} more' if len(columns) > SHOWN else ''
        yield files.Piece('', f'{path}:1', problem=f'no such field: {field!r} is not a column, there are '
                          f'{", ".join(columns[:SHOWN])}{more}')
        return
      origins = [section + name for section in fields.SECTIONS for name in fields.FIELDS]
      names = [name for name in (field, *origins) if name in columns]
      for batch in file.iter_batches(batch_size=16, columns=names):
        for record in batch.to_pylist():
          number += 1
          yield from fields.pieces(record, f'{path}:{number}', field)
    except (pyarrow.ArrowInvalid, OSError) as error:
      yield files.Piece('', f'{path}:{number + 1}', problem=f'damaged or cut short: {error}')


def _columns(schema, before=''):
  """The names of columns, and dotted those of what is inside of structures."""
  for field in schema:
    yield before + field.name
    if pyarrow.types.is_struct(field.type):
      yield from _columns(field.type, f'{before}{field.name}.')
