"""The order of the data: permutations of windows, and mixtures of corpora."""

import collections
import fractions
import itertools
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptjax.data.corpus import order


@pytest.mark.ci
def test_permutation_is_a_bijection_for_every_size_up_to_10000():
  for n in range(1, 10_001):
    images = order.permute(np.arange(n), n, 'digest', 0, 0)
    assert images.min() == 0 and images.max() == n - 1, n
    assert np.bincount(images, minlength=n).max() == 1, n


@pytest.mark.first_cases(1)
@pytest.mark.parametrize('n', [2**33 - 1, 2**33, 2**33 + 1, 2**40 + 12_345])
def test_permutation_is_injective_where_it_cannot_be_listed(n):
  # A random function would send 2^19 elements of 2^33 to about 16 places that are taken.
  random = np.random.default_rng(0)
  index = np.unique(np.concatenate([
    random.integers(0, n, 2**19), np.arange(2**16), np.arange(n - 2**16, n)]))
  images = order.permute(index, n, 'digest', 0, 0)
  assert images.min() >= 0 and images.max() < n
  assert len(np.unique(images)) == len(index)
  # Spread evenly: 64 bins, each within six standard deviations.
  counts = np.histogram(images, np.linspace(0, n, 65))[0]
  assert abs(counts - len(index) / 64).max() < 6 * np.sqrt(len(index) / 64)


@settings(max_examples=50, deadline=None)
@given(n=st.integers(1, 2**62), seed=st.integers(0, 2**64), epoch=st.integers(0, 2**40),
       data=st.data())
def test_each_element_is_permuted_alone(n, seed, epoch, data):
  index = np.array(data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=9)), np.int64)
  together = order.permute(index, n, 'digest', seed, epoch)
  for one, image in zip(index, together, strict=True):
    assert order.permute(one[None], n, 'digest', seed, epoch) == [image]
  assert together.min() >= 0 and together.max() < n


def test_digest_seed_and_epoch_each_change_the_permutation():
  index = np.arange(1000)
  keys = list(itertools.product(['a', 'b'], [0, 1, 10], [0, 1, 11]))
  images = [order.permute(index, 1000, digest, seed, epoch) for digest, seed, epoch in keys]
  for (i, a), (j, b) in itertools.combinations(enumerate(images), 2):
    assert (a == b).sum() < 12, (keys[i], keys[j])  # of two random permutations: one, about


def test_small_permutations_are_all_about_as_likely():
  epochs = 24_000
  images = order.permute(np.tile(np.arange(4), epochs), 4, 'digest', 0,
                         np.repeat(np.arange(epochs), 4)).reshape(epochs, 4)
  counts = collections.Counter(map(tuple, images.tolist()))
  assert len(counts) == 24
  # Even permutations may be favoured a little by a network; 1,000 of each are expected.
  assert min(counts.values()) > 800 and max(counts.values()) < 1200, counts


def test_neighbours_are_not_correlated():
  n = 100_003
  images = order.permute(np.arange(n), n, 'digest', 3, 2)
  for lag in (1, 2, 316, 317):  # 317: the base of the network's digits
    assert abs(np.corrcoef(images[:-lag], images[lag:])[0, 1]) < 0.015
  assert abs(np.corrcoef(np.arange(n), images)[0, 1]) < 0.015


def test_golden():
  """Frozen: a change here means that no run can be resumed or repeated any more."""
  digest = '0123456789abcdef' * 4
  assert order.permute(np.arange(10), 10, digest, 0, 0).tolist() == GOLDEN_10
  assert order.permute(np.arange(6), 1_000_000, digest, 7, 3).tolist() == GOLDEN_MILLION
  assert order.permute(np.arange(6), 2**33, digest, 7, 3).tolist() == GOLDEN_2_33
  assert [a.tolist() for a in order.sample_windows(
    [5, 50, 500], ['a', 'b', 'c'], [0.5, 0.3, 0.2], 1, np.arange(10**12, 10**12 + 12))[:2]
  ] == GOLDEN_MIXTURE


WEIGHTS = st.one_of(
  st.lists(st.integers(1, 20), min_size=1, max_size=7),
  st.lists(st.integers(1, 999).map(lambda i: i / 1000), min_size=1, max_size=6),
  st.lists(st.integers(1, 30), min_size=2, max_size=5).map(lambda v: [x / sum(v) for x in v]))


@settings(max_examples=100, deadline=None)
@given(WEIGHTS)
def test_every_prefix_of_a_mixture_is_exact_to_less_than_one(weights):
  """In integers; and by Tijdeman's 1 - 1 / (2n - 2), the best bound that holds for all weights."""
  n, mix = len(weights), order.mixture_period(tuple(weights))
  period = len(mix.corpus)
  exact = [fractions.Fraction(w).limit_denominator(10**6) for w in weights]
  for c in range(n):
    share = exact[c] / sum(exact)
    assert mix.shares[c] / period == pytest.approx(float(share), rel=1e-8)
    error = np.cumsum(mix.corpus == c) * period - np.arange(1, period + 1) * mix.shares[c]
    assert abs(error).max() * max(2 * n - 2, 1) <= max(2 * n - 3, 0) * period
    assert abs(error).max() < period
    assert error[-1] == 0


