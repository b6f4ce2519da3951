"""Batches of sequences, padded to one of a few widths: random batches, or batches bucketed by length.

The paper uses random batches. Bucketed batches have less padding, but are not random samples. The examples of
batch s are a pure function of the lengths, the widths, the seed and s, independent of the number of hosts and
devices, so that a run can resume at any step.
"""

import functools
from typing import NamedTuple

import numpy as np

from gptjax.data.corpus import order


class Encoded(NamedTuple):
  """Examples as token sequences, g sequences per example.

  tokens: int32[...], all sequences concatenated.
  starts: int64[n, g], offset of each sequence; lengths: int64[n, g].
  labels: float32[n], class numbers or values; nan: no label.
  index: int64[n], identifiers of the examples.
  n_truncated: number of examples that were too long; n_unlabelled: number of examples that were skipped
    because they have no label; n_empty: number of examples with an empty text.
  """
  tokens: np.ndarray
  starts: np.ndarray
  lengths: np.ndarray
  labels: np.ndarray
  index: np.ndarray
  n_truncated: int = 0
  n_unlabelled: int = 0
  n_empty: int = 0

  @property
  def max_lengths(self):
    """int64[n]: length of the longest sequence of each example."""
    return self.lengths.max(1)


def choose_widths(lengths, max_widths, multiple, min_saving):
  """The padding widths, at most `max_widths`, that minimize padding and are large enough for all sequences.

  Args:
    lengths: int[n], tokens of each sequence.
    max_widths: maximum number of widths.
    multiple: of which every width is one.
    min_saving: share of all padded tokens that another width must save.

  Returns:
    Ascending list.
  """
  size, count = np.unique(-(-np.asarray(lengths) // multiple) * multiple, return_counts=True)
  n_shorter = np.concatenate([[0], np.cumsum(count)])
  # cost[j]: padded tokens of the j shortest sizes with the widths so far. Each iteration adds a width.
  cost, choices_per_width = np.where(n_shorter == 0, 0.0, np.inf), []
  for _ in range(min(max_widths, len(size))):
    previous_cost = cost[-1]
    new_cost = cost[:, None] + size[None] * (n_shorter[None, 1:] - n_shorter[:, None])
    new_cost[np.arange(len(n_shorter))[:, None] > np.arange(len(size))[None]] = np.inf
    if choices_per_width and new_cost[:, -1].min() > (1 - min_saving) * previous_cost:
      break
    choices_per_width.append(new_cost.argmin(0))
    cost = np.concatenate([[0.0], new_cost.min(0)])
  chosen, j = [], len(size)
  for choices in reversed(choices_per_width):
    if j:
      chosen.append(int(size[j - 1]))
      j = int(choices[j - 1])
  return chosen[::-1]


class BatchSchedule:
  """The examples and the width of each batch of a run.

  Each epoch contains every example once; its last batch may be smaller. Without `by_length` a batch is a
  random sample, padded to the width of its longest example. With it, a batch holds examples of one width as
  far as possible, and the remaining examples of all widths are combined.
  """

  def __init__(self, max_lengths, widths, batch_size, seed, by_length=False):
    self.bucket = np.searchsorted(widths, max_lengths)
    self.widths, self.batch_size, self.seed, self.by_length = widths, batch_size, seed, by_length
    full = np.bincount(self.bucket, minlength=len(widths)) // batch_size if by_length else np.zeros(1, int)
    self.per_epoch = int(full.sum()) + -(-(len(max_lengths) - int(full.sum()) * batch_size) // batch_size)
    self.epoch = functools.lru_cache(2)(self._epoch)

  def _epoch(self, epoch):
    """[(examples int64[m], width), ...] of an epoch, in random order."""
    n = len(self.bucket)
    shuffled = order.permute(np.arange(n), n, 'examples', self.seed, epoch)
    batches = self._bucketed(shuffled, epoch) if self.by_length else self._split(shuffled)
    return [(examples, self.widths[self.bucket[examples].max()]) for examples in batches]

  def _split(self, examples):
    return [examples[start:start + self.batch_size] for start in range(0, len(examples), self.batch_size)]

  def _bucketed(self, shuffled, epoch):
    batches, remaining = [], []
    for bucket in range(len(self.widths)):
      members = shuffled[self.bucket[shuffled] == bucket]
      n_full = len(members) // self.batch_size * self.batch_size
      batches += self._split(members[:n_full])
      remaining.append(members[n_full:])
    batches += self._split(np.concatenate(remaining))
    positions = order.permute(np.arange(len(batches)), len(batches), 'batches', self.seed, epoch)
    return [batches[i] for i in positions]

  def __call__(self, step):
    """(examples int64[m], width) of batch `step` of the run."""
    epoch, position = divmod(step, self.per_epoch)
    return self.epoch(epoch)[position]


def used_widths(schedule, steps):
  """The ascending widths of the batches of the first `steps` steps."""
  used = set()
  for step in range(steps):
    if len(used) == len(schedule.widths):
      break
    used.add(schedule(step)[1])
  return sorted(used)


def evaluation_batches(max_lengths, widths, batch_size):
  """[(examples, width), ...]: each example once, longest first."""
  by_length = np.argsort(-max_lengths, kind='stable')
  bucket = np.searchsorted(widths, max_lengths)
  return [(rows, widths[bucket[rows].max()])
          for rows in (by_length[start:start + batch_size] for start in range(0, len(by_length), batch_size))]


def make_batch(encoded, examples, width, batch_size, rows):
  """One batch as arrays; rows without an example have weight 0.

  Args:
    encoded: Encoded.
    examples: int64[m], m at most batch_size.
    width: tokens per sequence.
    batch_size: examples in the batch, over all hosts.
    rows: slice of the batch that this host holds.

  Returns:
    {'tokens': int32[b, g, width], 'lengths': int32[b, g], 'labels': float32[b], 'weights': float32[b]}; the
    length in an empty row is 1.
  """
  local_examples = examples[rows.start:min(rows.stop, len(examples))]
  b, g = rows.stop - rows.start, encoded.starts.shape[1]
  tokens, lengths = np.zeros((b, g, width), np.int32), np.ones((b, g), np.int32)
  labels, weights = np.zeros(b, np.float32), np.zeros(b, np.float32)
  for row, example in enumerate(local_examples):
    for k, (start, length) in enumerate(zip(encoded.starts[example], encoded.lengths[example])):
      tokens[row, k, :length] = encoded.tokens[start:start + length]
  lengths[:len(local_examples)] = encoded.lengths[local_examples]
  labels[:len(local_examples)], weights[:len(local_examples)] = encoded.labels[local_examples], 1
  return {'tokens': tokens, 'lengths': lengths, 'labels': labels, 'weights': weights}


def select(encoded, selection):
  """The examples that a slice or a bool[n] selects."""
  per_example = ('starts', 'lengths', 'labels', 'index')
  return encoded._replace(**{name: getattr(encoded, name)[selection] for name in per_example})
