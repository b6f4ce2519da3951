"""A task's examples as token sequences, ready to be batched."""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gptjax.command import bars
from gptjax.data.corpus import mixture as mixtures
from gptjax.data.tokenizers import special
from gptjax.errors import InputError
from gptjax.finetune import batches
from gptjax.finetune.tasks import examples, transforms


class Data(NamedTuple):
  """What a task is fine-tuned and measured on.

  task: tasks.Task; name: its name.
  train: batches.Encoded; validation: {name: batches.Encoded}; test: the same, of those that have labels, and
    of all if predictions are asked for.
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
  def scored(self):
    """{name of a predictions file: bool[n], which examples have a label} of test sets that have labels."""
    known = {file: ~np.isnan(one.labels) for file, one in self.test.items()}
    return {file: there for file, there in known.items() if there.any() and not self.task.glue}

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
  sources += [(split, (source,), False) for split, source in task.test.items()
              if _wanted(task, source, config)]
  splits = []
  for split, several, labelled in sources:
    found, skipped = [], 0
    for source in several:
      some, left_out = examples.read(name, task, source, config, labelled=labelled)
      found, skipped = found + some, skipped + left_out
    found = found[:config.finetune.limit or None]
    splits.append(encode(task, found, tokenizer, config, skipped, f'{name} {split}'))
  n_known = 1 + len(task.validation)
  chosen = batches.widths(np.concatenate([one.longest for one in splits[:n_known]]), config.finetune.buckets)
  return Data(name, task, splits[0], dict(zip(task.validation, splits[1:n_known])),
              {split: one for (split, *_), one in zip(sources[n_known:], splits[n_known:], strict=True)},
              [min(width, config.data.seq_len) for width in chosen])


def _wanted(task, source, config):
  """Whether a test source is read: GLUE's and files that are not there only to be predicted."""
  if config.finetune.predict or isinstance(source, examples.Tfds):
    return config.finetune.predict or not task.glue
  return (Path(config.finetune.data_dir) / source.file).exists()


def windows(tokenizer, config):
  """Both splits of the corpus that `config.data` names as batches.Encoded, a row a window."""
  mixture = mixtures.open_mixture(*mixtures.folders_and_weights(config.data), verify=config.data.verify)
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
  names = special.resolve_names(tokenizer, config.data.special_tokens)
  space = ' ' if task.kind == 'choice' else ''  # a question goes on with its document: no "nine.When"
  encoded = lambda text: np.asarray(special.encode(tokenizer, names, text), np.int32)
  for example in bars.bar(found, desc=title, unit='example', leave=False):
    texts = [encoded(space * (i > 0) + text) for i, text in enumerate(example.texts)]
    answers = [encoded(answer) for answer in example.answers]
    made, cut = transforms.sequences(task.kind, texts, answers, marks, longest)
    rows += made
    lengths.append([len(row) for row in made])
    n_cut += cut
    label = np.nan if example.label is None else example.label
    labels.append(label if task.classes else (label - low) / (high - low) * 2 - 1)
  lengths = np.array(lengths, np.int64)
  starts = (np.cumsum(lengths) - lengths.ravel()).reshape(lengths.shape)
  return batches.Encoded(np.concatenate(rows), starts, lengths, np.array(labels, np.float32),
                         np.array([example.index for example in found], np.int64), n_cut, skipped,
                         sum(not all((*example.texts, *example.answers)) for example in found))


def unscaled(task, values):
  """Numbers on the task's own scale, from [-1, 1]."""
  low, high = task.scale
  return (np.asarray(values, np.float64) + 1) / 2 * (high - low) + low
