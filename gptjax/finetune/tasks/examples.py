"""Labelled examples: from TensorFlow Datasets, TSV or JSON lines to texts and labels, all of them checked.

A published set (`Tfds`) is used as it was published: an empty text is kept, and an example without a label
is left out where labels are needed. In a file of the user's own both are mistakes, and refused.
"""

import csv
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gptjax.errors import InputError
from gptjax.files import bounded
from gptjax.text import text_checks

LONGEST_LINE = 1 << 24  # characters of a line in a file of examples


class Tfds(NamedTuple):
  """A split of a data set of TensorFlow Datasets, like ('glue/sst2', 'validation')."""
  name: str
  split: str


class Tsv(NamedTuple):
  """A file in `config.finetune.data_dir`: a line of field names, then an example a line, with tabs between.

  Quotation marks are text, as in the files of GLUE.
  """
  file: str


class Jsonl(NamedTuple):
  """A file in `config.finetune.data_dir` with a JSON object, an example, on each line."""
  file: str


class Corpus(NamedTuple):
  """A split of the corpus that `config.data` names, in windows of `data.seq_len` tokens."""
  split: str


class Example(NamedTuple):
  """One example: its texts, the answers to choose from, its label (None: it has none), and its name."""
  texts: tuple
  answers: tuple
  label: Any
  index: int


def read(name, task, source, config, *, labelled):
  """All examples of a source, and how many were left out for want of a label.

  Args:
    name: of the task, for messages.
    task: tasks.Task.
    source: Tfds, Tsv or Jsonl.
    config: the config; `data.tfds_dir` and `finetune.data_dir` are read.
    labelled: whether each example must have its label: of a published set, those without one are left out.
      False: labels are read where there are any.

  Returns:
    ([Example, ...], int).

  Raises:
    ValueError: one line that names task, split and row (from 1) and says what is wrong with it.
  """
  published = isinstance(source, Tfds)
  split = source.split if published else source.file
  found, unlabelled, row = [], [], 0
  for record in records(source, config, f'task {name}, split {split}'):
    for part in task.unfold(record):
      row += 1
      try:
        example = _example(task, part, row, labelled, published)
      except InputError as error:
        raise InputError(f'task {name}, split {split}, row {row}: {error}') from None
      if labelled and example.label is None:
        unlabelled.append((row, part[task.label]))
        if published:
          continue
      found.append(example)
  if unlabelled and not (published and found):
    row, value = unlabelled[0]
    raise InputError(f'task {name}, split {split}, row {row}: no label ({task.label} = {value!r}): this '
                     'split cannot be trained on or measured')
  if not found:
    raise InputError(f'task {name}, split {split}: it has no examples')
  return found, len(unlabelled)


def _example(task, record, row, labelled, may_be_empty):
  texts = tuple(_text(record, field, may_be_empty) for field in task.texts)
  answers = []
  for field in task.answers:
    value = _field(record, field)
    several = value if isinstance(value, list) else [value]
    answers += [_text({field: one}, field, may_be_empty) for one in several]
  if task.kind == 'choice' and len(answers) != len(task.classes):
    raise InputError(f'{len(answers)} answers, but the task has {len(task.classes)}')
  there = labelled or record.get(task.label) is not None
  label = _label(task, _field(record, task.label)) if there else None
  return Example(texts, tuple(answers), label, _idx(record.get('idx', row - 1)))


def _idx(value):
  try:
    return int(value)
  except (ValueError, TypeError, OverflowError):
    raise InputError(f'the idx {value!r} is not a number') from None


def _field(record, field):
  if field not in record or record[field] is None:
    raise InputError(f'the field {field!r} is missing, it has {", ".join(sorted(record))}')
  return record[field]


def _text(record, field, may_be_empty):
  text = _field(record, field)
  if not isinstance(text, str):
    raise InputError(f'the field {field!r} is {type(text).__name__}, not text')
  if not text.strip() and not may_be_empty:
    raise InputError(f'the text of {field!r} is empty')
  text_checks.require_valid(text, f'the text of {field!r}')
  return text.strip()


