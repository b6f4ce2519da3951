"""Padding widths, order and rows of batches."""

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from gptjax.finetune import batches

LENGTHS = st.lists(st.integers(1, 200), min_size=1, max_size=60)


def encoded(lengths, g=1):
  lengths = np.array(lengths)[:, None].repeat(g, 1)
  lengths[:, 1:] = np.maximum(lengths[:, 1:] - 1, 1)
  starts = np.cumsum([0, *lengths.ravel()])[:-1].reshape(lengths.shape)
  index = np.arange(len(lengths))
  return batches.Encoded(np.arange(lengths.sum()), starts, lengths, index.astype(np.float32), index)


@settings(max_examples=60, deadline=None)
@given(LENGTHS, st.integers(1, 4), st.sampled_from([1, 3, 8]))
def test_widths_are_the_cheapest(lengths, most, multiple):
  found = batches.choose_widths(lengths, most, multiple, min_saving=0)
  padded = lambda chosen: sum(min((w for w in chosen if w >= n), default=np.inf) for n in lengths)
  sizes = sorted({-(-n // multiple) * multiple for n in lengths})
  assert len(found) <= most and found == sorted(set(found))
  subsets = itertools.chain.from_iterable(
    itertools.combinations(sizes[:-1], k) for k in range(min(most, len(sizes), 3)))
  assert padded(found) <= min(padded((*subset, sizes[-1])) for subset in subsets)


@settings(max_examples=60, deadline=None)
@given(LENGTHS, st.sampled_from([1, 8]), st.sampled_from([0.01, 0.04, 0.3]))
def test_each_width_saves_its_share_and_the_next_one_would_not(lengths, multiple, saving):
  cheapest = lambda most: batches.choose_widths(lengths, most, multiple, min_saving=0)
  padded = lambda most: sum(min(w for w in cheapest(most) if w >= n) for n in lengths)
  found = len(batches.choose_widths(lengths, 16, multiple, min_saving=saving))
  assert all(padded(n) <= (1 - saving) * padded(n - 1) for n in range(2, found + 1))
  assert found == 16 or padded(found + 1) > (1 - saving) * padded(found) or len(cheapest(found + 1)) == found


@settings(max_examples=60, deadline=None)
@given(LENGTHS, st.integers(1, 9), st.integers(0, 5), st.booleans())
def test_every_example_comes_once_an_epoch_in_a_batch_that_it_fits(lengths, size, seed, by_length):
  lengths = np.array(lengths)
  chosen = batches.choose_widths(lengths, 3, 8, min_saving=0)
  plan = batches.BatchSchedule(lengths, chosen, size, seed, by_length)
  seen = [plan(step) for step in range(2 * plan.per_epoch)]
  for epoch in (seen[:plan.per_epoch], seen[plan.per_epoch:]):
    assert sorted(np.concatenate([examples for examples, _ in epoch])) == list(range(len(lengths)))
  for examples, width in seen:
    assert lengths[examples].max() <= width and width in chosen
    assert 1 <= len(examples) <= size
  assert batches.used_widths(plan, len(seen)) == sorted({width for _, width in seen})
  again = batches.BatchSchedule(lengths, chosen, size, seed, by_length)(2 * plan.per_epoch - 1)
  assert again[1] == seen[-1][1] and (again[0] == seen[-1][0]).all(), 'a pure function of seed and step'


def test_epochs_and_seeds_differ():
  lengths = np.arange(1, 101)
  plan, other = (batches.BatchSchedule(lengths, [104], 10, seed) for seed in (0, 1))
  assert (plan(0)[0] != plan(10)[0]).any() and (plan(0)[0] != other(0)[0]).any()


def test_the_order_is_frozen():
  plan = batches.BatchSchedule(np.arange(1, 41), [16, 40], 8, 0, by_length=True)
  assert [(examples.tolist(), width) for examples, width in map(plan, (0, 1, 4))] == FROZEN


FROZEN = [
  ([0, 12, 13, 4, 6, 5, 10, 11], 16),
  ([25, 38, 27, 20, 26, 29, 39, 23], 40),
  ([24, 35, 34, 22, 17, 16, 33, 18], 40),
]


def test_random_batches_do_not_depend_on_the_lengths():
  """But for the width, which is the least that the batch fits into."""
  plans = [batches.BatchSchedule(lengths, [8, 16, 40], 8, 0)
           for lengths in (np.arange(1, 41), np.full(40, 7))]
  for step in range(10):
    (some, width), (same, narrow) = (plan(step) for plan in plans)
    assert (some == same).all() and narrow == 8
    assert width == min(w for w in (8, 16, 40) if w > some.max())
  assert plans[0](0)[0].tolist() == RANDOM


RANDOM = [37, 32, 28, 36, 30, 19, 21, 14]


def test_hosts_hold_the_rows_of_one_batch():
  data = encoded([5, 9, 3, 7, 2], g=2)
  whole = batches.make_batch(data, np.array([4, 0, 3]), 16, 4, slice(0, 4))
  halves = [batches.make_batch(data, np.array([4, 0, 3]), 16, 4, slice(at, at + 2)) for at in (0, 2)]
  for name, array in whole.items():
    np.testing.assert_array_equal(array, np.concatenate([half[name] for half in halves]))
  assert whole['weights'].tolist() == [1, 1, 1, 0]
  assert whole['lengths'].tolist() == [[2, 1], [5, 4], [7, 6], [1, 1]]
  start = data.starts[3, 1]
  assert whole['tokens'][2, 1].tolist() == [*range(start, start + 6), *[0] * 10]


def test_evaluation_sees_each_example_once():
  lengths = np.array([5, 90, 30, 7, 20])
  chosen = batches.choose_widths(lengths, 3, 8, min_saving=0.04)
  made = batches.evaluation_batches(lengths, chosen, 2)
  assert sorted(np.concatenate([rows for rows, _ in made])) == [0, 1, 2, 3, 4]
  assert all(lengths[rows].max() <= width for rows, width in made)
