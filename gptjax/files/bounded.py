"""Files and JSON from anyone, read within limits.

JSON takes up to thirty times its size once it is parsed: `[[],[],...]` of 60 MB becomes 1.5 GB. What makes it
large is the number of values, which is counted before anything is parsed.
"""

import json
import re

from gptjax.errors import InputError

FILE = 1 << 26    # bytes of a small file: a tokenizer, the description of a data set
VALUES = 1 << 20  # values in a JSON object, such as a document with its fields: about 300 MB at most
MANY = 1 << 22    # values in a whole file, such as a vocabulary with its merges
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)


def read(path, most=FILE):
  """The bytes of a file (anything with `open`, such as a pathlib.Path).

  Raises:
    InputError: it has more than `most` bytes.
    OSError: it cannot be read.
  """
  with path.open('rb') as file:
    content = file.read(most + 1)
  if len(content) > most:
    raise InputError(f'{path} has more than {most:,} bytes: it is not the file that its name says')
  return content


def parse(text, most=VALUES, **options):
  """The value of JSON text (str or bytes); `options` are those of `json.loads`.

  Raises:
    ValueError: it is not JSON in UTF-8, is nested too deeply, or has more than `most` values.
  """
  raw = text if isinstance(text, bytes) else text.encode('utf-8', 'surrogatepass')
  if len(raw) > most and _marks(raw) > most and _marks(_STRING.sub(b'', raw)) > most:
    raise ValueError(f'it has more than {most:,} values')
  try:
    return json.loads(raw.decode() if isinstance(text, bytes) else text, **options)
  except RecursionError:
    raise ValueError('it is nested too deeply') from None


def _marks(raw):
  """How many marks there are that values stand behind; empty lists and objects have one of their own, too."""
  return sum(map(raw.count, (b',', b'[', b'{', b':')))