def _label(task, value):
  """The number of a class, or a number; None where there is no label."""
  if not task.classes:
    return _number(value, task)
  if isinstance(value, str):
    if value.strip() in ('', '-', '-1'):
      return None
    if value not in task.classes:
      raise InputError(f'the label {value!r} is none of {", ".join(task.classes)}')
    return task.classes.index(value)
  if not isinstance(value, int | float) or value != value:
    raise InputError(f'the label {value!r} is not a number')
  if value < 0:
    return None
  if math.isinf(value) or value != int(value) or value >= len(task.classes):
    raise InputError(f'the label {value} is none of the {len(task.classes)} classes 0 to '
                     f'{len(task.classes) - 1}')
  return int(value)


def _number(value, task):
  low, high = task.scale
  if isinstance(value, str) and not value.strip():
    return None
  try:
    number = float(value)
  except (ValueError, TypeError):
    raise InputError(f'the label {value!r} is not a number') from None
  if low <= number <= high:
    return number
  if number < 0:
    return None
  raise InputError(f'the label {number:g} lies outside {low:g} to {high:g}')


def records(source, config, place):
  """The records of a source, dicts of str, numbers and lists of str."""
  if isinstance(source, Tfds):
    from gptjax.data.sources import tfds
    return _tfds(tfds, source, config.data, place)
  path = Path(config.finetune.data_dir) / source.file
  return (_tsv if isinstance(source, Tsv) else _jsonl)(path, f'{place}: {path}')


def _opened(path, place):
  try:
    return open(path, encoding='utf-8-sig', newline='')  # a byte-order mark is no text
  except OSError as error:
    raise InputError(f'{place}: {error.strerror} (config.finetune.data_dir)') from None


def _lines(file, place):
  """The lines of a text file (InputError for one that is too long)."""
  number = 0
  while line := file.readline(LONGEST_LINE):
    number += 1
    if len(line) == LONGEST_LINE:
      raise InputError(f'{place}: line {number} has {LONGEST_LINE:,} characters or more: cut it')
    yield line


def _tsv(path, place):
  with _opened(path, place) as file:
    try:
      lines = csv.reader(_lines(file, place), delimiter='\t', quoting=csv.QUOTE_NONE)
      head = next(lines, [])
      if len(set(head)) < len(head):
        raise InputError(f'{place}: line 1, the names of the fields, has one twice: {", ".join(head)}')
      for row in lines:
        if row and len(row) != len(head):
          raise InputError(f'{place}: line {lines.line_num} has {len(row)} of {len(head)} columns')
        if row:
          yield dict(zip(head, row))
    except (UnicodeDecodeError, csv.Error) as error:
      raise InputError(f'{place} is not a TSV file in UTF-8: {error}') from None


def _jsonl(path, place):
  with _opened(path, place) as file:
    try:
      for number, line in enumerate(_lines(file, place), 1):
        if line.strip():
          yield _object(line, f'{place}: line {number}')
    except UnicodeDecodeError as error:
      raise InputError(f'{place} is not in UTF-8: {error}') from None


def _object(line, place):
  try:
    record = bounded.parse(line)
    if not isinstance(record, dict):
      raise ValueError(f'it is {type(record).__name__}')
    return record
  except ValueError as error:
    raise InputError(f'{place} is not a JSON object ({error})') from None


def _tfds(library, source, data, place):
  builder = library.open_set(source.name, data.tfds_dir, data.tfds_download)
  try:
    builder.info.splits[source.split]
  except (KeyError, ValueError):
    raise InputError(f'{place}: data set {source.name} has no such split, it has '
                     f'{", ".join(sorted(builder.info.splits))}') from None
  for record in library.records(builder, source.split):
    yield {field: _plain(value) for field, value in record.items()}


def _plain(value):
  """Bytes as str, arrays as lists, numbers as Python's."""
  if isinstance(value, bytes):
    return value.decode(errors='replace')
  if hasattr(value, 'to_list'):  # a ragged tensor
    value = value.to_list()
  if isinstance(value, np.ndarray | list):
    return [_plain(one) for one in value]
  if isinstance(value, np.generic):
    value = value.item()
  return None if isinstance(value, float) and math.isnan(value) else value
