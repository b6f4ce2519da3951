"""Untrusted files and JSON, read within limits.

Parsed JSON takes up to thirty times the size of its text: `[[],[],...]` of 60 MB becomes 1.5 GB. The memory
depends on the number of values, which is counted before parsing.
"""

import json
import re

from gptjax.errors import InputError

MAX_FILE_BYTES = 1 << 26   # of a small file: a tokenizer, the description of a data set
MAX_VALUES = 1 << 20       # in a JSON object, such as a document with its fields: about 300 MB at most
MAX_FILE_VALUES = 1 << 22  # in a whole file, such as a vocabulary with its merges
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)


def read(path, max_bytes=MAX_FILE_BYTES):
  """Return the bytes of a file (anything with `open`, such as a pathlib.Path).

  Raises:
    InputError: it has more than `max_bytes` bytes.
    OSError: it cannot be read.
  """
  with path.open('rb') as file:
    content = file.read(max_bytes + 1)
  if len(content) > max_bytes:
    raise InputError(f'{path} has more than {max_bytes:,} bytes: such a file is not read')
  return content


def parse(text, max_values=MAX_VALUES, **options):
  """Return the value of JSON text (str or bytes); `options` are those of `json.loads`.

  Raises:
    ValueError: it is not JSON in UTF-8, is nested too deeply, or has more than `max_values` values.
  """
  raw = text if isinstance(text, bytes) else text.encode('utf-8', 'surrogatepass')
  if (len(raw) > max_values and _separators(raw) > max_values
      and _separators(_STRING.sub(b'', raw)) > max_values):
    raise ValueError(f'it has more than {max_values:,} values')
  try:
    return json.loads(raw.decode() if isinstance(text, bytes) else text, **options)
  except RecursionError:
    raise ValueError('it is nested too deeply') from None
  except json.JSONDecodeError:
    raise
  except ValueError as error:
    if 'integer string conversion' in str(error):  # Python's message says how to change its limit
      raise ValueError('it has a number of too many digits') from None
    raise


def _separators(raw):
  """Return the number of commas, colons and opening brackets, an upper bound of the number of values."""
  return sum(map(raw.count, (b',', b'[', b'{', b':')))
