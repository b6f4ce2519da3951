"""A task's examples as token sequences, ready for batching."""

import hashlib
from typing import NamedTuple

import numpy as np

from gptjax.command import bars
from gptjax.data.corpus import mixture as mixtures
from gptjax.data.tokenizers import special
from gptjax.errors import InputError
from gptjax.finetune import batches
from gptjax.finetune.tasks import examples, transforms
from gptjax.storage.files import access, paths

MAX_SOFT_CLASSES = 1000


class TaskData(NamedTuple):
  """The data that a task is fine-tuned and evaluated on.

  task: published.Task; name: its name.
  train: batches.Encoded; validation: {name: batches.Encoded}; test: {name: batches.Encoded} of labelled test
    sets, and of all test sets if predictions are requested.
  widths: padding widths; a test set may contain longer sequences, up to `data.seq_len`.
  soft_labels: whether numeric labels are distributions over the integers of their scale, see `load`.
  """
  name: str
  task: object
  train: batches.Encoded
  validation: dict
  test: dict
  widths: list
  soft_labels: bool = False

  @property
  def is_numeric(self):
    """Whether labels are numbers and not classes."""
    return not self.task.classes

  @property
  def is_regression(self):
    """Whether the head has one output, the number itself, trained with the squared error."""
    return self.is_numeric and not self.soft_labels

  @property
  def n_outputs(self):
    """Number of outputs of the head per sequence; 0: there is no head."""
    if self.task.kind == transforms.LANGUAGE_MODEL:
      return 0
    if self.soft_labels:
      return n_soft_classes(self.task)
    return 1 if self.is_regression or self.task.kind == 'choice' else len(self.task.classes)

  @property
  def label_masks(self):
    """{name of a predictions file: bool[n], which examples have a label} of labelled test sets."""
    masks = {file: ~np.isnan(split.labels) for file, split in self.test.items()}
    return {file: mask for file, mask in masks.items() if mask.any() and not self.task.glue}

  @property
  def digest(self):
    """SHA-256 (hex) of the training examples."""
    parts = (self.train.tokens, self.train.lengths, self.train.labels)
    return hashlib.sha256(b''.join(np.ascontiguousarray(part).tobytes() for part in parts)).hexdigest()


def load(name, task, tokenizer, config):
  """Read and encode a task.

  With `finetune.numeric_labels` = 'soft_label' a number y, y = label - the smallest label of the scale, is
  the distribution over the classes 0 ... n - 1

      p(i) = max(0, 1 - |i - y|)

  which has floor(y) + 1 - y on floor(y) and the rest on the class after it (Tai et al. 2015, section 4.2;
  GPT-1's released code has it for STS-B), and the predicted number is the expectation of i.

  Raises:
    ValueError: one line with task, split and row.
  """
  if task.kind == transforms.LANGUAGE_MODEL:
    train, validation = corpus_windows(tokenizer, config)
    return TaskData(name, task, train, {'': validation}, {}, [config.data.seq_len])
  soft_labels = config.finetune.numeric_labels == 'soft_label' and not task.classes
  if soft_labels:
    n_soft_classes(task)
  sources = [('train', task.train, True)]
  sources += [(split, (source,), True) for split, source in task.validation.items()]
  sources += [(split, (source,), False) for split, source in task.test.items()
              if _is_needed(task, source, config)]
  splits = []
  for split, parts, require_labels in sources:
    split_examples, n_unlabelled = [], 0
    for source in parts:
      part, n_part_unlabelled = examples.read(name, task, source, config, require_labels=require_labels)
      split_examples, n_unlabelled = split_examples + part, n_unlabelled + n_part_unlabelled
    split_examples = split_examples[:config.finetune.limit or None]
    splits.append(encode_examples(task, split_examples, tokenizer, config, n_unlabelled, f'{name} {split}'))
  n_first = 1 + len(task.validation)
  lengths = np.concatenate([split.max_lengths for split in splits[:n_first]])
  widths = batches.choose_widths(lengths, config.finetune.buckets, config.finetune.width_multiple,
                                 config.finetune.width_saving)
  test_names = [split for split, *_ in sources[n_first:]]
  return TaskData(name, task, splits[0], dict(zip(task.validation, splits[1:n_first])),
                  dict(zip(test_names, splits[n_first:], strict=True)),
                  [min(width, config.data.seq_len) for width in widths], soft_labels)


