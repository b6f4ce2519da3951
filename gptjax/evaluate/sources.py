"""Where the examples of a task come from: TFDS folders that are prepared, and the sets' own files.

Nothing is downloaded here: an evaluation must not depend on a network, and what is scored should be a file
that one can look at. What is absent is named with the place where to get it.
"""

import glob
import itertools
import json
from pathlib import Path
from typing import NamedTuple

from gptjax import text_checks
from gptjax.data import tfds_source
from gptjax.errors import InputError

ANYWHERE = ('', '*', '*/*')  # how deep below data_dir a file may lie


class NotRun(Exception):
  """A task cannot be run; the message says why, and where to get what is missing."""


class Data(NamedTuple):
  """Where to look.

  data_dir: folder of published files; '' for none.
  tfds_dir: where tensorflow_datasets keeps its sets; '' for its own default.
  limit: take the first so many examples; 0: all.
  """
  data_dir: str
  tfds_dir: str
  limit: int

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


def read_text(path):
  """The text of a UTF-8 file, its line ends as they are (ValueError if it is not UTF-8)."""
  try:
    return path.read_bytes().decode()
  except UnicodeDecodeError as error:
    raise InputError(f'{path}: byte {error.start} is not UTF-8 ({error.reason})') from None


def read_jsonl(path, fields):
  """[object of each line] of a file; ValueError with its line for one that lacks a field."""
  records = []
  for number, line in enumerate(read_text(path).split('\n'), 1):
    if not line.strip():
      continue
    try:
      record = json.loads(line)
      missing = [field for field in fields if field not in record]
    except (ValueError, TypeError, RecursionError) as error:
      raise InputError(f'{path}:{number}: not a JSON object ({error})') from None
    text_checks.require_sound_json(record, f'{path}:{number}')
    if missing:
      raise InputError(f'{path}:{number}: no field {missing[0]!r}, it has {sorted(record)}')
    records.append(record)
  return records


def read_json(path):
  """The content of a JSON file (ValueError if it is none)."""
  text = read_text(path)
  try:
    found = json.loads(text)
  except (ValueError, RecursionError) as error:
    raise InputError(f'{path}: not JSON ({error})') from None
  text_checks.require_sound_json(found, str(path))
  return found


def from_tfds(data, name, split):
  """[{field: value}] of a split of a TFDS set that is prepared, strings as str, in stored order; None."""
  if not _prepared(data, name):
    return None
  records = tfds_source.records(tfds_source.open_set(name, data.tfds_dir), split)
  found = []
  for number, record in enumerate(itertools.islice(records, data.limit or None)):
    try:
      found.append(_strings(record))
    except UnicodeDecodeError as error:
      where_it_is = f'data set {name}, split {split}, record {number}'
      raise InputError(f'{where_it_is}: not UTF-8 ({error.reason})') from None
  return found


def _prepared(data, name):
  """Whether the folder of a set is there; without TensorFlow, which takes seconds to load."""
  root = Path(data.tfds_dir or '~/tensorflow_datasets').expanduser()
  return any((root / name).glob('*/dataset_info.json')) or any((root / name).glob('*/*/dataset_info.json'))


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
