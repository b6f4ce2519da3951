"""Labelled examples: checked texts and labels from TensorFlow Datasets, TSV or JSON lines.

A published data set (`Tfds`, `Stories`) is used as published: empty texts are kept, and unlabelled examples
are skipped where labels are required. In a user's own file both are errors.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from gptjax.errors import InputError
from gptjax.finetune.tasks import story_cloze, text_files
from gptjax.storage.files import cache, paths
from gptjax.text import text_checks


class Tfds(NamedTuple):
  """A split of a data set in TensorFlow Datasets, like ('glue/sst2', 'validation')."""
  name: str
  split: str


class Stories(NamedTuple):
  """Story Cloze of spring 2016: 'train', 'validation' or 'test', see `finetune.story_cloze_split`."""
  split: str

  @property
  def in_tfds(self):
    """The source in TensorFlow Datasets: the first four fifths of the labelled stories for training."""
    splits = {'train': 'validation[:80%]', 'validation': 'validation[80%:]', 'test': 'test'}
    return Tfds('story_cloze/2016', splits[self.split])


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


PUBLISHED = Tfds, Stories  # sources that are used as published


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
    source: Tfds, Stories, Tsv or Jsonl.
    config: the config; `data.tfds_dir`, `finetune.data_dir` and `finetune.story_cloze_split` are read.
    require_labels: whether each example needs a label; unlabelled examples of a published data set are
      skipped. If False, labels are read where they exist.

  Returns:
    ([Example, ...], int).

  Raises:
    ValueError: one line with task, split, row (from 1) and the error.
  """
  published = isinstance(source, PUBLISHED)
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
  if isinstance(source, Stories):
    if config.finetune.story_cloze_split == 'released':
      return story_cloze.records(source.split, config.finetune.data_dir, location)
    source = source.in_tfds
  if isinstance(source, Tfds):
    from gptjax.data.sources import tfds
    return _tfds(tfds, source, config.data, location)
  named = paths.parsed(config.finetune.data_dir) / source.file
  path = cache.local_file(named)
  return (text_files.tsv if isinstance(source, Tsv) else text_files.jsonl)(path, f'{location}: {named}')


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