def _is_needed(task, source, config):
  """Whether a test source is read; GLUE's test sets and missing files are read only for predictions."""
  if config.finetune.predict or isinstance(source, examples.PUBLISHED):
    return config.finetune.predict or not task.glue
  return access.is_file(paths.location(config.finetune.data_dir) / source.file)


def corpus_windows(tokenizer, config):
  """Training and held-out split of the corpus in `config.data` as batches.Encoded, one row per window."""
  mixture = mixtures.open_mixture(*mixtures.folders_and_weights(config.data), verify=config.data.verify)
  corpus, held_out = mixture.train[0], mixture.held_out[0]
  if corpus.tokenizer['digest'] != tokenizer.digest:
    raise InputError(f'corpus {corpus.folder} was prepared with the tokenizer {corpus.tokenizer["name"]}, '
                     f'but the weights use {tokenizer.name}: prepare it again with {tokenizer.name}')
  if held_out is None:
    raise InputError(f'corpus {corpus.folder} has no held-out text for evaluation: prepare it again with a '
                     'larger --validation_fraction')
  return [_windows(split, config) for split in (corpus, held_out)]


def _windows(corpus, config):
  starts = np.arange(0, corpus.n_tokens - 1, config.data.seq_len)[:config.finetune.limit or None, None]
  lengths = np.minimum(config.data.seq_len, corpus.n_tokens - starts)
  index, labels = np.arange(len(starts)), np.zeros(len(starts), np.float32)
  return batches.Encoded(corpus.tokens(0, corpus.n_tokens), starts, lengths, labels, index)


def encode_examples(task, task_examples, tokenizer, config, n_unlabelled, title):
  """Examples as batches.Encoded; numeric labels are scaled to [-1, 1], or are y of `load`."""
  tokens, max_length = transforms.task_tokens(config.model.n_vocab), config.data.seq_len
  rows, lengths, labels, n_truncated = [], [], [], 0
  scaled = _label_scaling(task, config)
  names = special.resolve_names(tokenizer, config.data.special_tokens)
  space = ' ' if task.kind == 'choice' else ''  # a question continues its document: not "nine.When"
  encode = lambda text: np.asarray(special.encode(tokenizer, names, text), np.int32)
  for example in bars.bar(task_examples, desc=title, unit='example', leave=False):
    texts = [encode(space * (i > 0) + text) for i, text in enumerate(example.texts)]
    answers = [encode(answer) for answer in example.answers]
    sequences, truncated = transforms.make_sequences(task.kind, texts, answers, tokens, max_length)
    rows += sequences
    lengths.append([len(row) for row in sequences])
    n_truncated += truncated
    labels.append(np.nan if example.label is None else scaled(example.label))
  lengths = np.array(lengths, np.int64)
  starts = (np.cumsum(lengths) - lengths.ravel()).reshape(lengths.shape)
  return batches.Encoded(np.concatenate(rows), starts, lengths, np.array(labels, np.float32),
                         np.array([example.index for example in task_examples], np.int64),
                         n_truncated, n_unlabelled,
                         sum(not all((*example.texts, *example.answers)) for example in task_examples))


def _label_scaling(task, config):
  """Function from a label to its number in `batches.Encoded`."""
  minimum, maximum = task.scale
  if task.classes:
    return lambda label: label
  if config.finetune.numeric_labels == 'soft_label':
    return lambda label: label - minimum
  return lambda label: (label - minimum) / (maximum - minimum) * 2 - 1


def n_soft_classes(task):
  """Number of classes of a soft label: one per integer of the scale, six for STS-B."""
  minimum, maximum = task.scale
  if minimum != int(minimum) or maximum != int(maximum) or maximum - minimum >= MAX_SOFT_CLASSES:
    raise InputError("config.finetune.numeric_labels = 'soft_label' needs a scale between two integers, less "
                     f'than {MAX_SOFT_CLASSES} apart, not {task.scale}: set it to regression')
  return int(maximum - minimum) + 1


def true_numbers(data, labels):
  """float64[n]: numeric labels of `batches.Encoded` on the task's own scale."""
  low, high = data.task.scale
  labels = np.asarray(labels, np.float64)
  return labels + low if data.soft_labels else (labels + 1) / 2 * (high - low) + low


def predicted_numbers(data, outputs):
  """float64[n]: the numbers predicted by a head's outputs float[n, c], on the task's own scale."""
  outputs = np.asarray(outputs, np.float64)
  if not data.soft_labels:
    return true_numbers(data, outputs[:, 0])
  p = np.exp(outputs - outputs.max(1, keepdims=True))
  return p @ np.arange(outputs.shape[1]) / p.sum(1) + data.task.scale[0]
