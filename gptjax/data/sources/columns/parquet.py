"""Documents from Parquet files, one per row.

6 kB of Parquet can decompress to 4 GB of text. Memory is bounded: a page of up to MAX_PAGE bytes for each
column that is read, and BATCH_ROWS rows of small pages, or one row of large ones. No value of more than
`files.MAX_DOCUMENT` bytes becomes a str. Lists, which can have any length, are not read.
"""

import pyarrow
import pyarrow.compute
from pyarrow import parquet

from gptjax.data.sources import fields, file_access, files
from gptjax.data.sources.columns import rows
from gptjax.data.sources.columns.parquet_pages import DamagedHeader, PageCheckedFile, PageTooLarge

BATCH_ROWS = 16        # rows read at a time if their pages are at most
SMALL_PAGE = 1 << 24   # bytes; rows of larger pages are read one by one
MAX_PAGE = 1 << 29     # bytes of a page after decompression


def positions(path, target):
  """Return the row groups, from the second on, before which about `target` bytes of row groups end."""
  try:
    with file_access.open_bytes(path) as raw:
      metadata = parquet.ParquetFile(PageCheckedFile(raw, SMALL_PAGE), pre_buffer=False).metadata
      sizes = [metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups)]
  except (pyarrow.ArrowException, OSError, DamagedHeader):
    return []  # `pieces` says why
  found, filled = [], 0
  for number, size in enumerate(sizes):
    if filled and filled + size > target:
      found.append(number)
      filled = 0
    filled += size
  return found


def pieces(path, field, first=0, end=None):
  """Yield the pieces of the documents of a Parquet file.

  Args:
    path: path of the file; not .gz or .zst, which do not support random access.
    field: column with the text; 'meta.text': the field `text` of the column `meta`.
    first, end: only the row groups [first, end); None: to the last.

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
        if not first:
          yield files.Piece('', f'{path}:1', problem=problem)
        return
      number = sum(file.metadata.row_group(group).num_rows for group in range(first))
      for batch in _batches(file, watched, names, range(first, file.num_row_groups if end is None else end)):
        leaves = dict(rows.leaves(batch.schema, batch.columns))
        values = zip(*(_values(leaves[name], rows.MAX_ORIGIN if i else files.MAX_DOCUMENT)
                       for i, name in enumerate(names)), strict=True)
        for row in values:
          number += 1
          yield from rows.pieces(dict(zip(names, row, strict=True)), f'{path}:{number}', field)
    except PageTooLarge as error:
      yield files.Piece('', f'{path}:{number + 1}', problem='too long: its page in the file decompresses to '
                        f'{error.args[0]:,} bytes, more than {MAX_PAGE:,}: write it with smaller row groups')
    except (pyarrow.ArrowException, OSError, DamagedHeader) as error:
      if isinstance(error, MemoryError):
        raise
      yield files.Piece('', f'{path}:{number + 1}', problem=rows.damage(path, error))


def _columns(file, field):
  """Return (names of the columns to read, the problem of the text column or '')."""
  columns = {column.path: column for column in map(file.schema.column, range(len(file.schema)))}
  is_text = lambda name: (columns[name].physical_type == 'BYTE_ARRAY'
                          and not columns[name].max_repetition_level)
  if field not in columns:
    inside = next((name for name in columns if name.startswith(field + '.')), '')
    if inside:
      return [], f'not text: {field!r} is a structure or a list, with {inside}'
    return [], rows.no_such_field_problem(field, columns)
  if not is_text(field):
    return [], f'not text: {field!r} is a column of {columns[field].physical_type}'
  return [name for name in fields.needed_names(field) if name in columns and is_text(name)], ''


def _batches(file, watched, names, groups):
  """Yield batches of rows of row groups: BATCH_ROWS rows if pages are small, otherwise single rows."""
  # As in Arrow, a name also selects the columns nested in it.
  selected = [i for i in range(len(file.schema)) for path in [file.schema.column(i).path]
              if any(path == name or path.startswith(name + '.') for name in names)]
  for number in groups:
    done = 0
    for n_rows, watched.limit in ((BATCH_ROWS, SMALL_PAGE), (1, MAX_PAGE)):
      watched.watch(file.metadata.row_group(number), selected)
      n_read = 0
      try:
        for batch in file.iter_batches(batch_size=n_rows, row_groups=[number], columns=names,
                                       use_threads=False):
          n_read += batch.num_rows
          if n_read > done:
            yield batch.slice(max(0, batch.num_rows - (n_read - done)))
            done = n_read
        break
      except PageTooLarge:
        if n_rows == 1:
          raise


def _values(array, limit):
  """Return [bytes of each value of an array of text; None if missing, rows.TOO_LONG beyond the limit]."""
  if isinstance(array, pyarrow.ExtensionArray):
    array = array.storage
  if not pyarrow.types.is_dictionary(array.type):
    values = array.cast(pyarrow.large_binary())
    sizes = pyarrow.compute.binary_length(values)
  else:
    words = array.dictionary.cast(pyarrow.large_binary())
    sizes = pyarrow.compute.binary_length(words).take(array.indices)
    values = pyarrow.DictionaryArray.from_arrays(array.indices, words)
  return [rows.TOO_LONG if size is not None and size > limit else values[i].as_py()
          for i, size in enumerate(sizes.to_pylist())]
