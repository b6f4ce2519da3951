"""Maps sample numbers to windows of corpora: pure arithmetic, without state or files.

Sample k of the stream (row r of step s is sample s * batch_size + r) belongs to one corpus of the mixture and
is the i-th sample of that corpus: window permute(i mod n) of epoch i div n. Both mappings are closed forms,
so sample 10^12 costs the same as sample 0. The offset of the windows of an epoch is a third closed form,
`epoch_offsets`.
"""

import fractions
import functools
import hashlib
import heapq
import math
from typing import NamedTuple

import numpy as np

from gptjax.errors import InputError

ROUNDS = 8  # of the Feistel network; four suffice for a pseudo-random permutation, the others are a margin
MAX_DENOMINATOR = 1_000_000  # largest common denominator of the weights of a mixture


def sample_windows(sizes, digests, weights, seed, numbers):
  """Return the corpus, window and epoch of each sample.

  Args:
    sizes: number of windows of each corpus, integers >= 1.
    digests: digest of each corpus, strings.
    weights: share of each corpus in the stream; any positive numbers.
    seed: integer.
    numbers: int64[n], sample numbers >= 0.

  Returns:
    (corpus int64[n], window int64[n], epoch of that corpus int64[n]).

  Raises:
    ValueError: see `mixture_period`.
  """
  mix = mixture_period(tuple(weights))
  period, position = np.divmod(numbers, len(mix.corpus))
  corpus = mix.corpus[position]
  nth = period * mix.shares[corpus] + mix.nth[position]
  window, epoch = np.empty_like(nth), np.empty_like(nth)
  for c, (size, digest) in enumerate(zip(sizes, digests, strict=True)):
    rows = corpus == c
    epoch[rows], index = np.divmod(nth[rows], size)
    window[rows] = permute(index, size, digest, seed, epoch[rows])
  return corpus, window, epoch


def epoch_offsets(digest, seed, epoch):
  """Return a pseudo-random number in [0, 2^63) per (digest, seed, epoch): int64[m] for epochs int64[m]."""
  epochs, which = np.unique(epoch, return_inverse=True)
  names = [f'offset:{digest}:{seed}:{e}'.encode() for e in epochs.tolist()]
  drawn = np.array([int.from_bytes(hashlib.sha256(name).digest()[:8], 'little') >> 1 for name in names],
                   np.int64)
  return drawn[which.ravel()]


def permute(index, n, digest, seed, epoch):
  """Apply a pseudo-random permutation of [0, n), one per (digest, seed, epoch), element by element.

  A Feistel network on pairs (a, b) of digits in base ceil(sqrt(n)), which is a bijection for any round
  function. Its domain is slightly larger than n; values outside [0, n) are mapped again until they are inside
  (cycle walking), which gives a bijection of [0, n).

  Args:
    index: int64[m] in [0, n).
    n: size, 1 to 2^62.
    digest: string.
    seed: integer.
    epoch: int64[m] or an integer.

  Returns:
    int64[m] in [0, n).
  """
  epochs, which = np.unique(epoch, return_inverse=True)
  keys = np.array([_round_keys(digest, seed, int(e)) for e in epochs], np.uint64)
  keys = np.broadcast_to(keys.reshape(-1, ROUNDS).T[:, which.ravel()], (ROUNDS, len(index)))
  base = np.uint64(math.isqrt(n - 1) + 1)
  out = _feistel(index.astype(np.uint64), base, keys)
  while (outside := out >= n).any():
    out[outside] = _feistel(out[outside], base, keys[:, outside])
  return out.astype(np.int64)


def _feistel(x, base, keys):
  """Bijection of [0, base^2) on uint64[m]; keys: uint64[ROUNDS, m]."""
  a = x // base
  b = x - a * base
  for key in keys:
    a, b = b, _remainder(a + _remainder(_scramble(b + key), base), base)
  return a * base + b


def _remainder(x, base):
  """Return x % base; NumPy optimizes division by a scalar, but not the remainder."""
  return x - x // base * base


def _scramble(x):
  """The finalizer of splitmix64: each bit of the input affects half of the bits of the output."""
  x = (x ^ (x >> np.uint64(30))) * np.uint64(0xbf58476d1ce4e5b9)
  x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94d049bb133111eb)
  return x ^ (x >> np.uint64(31))


