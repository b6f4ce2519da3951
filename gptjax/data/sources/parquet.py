"""Documents from Parquet files, one per row.

6 kB of Parquet can decompress to 4 GB of text. Memory is bounded: a page of up to MAX_PAGE bytes for each
column that is read, and BATCH_ROWS rows of small pages, or one row of large ones. No value of more than
`files.MAX_DOCUMENT` bytes becomes a str. Lists, which can have any length, are not read.
"""

import re

import pyarrow
import pyarrow.compute
from pyarrow import parquet

from gptjax.data.sources import fields, file_access, files
from gptjax.data.sources.parquet_pages import DamagedHeader, PageCheckedFile, PageTooLarge
from gptjax.errors import InputError

UNSUPPORTED = re.compile(r'not (currently )?supported|not implemented|encrypted', re.IGNORECASE)
MAX_LISTED_COLUMNS = 30             # in a message
BATCH_ROWS = 16              # rows read at a time if their pages are at most
SMALL_PAGE = 1 << 24   # bytes; rows of larger pages are read one by one
MAX_PAGE = 1 << 29     # bytes of a page after decompression
MAX_ORIGIN = 1 << 16   # bytes of a url, domain or title
TOO_LONG = object()    # in place of a value


def pieces(path, field):
  """Yield the pieces of the documents of a Parquet file.

  Args:
    path: path of the file; not .gz or .zst, which do not support random access.
    field: column with the text; 'meta.text': the field `text` of the column `meta`.

  Raises:
    InputError: the file uses a feature that this version of Arrow does not support.
  """
  number = 0
  with file_access.open_bytes(path) as raw:
    watched = PageCheckedFile(raw, SMALL_PAGE)
    try:
      file = parquet.ParquetFile(watched, pre_buffer=False, buffer_size=file_access.CHUNK)
      names, problem = _columns(file, field)
      if problem:
        yield files.Piece('', f'{path}:1', problem=problem)
        return
      for batch in _batches(file, watched, names):
        leaves = dict(_leaves(batch.schema, batch.columns))
        rows = zip(*(_values(leaves[name], MAX_ORIGIN if i else files.MAX_DOCUMENT)
                     for i, name in enumerate(names)), strict=True)
        for text, *origins in rows:
          number += 1
          yield from _row(text, dict(zip(names[1:], origins, strict=True)), f'{path}:{number}', field)
    except PageTooLarge as error:
      yield files.Piece('', f'{path}:{number + 1}', problem='too long: its page in the file decompresses to '
                        f'{error.args[0]:,} bytes, more than {MAX_PAGE:,}: write it with smaller row groups')
    except (pyarrow.ArrowException, OSError, DamagedHeader) as error:
      if isinstance(error, MemoryError):
        raise
      reason = ' '.join(str(error).split())
      if isinstance(error, NotImplementedError) or UNSUPPORTED.search(reason):  # not damaged: no skip
        raise InputError(f'{path} is not supported: {reason}') from None
      yield files.Piece('', f'{path}:{number + 1}', problem=f'damaged or cut short: {reason}')


def _columns(file, field):
  """Return (names of the columns to read, the problem of the text column or '')."""
  columns = {column.path: column for column in map(file.schema.column, range(len(file.schema)))}
  is_text = lambda name: (columns[name].physical_type == 'BYTE_ARRAY'
                          and not columns[name].max_repetition_level)
  if field not in columns:
    inside = next((name for name in columns if name.startswith(field + '.')), '')
    if inside:
      return [], f'not text: {field!r} is a structure or a list, with {inside}'
    more = f' and {len(columns) - MAX_LISTED_COLUMNS} more' if len(columns) > MAX_LISTED_COLUMNS else ''
    return [], (f'no such field: {field!r} is not a column, there are '
                f'{", ".join([*columns][:MAX_LISTED_COLUMNS])}{more}')
  if not is_text(field):
    return [], f'not text: {field!r} is a column of {columns[field].physical_type}'
  origins = [section + name for section in fields.ORIGIN_PREFIXES for name in fields.ORIGIN_FIELDS]
  return [name for name in (field, *origins) if name in columns and is_text(name)], ''


def _batches(file, watched, names):
  """Yield batches of rows of all row groups: BATCH_ROWS rows if pages are small, otherwise single rows."""
  # As in Arrow, a name also selects the columns nested in it.
  selected = [i for i in range(len(file.schema)) for path in [file.schema.column(i).path]
              if any(path == name or path.startswith(name + '.') for name in names)]
  for number in range(file.num_row_groups):
    done = 0
    for rows, watched.limit in ((BATCH_ROWS, SMALL_PAGE), (1, MAX_PAGE)):
      watched.watch(file.metadata.row_group(number), selected)
      n_read = 0
      try:
        for batch in file.iter_batches(batch_size=rows, row_groups=[number], columns=names,
                                       use_threads=False):
          n_read += batch.num_rows
          if n_read > done:
            yield batch.slice(max(0, batch.num_rows - (n_read - done)))
            done = n_read
        break
      except PageTooLarge:
        if rows == 1:
          raise


def _leaves(schema, columns, prefix=''):
  """Yield (dotted name, array) of columns, including those nested in structures."""
  for field, column in zip(schema, columns, strict=True):
    if pyarrow.types.is_struct(field.type):
      yield from _leaves(field.type, column.flatten(), f'{prefix}{field.name}.')
    else:
      yield prefix + field.name, column


def _values(array, limit):
  """Return [bytes of each value of an array of text; None if missing, TOO_LONG beyond the limit]."""
  if isinstance(array, pyarrow.ExtensionArray):
    array = array.storage
  if not pyarrow.types.is_dictionary(array.type):
    values = array.cast(pyarrow.large_binary())
    sizes = pyarrow.compute.binary_length(values)
  else:
    words = array.dictionary.cast(pyarrow.large_binary())
    sizes = pyarrow.compute.binary_length(words).take(array.indices)
    values = pyarrow.DictionaryArray.from_arrays(array.indices, words)
  return [TOO_LONG if size is not None and size > limit else values[i].as_py()
          for i, size in enumerate(sizes.to_pylist())]


def _row(text, origins, location, field):
  """Yield the pieces of a row's text (bytes); `origins` is {name: bytes} of its origin fields."""
  if text is TOO_LONG:
    yield files.Piece('', location, problem=files.too_long_problem())
    return
  record = {name: value.decode(errors='replace') for name, value in origins.items()
            if isinstance(value, bytes)}
  yield from fields.record_pieces({**record, field: text}, location, field)
