"""What readers of tables have in common: limits, messages, and the documents of rows."""

import re

import pyarrow

from gptjax.data.sources import fields, files
from gptjax.errors import InputError

MAX_ORIGIN = 1 << 16     # bytes of a url, domain or title
TOO_LONG = object()      # in place of a value
MAX_LISTED_COLUMNS = 30  # in a message
UNSUPPORTED = re.compile(r'not (currently )?supported|not implemented|encrypted', re.IGNORECASE)


def pieces(values, location, field):
  """Yield the pieces of the document of a row.

  Args:
    values: {name: bytes, None, or TOO_LONG}, of the text and of the origin fields.
    location: of the row, for messages.
    field: the name of the text.
  """
  text = values[field]
  if text is TOO_LONG:
    yield files.Piece('', location, problem=files.too_long_problem())
    return
  record = {name: value.decode(errors='replace') for name, value in values.items()
            if isinstance(value, bytes)}
  yield from fields.record_pieces({**record, field: text}, location, field)


def leaves(schema, columns, prefix=''):
  """Yield (dotted name, array) of the columns of a table, including those nested in structures."""
  for field, column in zip(schema, columns, strict=True):
    if pyarrow.types.is_struct(field.type):
      yield from leaves(field.type, column.flatten(), f'{prefix}{field.name}.')
    else:
      yield prefix + field.name, column


def no_such_field_problem(field, columns):
  """The problem of a table without the column `field`; `columns` are the names of all."""
  names = [*columns]
  more = f' and {len(names) - MAX_LISTED_COLUMNS} more' if len(names) > MAX_LISTED_COLUMNS else ''
  return (f'no such field: {field!r} is not a column, there are '
          f'{", ".join(names[:MAX_LISTED_COLUMNS])}{more}')


def damage(path, error):
  """Return the problem of a file that Arrow cannot read; InputError if it is sound but not supported."""
  reason = ' '.join(str(error).split())
  if isinstance(error, NotImplementedError) or UNSUPPORTED.search(reason):
    raise InputError(f'{path} is not supported: {reason}') from None
  return f'damaged or cut short: {reason}'
