"""Where the examples of a task come from: TFDS folders that are prepared, and the sets' own files.

Nothing is downloaded here: an evaluation must not depend on a network, and what is scored should be a file
that one can look at. What is absent is named with the place where to get it.
"""

import glob
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from gptjax.data.sources import tfds, tfds_folder
from gptjax.errors import InputError
from gptjax.evaluate.texts import schema as schemas
from gptjax.files import bounded
from gptjax.text import text_checks

ANYWHERE = ('', '*', '*/*')  # how deep below data_dir a file may lie


class NotRun(Exception):
  """A task cannot be run; the message says why, and where to get what is missing."""


def ignore(line):
  """A `Data.note` that nobody reads."""
  del line


class Data(NamedTuple):
  """Where to look.

  data_dir: folder of published files; '' for none.
  tfds_dir: where tensorflow_datasets keeps its sets; '' for its own default.
  limit: take the first so many examples; 0: all.
  corpora: (folder, weight) of prepared corpora whose validation splits are read.
  seq_len: tokens of a window of these; 0: the model's context.
  note: function of a line, called where a set differs from the published one.
  """
  data_dir: str
  tfds_dir: str
  limit: int
  corpora: tuple = ()
  seq_len: int = 0
  note: Callable[[str], None] = ignore

  def some(self, examples):
    return examples[:self.limit] if self.limit else examples


def find(data, *names):
  """The Path of the first of these files that lies in data_dir or up to two folders below it; None.

  Args:
    names: like 'wikitext-2-raw/wiki.test.raw'; those named first are preferred.
  """
  for name in names if data.data_dir else ():
    for folder in ANYWHERE:
      found = sorted(glob.glob(str(Path(glob.escape(str(Path(data.data_dir).expanduser()))) / folder / name)))
      files = [path for path in map(Path, found) if path.is_file()]
      if files:
        return files[0]
  return None


def read_text(path, note=ignore):
  """The text of a UTF-8 file, without a byte-order mark.

  Published files end their lines with LF. A copy in which lines end with CRLF, all or some, has been
  converted: it is read as it was before, which is noted. Other CRs belong to the text.

  Raises:
    InputError: the file is not UTF-8, has a NUL byte, or holds only white space.
  """
  return decoded(path, path.read_bytes(), note)


def decoded(path, raw, note=ignore, cut=False):
  """The text of the bytes of a file, see `read_text`; `cut`: the last character may be incomplete."""
  try:
    text = raw.decode('utf-8-sig')
  except UnicodeDecodeError as error:
    if not cut or error.end < len(raw):
      raise InputError(f'{path}: byte {error.start} is not UTF-8 ({error.reason})') from None
    text = raw[:error.start].decode('utf-8-sig')
  if '\0' in text:
    raise InputError(f'{path}:{text[:text.index(chr(0))].count(chr(10)) + 1}: a NUL byte, which no text has: '
                     'get the file again')
  if not text.strip():
    raise InputError(f'{path} holds no text: get the published file again')
  return converted(path, text, note)


def converted(path, text, note):
  """The text (str, or bytes) with LF in place of CRLF."""
  crlf, lf = ('\r\n', '\n') if isinstance(text, str) else (b'\r\n', b'\n')
  found, lines = text.count(crlf), text.count(lf)
  if not found:
    return text
  some = '' if found == lines else f'{found:,} of {lines:,} '
  note(f'{path} has {some}line ends CRLF, read as LF, which the published file has')
  return text.replace(crlf, lf)


def read_jsonl(data, path, schema):
  """[object of each line] of a file, each as its schema says.

  Args:
    data: Data.
    path: of the file.
    schema: schema.Schema.

  Raises:
    InputError: names the line.
  """
  records, blanks = [], 0
  for number, line in enumerate(read_text(path).split('\n'), 1):
    if not line.strip():
      continue
    place = f'{path}:{number}'
    try:
      record = bounded.parse(line)
    except ValueError as error:
      raise InputError(f'{place}: not a JSON object ({error})') from None
    text_checks.require_valid_json(record, place)
    blanks += schemas.check(schema, record, place)
    records.append(record)
  schemas.report(schema, len(records), blanks, path, data.note)
  schemas.note_digest(schema.sha256, path.read_bytes(), path, data.note)
  return records


def read_json(path):
  """The content of a JSON file (InputError if it is none)."""
  text = read_text(path)
  try:
    found = bounded.parse(text, bounded.MANY)
  except ValueError as error:
    raise InputError(f'{path}: not JSON ({error})') from None
  text_checks.require_valid_json(found, str(path))
  return found


def from_tfds(data, name, split, schema):
  """[{field: value}] of a split of a TFDS set that is prepared, strings as str, in stored order; None.

  Raises:
    InputError: a record is not UTF-8, or not as the schema says; there is none.
  """
  if not _prepared(data, name):
    return None
  records = tfds.read_records(tfds.open_dataset(name, data.tfds_dir), split)
  found, blanks = [], 0
  for number, record in enumerate(itertools.islice(records, data.limit or None)):
    place = f'data set {name}, split {split}, record {number}'
    try:
      found.append(_strings(record))
    except UnicodeDecodeError as error:
      raise InputError(f'{place}: not UTF-8 ({error.reason})') from None
    blanks += schemas.check(schema, found[-1], place)
  n = None if data.limit and len(found) == data.limit else len(found)
  schemas.report(schema, n, blanks, f'data set {name}, split {split},', data.note)
  return found


def _prepared(data, name):
  """Whether a set is there; without TensorFlow, which takes seconds to load."""
  return tfds_folder.find_folder(name, data.tfds_dir) is not None


def _strings(value):
  if isinstance(value, bytes):
    return value.decode()
  if isinstance(value, dict):
    return {name: _strings(inner) for name, inner in value.items()}
  if hasattr(value, 'to_list'):  # a ragged tensor
    return _strings(value.to_list())
  if isinstance(value, list):
    return [_strings(inner) for inner in value]
  if getattr(getattr(value, 'dtype', None), 'kind', '') == 'O':
    return [_strings(inner) for inner in value.tolist()]
  return value.tolist() if hasattr(value, 'tolist') else value


def where(name, url, *names, tfds=''):
  """The message of NotRun: what to get, and where to put it."""
  files = ' or '.join(f'DATA_DIR/{file}' for file in names)
  ways = [f'`tfds build {tfds}` (--config.data.tfds_dir)'] if tfds else []
  ways += [f'{files} from {url} (--config.eval.data_dir)'] if names else []
  return f'{name} is not there: {", or ".join(ways)}'
