"""Baselines for a language model: unigram and bigram losses on the same text."""

import numpy as np

DISCOUNT = 0.75  # of bigram counts; the usual value of absolute discounting


def unigram_loss(train, held_out, n_vocab):
  """Return the mean -log p(token) in nats, with add-one smoothing.

  Args:
    train, held_out: int arrays of token ids, 1-D.
    n_vocab: size of the vocabulary.
  """
  return float(-np.log(_unigram(train, n_vocab)[held_out]).mean())


def bigram_loss(train, held_out, n_vocab):
  """Return the mean -log p(token | previous token) in nats over held_out[1:].

  Absolute discounting, interpolated with the unigram model:
    p(b|a) = max(n(ab) - D, 0) / n(a) + D types(a) / n(a) p(b),   p(b) if a does not occur in `train`.
  """
  seen, count = np.unique(_pairs(train, n_vocab), return_counts=True)
  first = seen // n_vocab
  followers = np.bincount(first, weights=count, minlength=n_vocab)
  types = np.bincount(first, minlength=n_vocab)

  pairs = _pairs(held_out, n_vocab)
  place = np.minimum(np.searchsorted(seen, pairs), len(seen) - 1)
  n = np.where(seen[place] == pairs, count[place], 0)
  before, after = held_out[:-1], held_out[1:]
  total = np.maximum(followers[before], 1)
  rest = np.where(followers[before] > 0, DISCOUNT * types[before] / total, 1)
  p = np.maximum(n - DISCOUNT, 0) / total + rest * _unigram(train, n_vocab)[after]
  return float(-np.log(p).mean())


def _unigram(tokens, n_vocab):
  count = np.bincount(tokens, minlength=n_vocab) + 1.0
  return count / count.sum()


def _pairs(tokens, n_vocab):
  tokens = tokens.astype(np.int64)
  return tokens[:-1] * n_vocab + tokens[1:]