def _round_keys(digest, seed, epoch):
  stream = hashlib.shake_256(f'{digest}:{seed}:{epoch}'.encode()).digest(8 * ROUNDS)
  return np.frombuffer(stream, '<u8')


class MixturePeriod(NamedTuple):
  """One period of the sample stream; its length is the common denominator of the weights."""
  corpus: np.ndarray  # int64[period], corpus of each sample
  nth: np.ndarray     # int64[period], number of earlier samples of the same corpus in the period
  shares: np.ndarray  # int64[n], samples of each corpus per period


@functools.lru_cache(maxsize=16)
def mixture_period(weights):
  """Return the period of a mixture: each corpus has K w of the first K samples, to within less than 1.

  This is the chairman assignment problem. Tijdeman (1980): there is a sequence of n >= 2 kinds in which each
  count never differs from K w by more than 1 - 1 / (2n - 2). It assigns each sample to the corpus with the
  earliest deadline among those whose next item is released. At the end of a period all counts are exact, so
  the bound holds for every prefix of the repeated period.

  Args:
    weights: a tuple of n positive numbers; w is a weight divided by their sum. Weights whose common
      denominator is at most MAX_DENOMINATOR (0.7 and 0.3; 1/3 and 2/3; 5 and 2) are exact, in their decimal
      form; others are rounded to multiples of 1 / MAX_DENOMINATOR.

  Raises:
    ValueError: a weight is not a positive number, or rounds to 0.
  """
  shares = _shares(weights)
  n, period = len(shares), sum(shares)
  slack = max(2 * n - 2, 1)
  # Item i of corpus c has a position k, counted from 1, with first <= k <= last.
  def bounds(c, i):
    first = -(-period * (slack * i + 1) // (slack * shares[c]))
    last = period * (slack * i + slack - 1) // (slack * shares[c]) + 1
    return first, last
  upcoming = [(bounds(c, 0)[0], c, 0) for c in range(n)]
  heapq.heapify(upcoming)
  due, corpus, nth = [], np.empty(period, np.int64), np.empty(period, np.int64)
  for k in range(1, period + 1):
    while upcoming and upcoming[0][0] <= k:
      _, c, i = heapq.heappop(upcoming)
      heapq.heappush(due, (bounds(c, i)[1], c, i))
    last, c, i = heapq.heappop(due)
    assert last >= k, (weights, k)
    corpus[k - 1], nth[k - 1] = c, i
    heapq.heappush(upcoming, (max(bounds(c, i + 1)[0], k + 1), c, i + 1))
  return MixturePeriod(corpus, nth, np.array(shares, np.int64))


def _shares(weights):
  """Return the samples of each corpus per period, integers without a common divisor."""
  if not weights or not all(math.isfinite(w) and w > 0 for w in weights):
    raise InputError(f'weights of a mixture must be positive numbers, got {list(weights)}')
  # Use the decimal form: 0.1 means one tenth, not the nearest binary fraction.
  exact = [fractions.Fraction(str(w)) for w in weights]
  exact = [w / sum(exact) for w in exact]
  # A third is written 0.3333333333333333: use the simple fraction if it equals the float within rounding.
  near = [w.limit_denominator(MAX_DENOMINATOR) for w in exact]
  if sum(near) == 1 and all(abs(a - b) < 1e-12 for a, b in zip(near, exact, strict=True)):
    exact = near
  period = math.lcm(*(w.denominator for w in exact))
  if period > MAX_DENOMINATOR:
    period, exact = MAX_DENOMINATOR, _rounded(exact)
  shares = [int(w * period) for w in exact]
  if min(shares) == 0:
    raise InputError(f'weights {list(weights)} of a mixture: each must be at least a millionth of '
                     'their sum; remove the corpus with the smaller weight')
  return shares


def _rounded(exact):
  """Return fractions of denominator MAX_DENOMINATOR that sum to one, by largest remainder."""
  whole = [math.floor(w * MAX_DENOMINATOR) for w in exact]
  by_rest = sorted(range(len(exact)), key=lambda c: whole[c] - exact[c] * MAX_DENOMINATOR)
  for c in by_rest[:MAX_DENOMINATOR - sum(whole)]:
    whole[c] += 1
  return [fractions.Fraction(w, MAX_DENOMINATOR) for w in whole]
