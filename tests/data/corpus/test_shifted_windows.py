"""Windows that begin elsewhere in each epoch."""

import collections
import itertools

import numpy as np
import pytest
from conftest import mesh_of, tiny_config
from corpus_files import random_documents, write_corpus
from hypothesis import given, settings
from hypothesis import strategies as st

from gptjax.data.corpus import mixture, order, reader
from gptjax.pretrain import loop

T = 16


def written(folder, *args, **options):
  return reader.open_corpus(write_corpus(folder, *args, **options), 'train', verify=False)


@pytest.fixture(scope='module')
def corpus(tmp_path_factory):
  return written(tmp_path_factory.mktemp('corpus'), random_documents(0, 300), shard_tokens=333)


def places(corpus, offset, seq_len, cross_documents):
  """[tokens that are targets] of each window of an epoch with this offset."""
  numbers = np.arange(reader.n_windows(corpus, seq_len, cross_documents))
  starts, lengths = reader.window_bounds(corpus, numbers, seq_len, cross_documents, offset)
  assert (starts >= 0).all() and (lengths >= 1).all() and (lengths <= seq_len).all()
  return [(np.arange(start, start + n) + 1) % corpus.n_tokens
          for start, n in zip(starts.tolist(), lengths.tolist(), strict=True)]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 99), seq_len=st.integers(1, 60))
def test_each_token_is_a_target_equally_often(tmp_path_factory, seed, seq_len):
  """In one epoch at most once; over one epoch of each offset, exactly as often as any other."""
  one = written(tmp_path_factory.mktemp('c'), random_documents(seed, 8))
  if not reader.n_windows(one, seq_len, True):
    return
  counts = np.zeros(one.n_tokens, int)
  for offset in range(one.n_tokens):
    targets = np.concatenate(places(one, offset, seq_len, True))
    assert len(set(targets.tolist())) == len(targets) >= one.n_tokens - seq_len
    counts[targets] += 1
  assert counts.min() == counts.max()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 99), seq_len=st.integers(1, 30), offset=st.integers(0, 2**62))
def test_single_documents_are_whole_at_every_offset(tmp_path_factory, seed, seq_len, offset):
  one = written(tmp_path_factory.mktemp('c'), random_documents(seed, 20))
  targets = np.concatenate(places(one, offset, seq_len, False))
  assert sorted(targets.tolist()) == sorted(set(range(one.n_tokens)) - set(one.document_starts.tolist()))
  document = lambda at: np.searchsorted(one.document_starts, at, side='right')
  for window in places(one, offset, seq_len, False):
    assert len(set(document(window).tolist())) == 1 and window[0] - 1 in (window - 1)


def test_windows_of_single_documents_begin_at_many_places(corpus):
  """A document of 40 tokens has 39 targets, so three windows of 16 lack nine, and there are ten phases."""
  document = int(np.flatnonzero(np.diff(corpus.document_starts) == 40)[0])
  begins, end = corpus.document_starts[document:document + 2]
  firsts = {tuple(int(window[0] - begins) for window in places(corpus, offset, T, False)
                  if begins <= window[0] < end) for offset in range(100)}
  assert firsts == {(1, 17 - shift, 33 - shift) for shift in range(10)}


@pytest.mark.parametrize('cross_documents', [True, False])
def test_a_batch_has_the_tokens_of_its_windows(corpus, cross_documents):
  stream, around = corpus.tokens(0, corpus.n_tokens), 0
  n = reader.n_windows(corpus, T, cross_documents)
  for step in range(3 * n // 8):
    where = [corpus], [1], 3, step, 8, T, cross_documents, slice(None), True
    batch, found = reader.batch(*where), reader.batch_windows(*where)
    for row, (start, length) in enumerate(zip(found.start, found.length, strict=True)):
      tokens = np.take(stream, np.arange(start, start + length + 1), mode='wrap')
      around += start + length >= corpus.n_tokens
      assert (batch['inputs'][row, :length] == tokens[:-1]).all()
      assert (batch['targets'][row, :length] == tokens[1:]).all()
      assert (batch['targets'][row, length:] == -1).all() and (batch['inputs'][row, length:] == 0).all()
  assert around == 0 if not cross_documents else around > 0


def test_epochs_have_other_windows_and_the_same_number(corpus):
  n, seen = reader.n_windows(corpus, T, True), collections.defaultdict(set)
  for step in range(5 * n // 8):
    found = reader.batch_windows([corpus], [1], 0, step, 8, T, True, shift=True)
    for row, start in enumerate(found.start.tolist()):
      seen[(8 * step + row) // n].add((start, int(found.window[row])))
  assert all(len({window for _, window in seen[epoch]}) == n for epoch in range(4))
  offsets = [{(start - T * window) % corpus.n_tokens for start, window in seen[epoch]} for epoch in range(5)]
  assert all(len(found) == 1 for found in offsets) and len(set.union(*offsets)) == 5


def test_a_shifted_batch_is_a_pure_function_of_corpus_seed_and_step(corpus, tmp_path):
  """Asked for in any order, by any number of hosts, with any shards; and its step may be any."""
  again = written(tmp_path / 'again', random_documents(0, 300), shard_tokens=77)
  asked = list(itertools.product((0, 10**12, 7), (True, False)))
  def inputs(one, seed, step, cross_documents, rows=slice(None)):
    return reader.batch([one], [1], seed, step, 24, T, cross_documents, rows, True)['inputs']
  first = [inputs(corpus, 3, *one) for one in asked]
  for one, expected in zip(reversed(asked), reversed(first), strict=True):
    assert (inputs(again, 3, *one) == expected).all()
    halves = [inputs(corpus, 3, *one, rows) for rows in (slice(0, 12), slice(12, 24))]
    assert (np.concatenate(halves) == expected).all()
    assert (inputs(corpus, 4, *one) != expected).any()


@pytest.mark.parametrize('shift', [True, False])
def test_training_reads_what_its_config_says(corpus, shift):
  config = tiny_config(**{'data.shift_windows': shift})
  with mesh_of() as mesh:
    read = mixture.Mixture(['c'], [1], [corpus], [None], '')
    run = loop.Run(config, None, mesh, None, read, 10, None, None)
    for step in (0, 1000):
      expected = reader.batch([corpus], [1], config.train.seed, step, 8, 24, True, shift=shift)
      assert (loop.train_batch(run, step)['inputs'] == expected['inputs']).all()


def test_golden():
  """Frozen: a change here means that no run can be resumed or repeated any more."""
  found = order.epoch_offsets('0123456789abcdef' * 4, 7, np.array([0, 1, 0, 10**12]))
  assert found.tolist() == GOLDEN


GOLDEN = [6545580527975018505, 4840902166173318641, 6545580527975018505, 2632800224936418698]
