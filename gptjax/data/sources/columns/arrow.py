"""Documents from Arrow files, one per row: streams, as the library `datasets` writes, and the file format.

A file may be compressed. It is read in order, so memory is bounded by one record batch of up to MAX_BATCH
bytes; columns that are not needed are not decoded. No value of more than `files.MAX_DOCUMENT` bytes becomes a
str. Lists, which can have any length, are not read.
"""

import pyarrow
from pyarrow import ipc, types

from gptjax.data.sources import fields, file_access, files
from gptjax.data.sources.columns import rows
from gptjax.data.sources.columns.arrow_messages import BatchTooLarge, CheckedStream, DamagedStream
from gptjax.data.sources.decompression import DamagedFile
from gptjax.errors import InputError

MAX_BATCH = 1 << 30  # bytes of a record batch after decompression
# As bytes: Arrow would reject a whole column if one value is not UTF-8.
_AS_BYTES = ((types.is_string, pyarrow.binary()), (types.is_large_string, pyarrow.large_binary()),
             (types.is_string_view, pyarrow.binary_view()), (types.is_binary, pyarrow.binary()),
             (types.is_large_binary, pyarrow.large_binary()), (types.is_binary_view, pyarrow.binary_view()))


def pieces(path, field):
  """Yield the pieces of the documents of an Arrow file.

  Args:
    path: path of the file, plain or compressed.
    field: column with the text; 'meta.text': the field `text` of the column `meta`.

  Raises:
    InputError: the file uses a feature that this version of Arrow does not support, or is an indices mapping.
  """
  number = 0
  with file_access.open_bytes(path) as raw:
    try:
      stream = CheckedStream(raw, MAX_BATCH)
      schema = ipc.read_schema(stream)
      names, problem = _columns(schema, field)
      if problem and (schema.names, schema.types) == (['indices'], [pyarrow.uint64()]):
        raise InputError(f'{path} is an indices mapping of the library datasets, not documents: save its '
                         'data set with save_to_disk, and give that folder')
      if problem:
        yield files.Piece('', f'{path}:1', problem=problem)
        return
      stream.rewind()
      for values in _rows(stream, schema, names):
        number += 1
        yield from rows.pieces(values, f'{path}:{number}', field)
    except BatchTooLarge as error:
      yield files.Piece('', f'{path}:{number + 1}', problem='too long: its record batch has '
                        f'{error.args[0]:,} bytes, more than {MAX_BATCH:,}: write it with smaller batches')
    except DamagedFile as error:
      yield files.Piece('', f'{path}:{number + 1}', problem=error.args[0])
    except (pyarrow.ArrowException, OSError, DamagedStream, UnicodeDecodeError) as error:
      if isinstance(error, MemoryError):
        raise
      yield files.Piece('', f'{path}:{number + 1}', problem=rows.damage(path, error))


def _columns(schema, field):
  """Return (names of the columns to read, the problem of the text column or '')."""
  columns = dict(_leaf_types(schema))
  if field not in columns:
    inside = next((name for name in columns if name.startswith(field + '.')), '')
    return [], (f'not text: {field!r} is a structure, with {inside}' if inside else
                rows.no_such_field_problem(field, columns))
  if not _bytes_type(columns[field]):
    return [], f'not text: {field!r} is a column of {columns[field]}'
  return [name for name in fields.needed_names(field) if name in columns and _bytes_type(columns[name])], ''


def _leaf_types(parent, prefix=''):
  """Yield (dotted name, type) of the fields of a schema, including those nested in structures."""
  for field in parent:
    if types.is_struct(field.type):
      yield from _leaf_types(field.type, f'{prefix}{field.name}.')
    else:
      yield prefix + field.name, field.type


def _bytes_type(kind):
  """Return the type of bytes with the layout of a type of text, None if the type is not one of text."""
  if isinstance(kind, pyarrow.BaseExtensionType):
    kind = kind.storage_type
  if types.is_dictionary(kind):
    kind = kind.value_type
  return next((of_bytes for check, of_bytes in _AS_BYTES if check(kind)), None)


def _rows(stream, schema, names):
  """Yield {name: bytes, None or rows.TOO_LONG} of each row."""
  needed = [number for number, field in enumerate(schema)
            if any(f'{name}.'.startswith(f'{field.name}.') for name in names)]
  reader = ipc.open_stream(stream, options=ipc.IpcReadOptions(included_fields=needed, use_threads=False))
  while True:
    try:
      batch = reader.read_next_batch()
    except StopIteration:
      return
    for column in batch.columns:
      column.validate()  # else the sizes of its parts may be wrong
    leaves = dict(rows.leaves(batch.schema, batch.columns))
    del batch, column
    columns = [_values(leaves.pop(name), files.MAX_DOCUMENT if name == names[0] else rows.MAX_ORIGIN)
               for name in names]
    del leaves
    for values in zip(*columns, strict=True):
      yield dict(zip(names, values, strict=True))
    del columns  # before the next batch is read


def _values(array, limit):
  """Yield the bytes of each value of an array of text; None if missing, rows.TOO_LONG beyond the limit."""
  if isinstance(array, pyarrow.ExtensionArray):
    array = array.storage
  encoded = types.is_dictionary(array.type)
  if encoded:
    # Checks the indices.
    array = pyarrow.DictionaryArray.from_arrays(array.indices, _as_bytes(array.dictionary))
  else:
    array = _as_bytes(array)
  for scalar in array:
    buffer = (scalar.value if encoded else scalar).as_buffer() if scalar.is_valid else None
    if buffer is None:
      yield None
    else:
      yield rows.TOO_LONG if buffer.size > limit else buffer.to_pybytes()


def _as_bytes(array):
  """Return an array of text as one of bytes, not copied; ArrowInvalid if a value is outside of its data."""
  array = array.view(_bytes_type(array.type))
  array.validate(full=True)
  return array
