"""Documents from Parquet files, a row each.

Little may unpack to much: 6 kB of Parquet can hold 4 GB of text. What is in memory is a page of up to
MAX_PAGE bytes for each column that is read, and SOME rows of pages that are small, or one row. No value of
more than `files.MAX_DOCUMENT` bytes becomes a str. Lists, which could be of any length, are not read.
"""

import re

import pyarrow
import pyarrow.compute
from pyarrow import parquet

from gptjax.data.sources import fields, files
from gptjax.data.sources.parquet_pages import DamagedHeader, PageCheckedFile, PageTooLarge
from gptjax.errors import InputError

UNSUPPORTED = re.compile(r'not (currently )?supported|not implemented|encrypted', re.IGNORECASE)
MAX_LISTED_COLUMNS = 30             # columns that a message lists
BATCH_ROWS = 16              # rows read at a time, where they are small:
SMALL_PAGE = 1 << 24   # bytes; others are read one by one
MAX_PAGE = 1 << 29     # bytes that a page may unpack to
MAX_ORIGIN = 1 << 16   # bytes of a url, domain or title
TOO_LONG = object()    # in place of a value


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
    watched = PageCheckedFile(raw, SMALL_PAGE)
    try:
      file = parquet.ParquetFile(watched, pre_buffer=False, buffer_size=files.CHUNK)
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
      yield files.Piece('', f'{path}:{number + 1}', problem='too long: its page in the file unpacks to '
                        f'{error.args[0]:,} bytes, more than {MAX_PAGE:,}: write it with smaller row groups')
    except (pyarrow.ArrowException, OSError, DamagedHeader) as error:
      if isinstance(error, MemoryError):
        raise
      why = ' '.join(str(error).split())
      if isinstance(error, NotImplementedError) or UNSUPPORTED.search(why):  # sound, so never left out
        raise InputError(f'{path} cannot be read here: {why}') from None
      yield files.Piece('', f'{path}:{number + 1}', problem=f'damaged or cut short: {why}')


def _columns(file, field):
  """(names of the columns to read, why there is no text or '')."""
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
  """Batches of rows of all row groups, in which pages are small; or of one row each."""
  # As Arrow does, which takes what a name is the beginning of, too.
  wanted = [i for i in range(len(file.schema)) for path in [file.schema.column(i).path]
            if any(path == name or path.startswith(name + '.') for name in names)]
  for number in range(file.num_row_groups):
    done = 0
    for rows, watched.limit in ((BATCH_ROWS, SMALL_PAGE), (1, MAX_PAGE)):
      watched.watch(file.metadata.row_group(number), wanted)
      seen = 0
      try:
        for batch in file.iter_batches(batch_size=rows, row_groups=[number], columns=names,
                                       use_threads=False):
          seen += batch.num_rows
          if seen > done:
            yield batch.slice(max(0, batch.num_rows - (seen - done)))
            done = seen
        break
      except PageTooLarge:
        if rows == 1:
          raise


def _leaves(schema, columns, before=''):
  """(dotted name, array) of columns, and of what is inside of structures."""
  for field, column in zip(schema, columns, strict=True):
    if pyarrow.types.is_struct(field.type):
      yield from _leaves(field.type, column.flatten(), f'{before}{field.name}.')
    else:
      yield before + field.name, column


def _values(array, limit):
  """[bytes of each value of an array of text; None where there is none, TOO_LONG beyond the limit]."""
  if isinstance(array, pyarrow.ExtensionArray):
    array = array.storage
  if not pyarrow.types.is_dictionary(array.type):
    kept = array.cast(pyarrow.large_binary())
    sizes = pyarrow.compute.binary_length(kept)
  else:
    words = array.dictionary.cast(pyarrow.large_binary())
    sizes = pyarrow.compute.binary_length(words).take(array.indices)
    kept = pyarrow.DictionaryArray.from_arrays(array.indices, words)
  return [TOO_LONG if size is not None and size > limit else kept[i].as_py()
          for i, size in enumerate(sizes.to_pylist())]


def _row(text, origins, place, field):
  """The pieces of a row's text, bytes; `origins`: {name: bytes} of what says where it is from."""
  if text is TOO_LONG:
    yield files.Piece('', place, problem=files.too_long_problem())
    return
  record = {name: value.decode(errors='replace') for name, value in origins.items()
            if isinstance(value, bytes)}
  yield from fields.record_pieces({**record, field: text}, place, field)
