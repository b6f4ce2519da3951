"""Records of text files: TSV, CSV and JSON lines.

`location` is the beginning of a message; a fault is an InputError with the line.
"""

import csv

from gptjax.errors import InputError
from gptjax.storage.files import bounded, local

MAX_LINE = 1 << 24  # characters per line


def open_text(path, location):
  """The opened text file (InputError if that fails)."""
  try:
    return local.opened(path, 'r', encoding='utf-8-sig', newline='')  # removes a byte-order mark
  except OSError as error:
    raise InputError(f'{location}: {error.strerror} (config.finetune.data_dir)') from None


def lines(file, location):
  """Yield the lines of a text file (InputError for a line that is too long)."""
  number = 0
  while line := file.readline(MAX_LINE):
    number += 1
    if len(line) == MAX_LINE:
      raise InputError(f'{location}: line {number} has {MAX_LINE:,} characters or more: shorten it')
    yield line


def tsv(path, location):
  """Yield the records of a TSV file."""
  with open_text(path, location) as file:
    try:
      rows = csv.reader(lines(file, location), delimiter='\t', quoting=csv.QUOTE_NONE)
      head = next(rows, [])
      if len(set(head)) < len(head):
        raise InputError(f'{location}: line 1, the field names, contains a name twice: {", ".join(head)}')
      for row in rows:
        if row and len(row) != len(head):
          raise InputError(f'{location}: line {rows.line_num} has {len(row)} of {len(head)} columns')
        if row:
          yield dict(zip(head, row))
    except (UnicodeDecodeError, csv.Error) as error:
      raise InputError(f'{location} is not a TSV file in UTF-8: {error}') from None


def csv_records(path, location):
  """Yield the records of a CSV file with quotation marks, by the field names in its first line."""
  with open_text(path, location) as file:
    try:
      rows = csv.DictReader(lines(file, location), strict=True)
      for row in rows:
        if None in row or None in row.values():
          raise InputError(f'{location}: line {rows.line_num} has not as many columns as the first line')
        yield row
    except (UnicodeDecodeError, csv.Error) as error:
      raise InputError(f'{location} is not a CSV file in UTF-8: {error}') from None


def jsonl(path, location):
  """Yield the records of a file with JSON lines."""
  with open_text(path, location) as file:
    try:
      for number, line in enumerate(lines(file, location), 1):
        if line.strip():
          yield _object(line, f'{location}: line {number}')
    except UnicodeDecodeError as error:
      raise InputError(f'{location} is not in UTF-8: {error}') from None


def _object(line, location):
  """The JSON object of a line, as a dict."""
  try:
    record = bounded.parse(line)
    if not isinstance(record, dict):
      raise ValueError(f'it is {type(record).__name__}')
    return record
  except ValueError as error:
    raise InputError(f'{location} is not a JSON object ({error})') from None
