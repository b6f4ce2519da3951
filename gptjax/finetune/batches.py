"""Batches of sequences, padded to one of a few widths; random ones, or of like lengths.

Random batches are the paper's. Batches of like lengths have less padding, and are no random samples. Which
examples are in batch s is a pure function of the lengths, the seed and s, whatever the number of hosts and
devices: a run resumes at any step.
"""

import functools
from typing import NamedTuple

import numpy as np

from gptjax.data.corpus import order

WIDTH_MULTIPLE = 8  # tokens: widths are multiples of it


class Encoded(NamedTuple):
  """Examples as token sequences, g an example.

  tokens: int32[...], all sequences one after the other.
  starts: int64[n, g], where each begins; lengths: int64[n, g].
  labels: float32[n], numbers of classes or numbers; nan: none.
  index: int64[n], the names of the examples.
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
    """int64[n]: tokens of the longest sequence of each example."""
    return self.lengths.max(1)


def choose_widths(lengths, most, worth=0.04):
  """At most so many widths that all sequences fit into and that cost the least padding.

  Args:
    lengths: int[n], tokens of each sequence.
    most: how many widths there may be.
    worth: share of all padded tokens that one more width must save; each is a program to compile.

  Returns:
    Ascending list of multiples of ROUND.
  """
  size, count = np.unique(-(-np.asarray(lengths) // WIDTH_MULTIPLE) * WIDTH_MULTIPLE, return_counts=True)
  behind = np.concatenate([[0], np.cumsum(count)])
  # cost[j]: padded tokens of the j shortest sizes with the widths so far; one more width at a time.
  cost, back = np.where(behind == 0, 0.0, np.inf), []
  for _ in range(min(most, len(size))):
    before = cost[-1]
    to = cost[:, None] + size[None] * (behind[None, 1:] - behind[:, None])
    to[np.arange(len(behind))[:, None] > np.arange(len(size))[None]] = np.inf
    if back and to[:, -1].min() > (1 - worth) * before:
      break
    back.append(to.argmin(0))
    cost = np.concatenate([[0.0], to.min(0)])
  chosen, j = [], len(size)
  for choices in reversed(back):
    if j:
      chosen.append(int(size[j - 1]))
      j = int(choices[j - 1])
  return chosen[::-1]


class BatchSchedule:
  """Which examples make up each batch of a run, and the width of each batch.

  In each epoch every example comes once, and the last batch may have fewer examples. Without `by_length` a
  batch is a random sample, padded to the width that its longest example needs. With it, a batch holds
  examples of one width, as far as there are enough; what is left over in the widths is put together.
  """

  def __init__(self, longest, widths, batch_size, seed, by_length=False):
    self.bucket = np.searchsorted(widths, longest)
    self.widths, self.batch_size, self.seed, self.by_length = widths, batch_size, seed, by_length
    full = np.bincount(self.bucket, minlength=len(widths)) // batch_size if by_length else np.zeros(1, int)
    self.per_epoch = int(full.sum()) + -(-(len(longest) - int(full.sum()) * batch_size) // batch_size)
    self.epoch = functools.lru_cache(2)(self._epoch)

  def _epoch(self, epoch):
    """[(examples int64[m], width), ...] of an epoch, in a random order."""
    n = len(self.bucket)
    shuffled = order.permute(np.arange(n), n, 'examples', self.seed, epoch)
    made = self._of_like_lengths(shuffled, epoch) if self.by_length else self._cut(shuffled)
    return [(examples, self.widths[self.bucket[examples].max()]) for examples in made]

  def _cut(self, examples):
    return [examples[at:at + self.batch_size] for at in range(0, len(examples), self.batch_size)]

  def _of_like_lengths(self, shuffled, epoch):
    made, rest = [], []
    for bucket in range(len(self.widths)):
      mine = shuffled[self.bucket[shuffled] == bucket]
      whole = len(mine) // self.batch_size * self.batch_size
      made += self._cut(mine[:whole])
      rest.append(mine[whole:])
    made += self._cut(np.concatenate(rest))
    places = order.permute(np.arange(len(made)), len(made), 'batches', self.seed, epoch)
    return [made[i] for i in places]

  def __call__(self, step):
    """(examples int64[m], width) of batch `step` of the run."""
    epoch, at = divmod(step, self.per_epoch)
    return self.epoch(epoch)[at]


def used_widths(plan, steps):
  """The widths, ascending, that the batches of the first so many steps have."""
  found = set()
  for step in range(steps):
    if len(found) == len(plan.widths):
      break
    found.add(plan(step)[1])
  return sorted(found)


def evaluation_batches(longest, widths, batch_size):
  """[(examples, width), ...]: each example once, the longest first; for evaluation."""
  by_length = np.argsort(-longest, kind='stable')
  bucket = np.searchsorted(widths, longest)
  return [(rows, widths[bucket[rows].max()])
          for rows in (by_length[at:at + batch_size] for at in range(0, len(by_length), batch_size))]


def make_batch(encoded, examples, width, batch_size, rows):
  """One batch as arrays; places that have no example weigh nothing.

  Args:
    encoded: Encoded.
    examples: int64[m], m at most batch_size.
    width: tokens a sequence.
    batch_size: examples in the batch, over all hosts.
    rows: slice of the batch that this host holds.

  Returns:
    {'tokens': int32[b, g, width], 'lengths': int32[b, g], 'labels': float32[b], 'weights': float32[b]}; the
    length of an empty place is 1.
  """
  mine = examples[rows.start:min(rows.stop, len(examples))]
  b, g = rows.stop - rows.start, encoded.starts.shape[1]
  tokens, lengths = np.zeros((b, g, width), np.int32), np.ones((b, g), np.int32)
  labels, weights = np.zeros(b, np.float32), np.zeros(b, np.float32)
  for row, example in enumerate(mine):
    for k, (start, length) in enumerate(zip(encoded.starts[example], encoded.lengths[example])):
      tokens[row, k, :length] = encoded.tokens[start:start + length]
  lengths[:len(mine)] = encoded.lengths[mine]
  labels[:len(mine)], weights[:len(mine)] = encoded.labels[mine], 1
  return {'tokens': tokens, 'lengths': lengths, 'labels': labels, 'weights': weights}


def select(encoded, which):
  """The examples that a slice or a bool[n] chooses."""
  per_example = ('starts', 'lengths', 'labels', 'index')
  return encoded._replace(**{name: getattr(encoded, name)[which] for name in per_example})
