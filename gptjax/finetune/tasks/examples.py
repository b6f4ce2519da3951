"""Labelled examples: checked texts and labels from TensorFlow Datasets, TSV or JSON lines.

A published data set (`Tfds`) is used as published: empty texts are kept, and unlabelled examples are skipped
where labels are required. In a user's own file both are errors.
"""

import csv
import math
from typing import Any, NamedTuple

import numpy as np

from gptjax.errors import InputError
from gptjax.storage.files import bounded, cache, local, paths
from gptjax.text import text_checks

MAX_LINE = 1 << 24  # characters per line in a file of examples


class Tfds(NamedTuple):
  """A split of a data set in TensorFlow Datasets, like ('glue/sst2', 'validation')."""
  name: str
  split: str


class Tsv(NamedTuple):
  """A TSV file in `config.finetune.data_dir`: a line of field names, then one example per line.

  Quotation marks are part of the text, as in the files of GLUE.
  """
  file: str


class Jsonl(NamedTuple):
  """A file in `config.finetune.data_dir` with one JSON object, an example, per line."""
  file: str


class Corpus(NamedTuple):
  """A split of the corpus in `config.data`, in windows of `data.seq_len` tokens."""
  split: str


class Example(NamedTuple):
  """An example: its texts, the answers to choose from, its label (None: unlabelled), and its identifier."""
  texts: tuple
  answers: tuple
  label: Any
  index: int


def read(name, task, source, config, *, require_labels):
  """All examples of a source, and the number of unlabelled examples that were skipped.

  Args:
    name: of the task, for messages.
    task: published.Task.
    source: Tfds, Tsv or Jsonl.
    config: the config; `data.tfds_dir` and `finetune.data_dir` are read.
    require_labels: whether each example needs a label; unlabelled examples of a published data set are
      skipped. If False, labels are read where they exist.

  Returns:
    ([Example, ...], int).

  Raises:
    ValueError: one line with task, split, row (from 1) and the error.
  """
  published = isinstance(source, Tfds)
  split = source.split if published else source.file
  examples, unlabelled, row = [], [], 0
  for record in read_records(source, config, f'task {name}, split {split}'):
    for part in task.unfold(record):
      row += 1
      try:
        example = _example(task, part, row, require_labels, published)
      except InputError as error:
        raise InputError(f'task {name}, split {split}, row {row}: {error}') from None
      if require_labels and example.label is None:
        unlabelled.append((row, part[task.label]))
        if published:
          continue
      examples.append(example)
  if unlabelled and not (published and examples):
    row, value = unlabelled[0]
    raise InputError(f'task {name}, split {split}, row {row}: no label ({task.label} = {value!r}): this '
                     'split cannot be used for training or evaluation')
  if not examples:
    raise InputError(f'task {name}, split {split}: it has no examples')
  return examples, len(unlabelled)


def _example(task, record, row, require_labels, allow_empty):
  """The checked Example of a record."""
  texts = tuple(_text(record, field, allow_empty) for field in task.texts)
  answers = []
  for field in task.answers:
    value = _field(record, field)
    values = value if isinstance(value, list) else [value]
    answers += [_text({field: text}, field, allow_empty) for text in values]
  if task.kind == 'choice' and len(answers) != len(task.classes):
    raise InputError(f'{len(answers)} answers, but the task has {len(task.classes)} classes')
  has_label = require_labels or record.get(task.label) is not None
  label = _label(task, _field(record, task.label)) if has_label else None
  return Example(texts, tuple(answers), label, _idx(record.get('idx', row - 1)))


def _idx(value):
  """The value of the field 'idx' as an int."""
  try:
    number = int(value)
    np.int64(number)  # OverflowError: it does not fit
    return number
  except (ValueError, TypeError, OverflowError):
    raise InputError(f'the idx {value!r} is not a number') from None


def _field(record, field):
  """The value of a field (InputError if it is missing)."""
  if field not in record or record[field] is None:
    raise InputError(f'the field {field!r} is missing; the fields are {", ".join(sorted(record))}')
  return record[field]


def _text(record, field, allow_empty):
  """The stripped text of a field, checked."""
  text = _field(record, field)
  if not isinstance(text, str):
    raise InputError(f'the field {field!r} is {type(text).__name__}, not text')
  if not text.strip() and not allow_empty:
    raise InputError(f'the text of {field!r} is empty')
  text_checks.require_valid(text, f'the text of {field!r}')
  return text.strip()