def test_every_small_mixture_of_three_and_four():
  for n in (3, 4):
    for weights in itertools.combinations_with_replacement(range(1, 13), n):
      mix = order.mixture_period(weights)
      counts = np.cumsum(mix.corpus[:, None] == np.arange(n), axis=0)
      at = np.arange(1, len(mix.corpus) + 1)[:, None]
      error = abs(counts * len(mix.corpus) - at * mix.shares[None]).max()
      assert error * (2 * n - 2) <= (2 * n - 3) * len(mix.corpus), weights


@pytest.mark.parametrize('weights', [[0.7, 0.3], [1, 1, 1], [0.9] + [0.01] * 10,
                                     [5, 3.5, 1.25, 0.125], [1 / 3, 2 / 3]])
def test_law_of_a_mixture_over_the_stream_itself(weights):
  """Counts, and each corpus read window by window without replacement, by the public function."""
  sizes = [7, 11, 13, 5, 3, 2, 1, 9, 8, 4, 6][:len(weights)]
  digests = [f'corpus {c}' for c in range(len(weights))]
  corpus, window, _ = order.sample_windows(sizes, digests, weights, 5, np.arange(3000))
  for c, size in enumerate(sizes):
    share = weights[c] / sum(weights)
    counts = np.cumsum(corpus == c)
    assert abs(counts - np.arange(1, 3001) * share).max() < 1
    mine = window[corpus == c]
    for start in range(0, len(mine) - size + 1, size):
      assert sorted(mine[start:start + size]) == list(range(size))
    assert len(set(mine[len(mine) // size * size:])) == len(mine) % size


def test_law_of_a_mixture_far_out():
  """Sample 10^12 + i continues the counts exactly: no drift of floating point."""
  weights, sizes, start = [0.1, 0.2, 0.7], [10**9, 10**9, 10**9], 10**12 // 7
  corpus, window, _ = order.sample_windows(sizes, list('abc'), weights, 0, np.arange(start, start + 1000))
  for c, share in enumerate([1, 2, 7]):
    nth = start // 10 * share + int((order.mixture_period((0.1, 0.2, 0.7)).corpus[:start % 10] == c).sum())
    assert abs(10 * nth - start * share) < 10
    mine = window[corpus == c]
    index = np.arange(nth, nth + len(mine))
    epoch, index = index // 10**9, index % 10**9
    assert (mine == order.permute(index, 10**9, 'abc'[c], 0, epoch)).all()


def test_weights_of_many_digits_are_rounded_to_a_millionth():
  mix = order.mixture_period((123_456_789, 987_654_321, 55_555_555.5))
  assert len(mix.corpus) == 1_000_000
  exact = np.array([123_456_789, 987_654_321, 55_555_555.5])
  assert abs(mix.shares - exact / exact.sum() * 1_000_000).max() < 1


@pytest.mark.parametrize('weights', [[], [0.0, 1.0], [-1, 2], [float('nan'), 1], [float('inf'), 1],
                                     [1, 1e-9]])
def test_bad_weights(weights):
  with pytest.raises(ValueError, match=r'^weights [^\n]*$'):
    order.mixture_period(tuple(weights))


def test_a_late_sample_costs_no_more_than_an_early_one():
  weights, sizes, digests = [0.6, 0.4], [10**8, 10**7], ['a', 'b']
  def cost(start):
    """(lines of Python, bytes at most)."""
    lines, numbers = itertools.count(), np.arange(start, start + 4096)
    def trace(frame, event, argument):
      if event == 'line':
        next(lines)
      return trace
    before = sys.gettrace()
    tracemalloc.start()
    sys.settrace(trace)
    try:
      _, _, epoch = order.sample_windows(sizes, digests, weights, 0, numbers)
      order.epoch_offsets('a', 0, epoch)
    finally:
      sys.settrace(before)
      peak = tracemalloc.get_traced_memory()[1]
      tracemalloc.stop()
    return next(lines), peak
  cost(0)
  for early, late in zip(cost(0), cost(10**9 * 512), strict=True):
    assert 100 < late < 3 * early


GOLDEN_10 = [3, 7, 8, 6, 0, 5, 2, 1, 9, 4]
GOLDEN_MILLION = [638453, 860916, 19926, 416998, 959050, 734536]
GOLDEN_2_33 = [1856054867, 40715837, 1770817393, 8196011396, 758773428, 3720184186]
GOLDEN_MIXTURE = [[0, 1, 0, 2, 0, 1, 0, 2, 0, 1, 0, 1], [1, 11, 4, 105, 0, 37, 2, 64, 3, 32, 2, 49]]
