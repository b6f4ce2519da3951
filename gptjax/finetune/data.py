"""A task's examples as token sequences, ready to be batched."""

import hashlib
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from gptjax.data import mixture as mixtures
from gptjax.data import special
from gptjax.errors import InputError
from gptjax.finetune import batches, examples, transforms


class Data(NamedTuple):
  """What a task is fine-tuned and measured on.

  task: tasks.Task; name: its name.
  train: batches.Encoded; validation: {name: batches.Encoded}; test: the same, empty unless asked for.
  widths: what sequences are padded to; a test set may have longer ones, to `data.seq_len`.
  """
  name: str
  task: object
  train: batches.Encoded
  validation: dict
  test: dict
  widths: list

  @property
  def numeric(self):
    """Whether labels are numbers and not classes."""
    return not self.task.classes

  @property
  def outputs(self):
    """Values that the head gives for a sequence; 0: there is no head."""
    if self.task.kind == transforms.TEXT:
      return 0
    return 1 if self.numeric or self.task.kind == 'choice' else len(self.task.classes)

  @property
  def digest(self):
    """SHA-256 (hex) of the training examples."""
    parts = (self.train.tokens, self.train.lengths, self.train.labels)
    return hashlib.sha256(b''.join(np.ascontiguousarray(part).tobytes() for part in parts)).hexdigest()


def load(name, task, tokenizer, config):
  """Reads and encodes a task.

  Raises:
    ValueError: one line that names task, split and row.
  """
  if task.kind == transforms.TEXT:
    train, validation = windows(tokenizer, config)
    return Data(name, task, train, {'': validation}, {}, [config.data.seq_len])
  sources = [('train', task.train, True)]
  sources += [(split, (source,), True) for split, source in task.validation.items()]
  if config.finetune.predict:
    sources += [(split, (source,), False) for split, source in task.test.items()]
  splits = []
  for split, several, labelled in sources:
    found, skipped = [], 0
    for source in several:
      some, left_out = examples.read(name, task, source, config, labelled=labelled)
      found, skipped = found + some, skipped + left_out
    found = found[:config.finetune.limit or None]
    splits.append(encode(task, found, tokenizer, config, skipped, f'{name} {split}'))
  n_validation = len(task.validation)
  known, test = splits[:1 + n_validation], splits[1 + n_validation:]
  chosen = batches.widths(np.concatenate([one.longest for one in known]), config.finetune.buckets)
  return Data(name, task, known[0], dict(zip(task.validation, known[1:])), dict(zip(task.test, test)),
              [min(width, config.data.seq_len) for width in chosen])


def windows(tokenizer, config):
  """Both splits of the corpus that `config.data` names as batches.Encoded, a row a window."""
  mixture = mixtures.open_mixture(*mixtures.named(config.data), verify=config.data.verify)
  corpus, held_out = mixture.train[0], mixture.held_out[0]
  if corpus.tokenizer['digest'] != tokenizer.digest:
    raise InputError(f'corpus {corpus.folder} was made with the tokenizer {corpus.tokenizer["name"]}, but '
                     f'the weights have {tokenizer.name}: prepare it again with that one')
  if held_out is None:
    raise InputError(f'corpus {corpus.folder} holds no text out to measure on: prepare it again with a '
                     'larger --validation_fraction')
  return [_windows(split, config) for split in (corpus, held_out)]


def _windows(corpus, config):
  starts = np.arange(0, corpus.n_tokens - 1, config.data.seq_len)[:config.finetune.limit or None, None]
  lengths = np.minimum(config.data.seq_len, corpus.n_tokens - starts)
  index, labels = np.arange(len(starts)), np.zeros(len(starts), np.float32)
  return batches.Encoded(corpus.tokens(0, corpus.n_tokens), starts, lengths, labels, index)


def encode(task, found, tokenizer, config, skipped, title):
  """Examples as batches.Encoded; labels that are numbers are scaled to [-1, 1]."""
  marks, longest = transforms.marks(config.model.n_vocab), config.data.seq_len
  rows, lengths, labels, n_cut = [], [], [], 0
  low, high = task.scale
  names = special.named(tokenizer, config.data.special_tokens)
  for example in tqdm(found, desc=title, unit='example', leave=False, disable=None, mininterval=0.5):
    texts = [special.encode(tokenizer, names, text) for text in example.texts]
    answers = [special.encode(tokenizer, names, answer) for answer in example.answers]
    made, cut = transforms.sequences(task.kind, texts, answers, marks, longest)
    rows += made
    lengths.append([len(row) for row in made])
    n_cut += cut
    label = np.nan if example.label is None else example.label
    labels.append(label if task.classes else (label - low) / (high - low) * 2 - 1)
  lengths = np.array(lengths, np.int64)
  starts = (np.cumsum(lengths) - lengths.ravel()).reshape(lengths.shape)
  return batches.Encoded(np.concatenate(rows), starts, lengths, np.array(labels, np.float32),
                         np.array([example.index for example in found], np.int64), n_cut, skipped)


def unscaled(task, values):
  """Numbers on the task's own scale, from [-1, 1]."""
  low, high = task.scale
  return (np.asarray(values, np.float64) + 1) / 2 * (high - low) + low