def _label(task, value):
  """The class number or the value of a label; None if the example is unlabelled."""
  if not task.classes:
    return _number(value, task)
  if isinstance(value, str):
    if value not in task.classes and value.strip() in ('', '-', '-1'):
      return None
    if value not in task.classes:
      raise InputError(f'the label {value!r} is not one of {", ".join(task.classes)}')
    return task.classes.index(value)
  if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
    raise InputError(f'the label {value!r} is not a number')
  if value < 0:
    return None
  if value >= len(task.classes) or value != int(value):
    raise InputError(f'the label {value} is not one of the {len(task.classes)} classes 0 to '
                     f'{len(task.classes) - 1}')
  return int(value)


def _number(value, task):
  """The value of a numeric label; None if the example is unlabelled."""
  minimum, maximum = task.scale
  if isinstance(value, str) and not value.strip():
    return None
  try:
    number = float(value)
  except (ValueError, TypeError, OverflowError):
    raise InputError(f'the label {str(value)[:80]!r} is not a number') from None
  if minimum <= number <= maximum:
    return number
  if number < 0:
    return None
  raise InputError(f'the label {number:g} is outside the range {minimum:g} to {maximum:g}')


def read_records(source, config, location):
  """The records of a source: dicts of str, numbers and lists of str."""
  if isinstance(source, Tfds):
    from gptjax.data.sources import tfds
    return _tfds(tfds, source, config.data, location)
  named = paths.parsed(config.finetune.data_dir) / source.file
  path = cache.local_file(named)
  return (_tsv if isinstance(source, Tsv) else _jsonl)(path, f'{location}: {named}')


def _open_text(path, location):
  """The opened text file (InputError if that fails)."""
  try:
    return local.opened(path, 'r', encoding='utf-8-sig', newline='')  # removes a byte-order mark
  except OSError as error:
    raise InputError(f'{location}: {error.strerror} (config.finetune.data_dir)') from None


def _lines(file, location):
  """Yield the lines of a text file (InputError for a line that is too long)."""
  number = 0
  while line := file.readline(MAX_LINE):
    number += 1
    if len(line) == MAX_LINE:
      raise InputError(f'{location}: line {number} has {MAX_LINE:,} characters or more: shorten it')
    yield line


def _tsv(path, location):
  """Yield the records of a TSV file."""
  with _open_text(path, location) as file:
    try:
      lines = csv.reader(_lines(file, location), delimiter='\t', quoting=csv.QUOTE_NONE)
      head = next(lines, [])
      if len(set(head)) < len(head):
        raise InputError(f'{location}: line 1, the field names, contains a name twice: {", ".join(head)}')
      for row in lines:
        if row and len(row) != len(head):
          raise InputError(f'{location}: line {lines.line_num} has {len(row)} of {len(head)} columns')
        if row:
          yield dict(zip(head, row))
    except (UnicodeDecodeError, csv.Error) as error:
      raise InputError(f'{location} is not a TSV file in UTF-8: {error}') from None


def _jsonl(path, location):
  """Yield the records of a file with JSON lines."""
  with _open_text(path, location) as file:
    try:
      for number, line in enumerate(_lines(file, location), 1):
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


def _tfds(library, source, data, location):
  """Yield the records of a split in TensorFlow Datasets."""
  builder = library.open_dataset(source.name, data.tfds_dir, data.tfds_download)
  try:
    builder.info.splits[source.split]
  except (KeyError, ValueError):
    raise InputError(f'{location}: data set {source.name} has no such split; the splits are '
                     f'{", ".join(sorted(builder.info.splits))}') from None
  for record in library.read_records(builder, source.split):
    yield {field: _plain(value) for field, value in record.items()}


def _plain(value):
  """The value with bytes as str, arrays as lists, and NumPy scalars as Python numbers."""
  if isinstance(value, bytes):
    return value.decode(errors='replace')
  if hasattr(value, 'to_list'):  # a ragged tensor
    value = value.to_list()
  if isinstance(value, np.ndarray | list):
    return [_plain(item) for item in value]
  if isinstance(value, np.generic):
    value = value.item()
  return None if isinstance(value, float) and math.isnan(value) else value
