"""Sources of the examples of tasks: prepared TFDS folders and the published files of data sets.

Nothing is downloaded: an evaluation must not depend on a network, and its data should be a file that can be
inspected. The message about a missing set says where to get it.
"""

import fnmatch
import itertools
from collections.abc import Callable
from typing import NamedTuple

from gptjax.data.sources import tfds, tfds_folder
from gptjax.errors import InputError
from gptjax.evaluate.texts import schema as schemas
from gptjax.storage.files import access, bounded, buckets, cache, local, paths
from gptjax.storage.files.paths import Url
from gptjax.text import text_checks

SEARCH_DEPTHS = ('', '*', '*/*')  # folders below data_dir that are searched


class NotRun(Exception):
  """A task cannot be run; the message says why, and where to get missing data."""


def ignore_note(line):
  """The default of `DataOptions.note`, which discards the line."""
  del line


class DataOptions(NamedTuple):
  """Where the data of tasks is, and how much of it to read.

  data_dir: folder of published files, here or in a bucket; '' for none.
  tfds_dir: data folder of tensorflow_datasets; '' for its default.
  limit: number of examples to read, from the first; 0: all.
  corpora: (folder, weight) of prepared corpora whose validation splits are read.
  seq_len: tokens per window of these; 0: the model's context.
  note: function that takes a line, called when a set differs from the published one.
  """
  data_dir: str
  tfds_dir: str
  limit: int
  corpora: tuple = ()
  seq_len: int = 0
  note: Callable[[str], None] = ignore_note

  def limited(self, examples):
    return examples[:self.limit] if self.limit else examples


def find_file(data, *names):
  """Return the Path of the first of these files in data_dir or up to two folders below it, or None.

  Of a file in a bucket, it is a copy.

  Args:
    data: DataOptions.
    names: like 'wikitext-2-raw/wiki.test.raw', in order of preference.
  """
  for name in names:
    if files := _found(data, name):
      return cache.local_file(files[0])
  return None


def find_files(data, pattern):
  """Return the sorted Paths of all files that match, like 'blimp/*.jsonl', in the same folders."""
  return [cache.local_file(file) for file in _found(data, pattern)]


def _found(data, pattern):
  for folder in SEARCH_DEPTHS if data.data_dir else ():
    if files := _matching(paths.location(data.data_dir), f'{folder}/{pattern}'.lstrip('/')):
      return files
  return []


def _matching(folder, pattern):
  """Return the sorted files below a folder, a Path or a Url, whose name matches a pattern of `glob`."""
  if not isinstance(folder, Url):
    return list(filter(access.is_file, local.matching(folder, pattern)))
  parts = pattern.split('/')
  return [folder / name for name in buckets.find(folder)
          if len(name.split('/')) == len(parts) and all(map(fnmatch.fnmatchcase, name.split('/'), parts))]


def read_text(path, note=ignore_note):
  """Return the text of a UTF-8 file, without a byte-order mark.

  Published files have LF line ends. A file with CRLF line ends is a converted copy: CRLF is read as LF, and
  a note reports this. Other CRs belong to the text.

  Raises:
    InputError: the file is not UTF-8, has a NUL byte, or has only white space.
  """
  return decode(path, local.content(path), note)


def decode(path, raw, note=ignore_note, allow_truncated=False):
  """Decode the bytes of a file, as `read_text`; `allow_truncated`: the last character may be incomplete."""
  try:
    text = raw.decode('utf-8-sig')
  except UnicodeDecodeError as error:
    if not allow_truncated or error.end < len(raw):
      raise InputError(f'{path}: byte {error.start} is not UTF-8 ({error.reason})') from None
    text = raw[:error.start].decode('utf-8-sig')
  if '\0' in text:
    raise InputError(f'{path}:{text[:text.index(chr(0))].count(chr(10)) + 1}: a NUL byte in a text: '
                     'get the file again')
  if not text.strip():
    raise InputError(f'{path} has no text: get the published file again')
  return with_lf_line_ends(path, text, note)


def with_lf_line_ends(path, text, note):
  """Return the text (str or bytes) with LF in place of CRLF, and note the replacement."""
  crlf, lf = ('\r\n', '\n') if isinstance(text, str) else (b'\r\n', b'\n')
  n_crlf, n_lf = text.count(crlf), text.count(lf)
  if not n_crlf:
    return text
  count = '' if n_crlf == n_lf else f'{n_crlf:,} of {n_lf:,} '
  note(f'{path} has {count}CRLF line ends; the published file has LF, so they are read as LF')
  return text.replace(crlf, lf)


def read_jsonl(data, path, schema):
  """Return [object of each line] of a file, each checked against a schema.

  Args:
    data: DataOptions.
    path: of the file.
    schema: schema.Schema.

  Raises:
    InputError: a line is not such an object; the message has its number.
  """
  records, blanks = [], 0
  for number, line in enumerate(read_text(path).split('\n'), 1):
    if not line.strip():
      continue
    location = f'{path}:{number}'
    try:
      record = bounded.parse(line)
    except ValueError as error:
      raise InputError(f'{location}: not a JSON object ({error}): get the published file again') from None
    text_checks.require_valid_json(record, location)
    blanks += schemas.check_record(schema, record, location)
    records.append(record)
  schemas.check_count(schema, len(records), blanks, path, data.note)
  schemas.note_digest(schema.sha256, local.content(path), path, data.note)
  return records


def read_json(path):
  """Return the content of a JSON file (raises InputError if it is not JSON)."""
  text = read_text(path)
  try:
    content = bounded.parse(text, bounded.MAX_FILE_VALUES)
  except ValueError as error:
    raise InputError(f'{path}: not JSON ({error}): get the published file again') from None
  text_checks.require_valid_json(content, str(path))
  return content


def read_tfds(data, name, split, schema):
  """Return [{field: value}] of a split of a prepared TFDS set, strings as str, in stored order.

  Returns None if the set is not prepared.

  Raises:
    InputError: a record is not UTF-8 or does not fit the schema, or there are no records.
  """
  if not _is_prepared(data, name):
    return None
  records = tfds.read_records(tfds.open_dataset(name, data.tfds_dir), split)
  examples, blanks = [], 0
  for number, record in enumerate(itertools.islice(records, data.limit or None)):
    location = f'data set {name}, split {split}, record {number}'
    try:
      examples.append(_strings(record))
    except UnicodeDecodeError as error:
      raise InputError(f'{location}: not UTF-8 ({error.reason})') from None
    blanks += schemas.check_record(schema, examples[-1], location)
  n = None if data.limit and len(examples) == data.limit else len(examples)
  schemas.check_count(schema, n, blanks, f'data set {name}, split {split},', data.note)
  return examples


def _is_prepared(data, name):
  """Whether a set is prepared; does not import TensorFlow, which takes seconds."""
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


def not_found_message(name, url, *names, tfds=''):
  """Return the message of NotRun for a missing set: where to get it and where to put it."""
  ways = [f'run `tfds build {tfds}` and give its folder as --config.data.tfds_dir'] if tfds else []
  ways += [f'put {" or ".join(names)} from {url} into the folder --config.eval.data_dir'] if names else []
  return f'{name} is missing: {", or ".join(ways)}'
