"""JSON records with a checksum, so that damage on disk is detected.

A record is a JSON object whose field `crc32` is the CRC-32 of all other fields; it detects every error of up
to 32 adjacent bits. Records without that field are from version 0.1.0 and earlier.
"""

import json
import sys
import zlib
from pathlib import Path

from gptjax.errors import InputError, Unavailable
from gptjax.storage.files import access, json_files, parts
from gptjax.storage.files.paths import Url
from gptjax.text.printable import printable
from gptjax.text.redacted import redacted

CHECKSUM = 'crc32'
RESTORE = ': restore it from a copy, or write it again'


def log(line):
  """Print a line to stderr."""
  print(printable(redacted(line)), file=sys.stderr, flush=True)


def add_checksum(record):
  """Return the record with its checksum as last field, replacing an existing one."""
  body = {name: value for name, value in record.items() if name != CHECKSUM}
  return {**body, CHECKSUM: checksum(body)}


def remove_checksum(record):
  """Return the record without its checksum.

  Raises:
    ValueError: the checksum does not match.
  """
  body = {name: value for name, value in record.items() if name != CHECKSUM}
  if CHECKSUM in record and record[CHECKSUM] != checksum(body):
    raise ValueError(f'its {CHECKSUM} does not match')
  return body


def checksum(value):
  """Return the CRC-32 of the canonical text of a JSON value."""
  # Convert to JSON and back: tuples become lists, and numeric keys become strings.
  value = json.loads(json.dumps(value))
  return zlib.crc32(json.dumps(value, sort_keys=True).encode())


def parse(text):
  """Return the JSON value of str or bytes.

  Raises:
    ValueError: it is not JSON in UTF-8, is nested too deeply, or has too many values.
  """
  return json_files.parse(text, finite=False)


def read_lines(path, read, log=log):
  """Return [read(text) of each line]; damaged lines are omitted, and their numbers are reported.

  Args:
    path: of the file, or of what its parts make up (see `parts`), here or in a bucket; it need not exist.
    read: function of the text of a line; raises ValueError if the line is damaged.
    log: called with the report.
  """
  values = []
  for location, content in parts.read(path if isinstance(path, Url) else Path(path), log):
    damaged = []
    for number, line in enumerate(content.removesuffix(b'\n').split(b'\n'), 1):
      try:
        values += [read(line.decode())] if content else []
      except ValueError:
        damaged.append(number)
    if damaged:
      numbers = ', '.join(map(str, damaged[:10])) + (', ...' if damaged[10:] else '')
      log(f'{location}: {len(damaged)} damaged or truncated, omitted: line {numbers}')
  return values


def read(path):
  """Return the record, a dict, in a JSON file, here or in a bucket.

  Raises:
    FileNotFoundError: there is none.
    InputError: it is damaged, or not a record; one line.
  """
  try:
    record = parse(access.read(path if isinstance(path, Url) else Path(path)))
    if not isinstance(record, dict):
      raise ValueError('it is not a JSON object')
    return remove_checksum(record)
  except InputError:
    raise
  except ValueError as error:
    raise InputError(f'{path} is damaged, or not JSON of gptjax ({error}){RESTORE}') from None


def text(record):
  """Return the content of a JSON file for `read`."""
  return json.dumps(add_checksum(record), indent=1) + '\n'


def read_or_discard(path, log=log, layout=None):
  """Like `read`, for data that can be computed again; None if the file is absent or damaged.

  A damaged file is renamed to NAME.damaged (in a bucket, copied there and removed) and reported.

  Args:
    layout: of the record, see `json_files`; None: any.
  """
  path = path if isinstance(path, Url) else Path(path)
  if not access.is_file(path):
    return None
  try:
    record = read(path)
    fault = json_files.layout_fault(record, layout or {})
    if not fault:
      return record
    why = f'{path}: {fault}'
  except Unavailable:
    raise
  except InputError as error:
    why = str(error).removesuffix(RESTORE)
  damaged = path.parent / f'{path.name}.damaged'
  if isinstance(path, Url):
    access.copy(path, damaged)
    access.remove(path)
  else:
    path.replace(damaged)
  log(f'{why}: moved to {damaged.name}; its content is computed again')
  return None
