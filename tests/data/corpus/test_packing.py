"""Packed rows: the tokens of the rows without packing, and which of them belong to one document."""

import dataclasses

import numpy as np
import pytest
from conftest import mesh_of, tiny_config
from corpus_files import random_documents, write_corpus
from hypothesis import given, settings
from hypothesis import strategies as st

from gptjax.benchmark import sizes
from gptjax.data.corpus import mixture, packing, reader
from gptjax.errors import InputError
from gptjax.pretrain import loop, trace

T = 16
END, BEGIN, N_VOCAB = 999, 998, 1000
MARKS = {'end': {'end_of_text': END}, 'begin': {'end_of_text': END, 'begin_of_text': BEGIN},
         'none': {'end_of_text': None}, 'end that no document has': {'end_of_text': END},
         'both': {'end_of_text': END, 'begin_of_text': BEGIN}}


def documents_of(marks, seed, n, longest=40):
  """Random documents, some of one token, some of several rows; those without marks may be empty."""
  random = np.random.default_rng(seed)
  before, after = [BEGIN] * (marks in ('begin', 'both')), [END] * (marks in ('end', 'both'))
  lengths = random.integers(0, longest, n) * random.integers(0, 2, n)  # half of the texts are empty
  lengths[0] = longest  # else there may be nothing at all
  return [np.array([*before, *random.integers(0, BEGIN, length), *after], int) for length in lengths]


def opened(folder, documents, marks='end', **options):
  while not len(documents[-1]):  # a document begins before the last token
    documents.pop()
  corpus = reader.open_corpus(write_corpus(folder, documents, **options), 'train', verify=True)
  return dataclasses.replace(corpus, tokenizer={**corpus.tokenizer, **MARKS[marks]})


@pytest.fixture(scope='module')
def corpus(tmp_path_factory):
  return opened(tmp_path_factory.mktemp('corpus') / 'c', random_documents(0, 300), shard_tokens=333)


def pieces(batch):
  """[(row, tokens read, targets, positions)] of each segment, in order."""
  found = []
  for row, segments in enumerate(batch['segments']):
    assert segments[0] == 1 and set(np.diff(segments)) <= {0, 1}
    for number in range(1, segments[-1] + 1):
      own = segments == number
      found.append((row, *(batch[name][row][own].tolist() for name in ('inputs', 'targets', 'positions'))))
  return found


def judged(documents, start, length, marks):
  """The pieces of one window, token by token: [(tokens read, targets)]."""
  stream = np.concatenate(documents).tolist()
  begins = {int(at) % len(stream) for at in np.cumsum([0, *map(len, documents)])}
  found, read, targets = [], [], []
  for at in range(start, start + length):
    token, following = stream[at % len(stream)], stream[(at + 1) % len(stream)]
    ended = MARKS[marks].get('end_of_text') == token and (at + 1) % len(stream) in begins
    begun = MARKS[marks].get('begin_of_text') == following and (at + 1) % len(stream) in begins
    if ended and not begun and read:  # the mark that ends a document is the first token of the next one
      found.append((read, targets))
      read, targets = [], []
    read, border = [*read, token], (at + 1) % len(stream) in begins
    targets = [*targets, following if begun or ended or not border else -1]
    if border and (begun or not ended):
      found.append((read, targets))
      read, targets = [], []
  return [*found, *[(read, targets)] * bool(read)]


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 999), marks=st.sampled_from(sorted(MARKS)), seq_len=st.integers(1, 60),
       step=st.sampled_from([0, 1, 10**9]), shift=st.booleans())
def test_a_row_is_cut_at_the_borders_of_its_documents(tmp_path_factory, seed, marks, seq_len, step, shift):
  documents = documents_of(marks, seed, 12)
  corpus = opened(tmp_path_factory.mktemp('c') / 'c', documents, marks, shard_tokens=29)
  if not reader.n_windows(corpus, seq_len, True):
    return
  where = [corpus], [1], seed, step, 6, seq_len, True, slice(None), shift
  windows = reader.batch_windows(*where)
  expected = [(row, *piece) for row, window in enumerate(zip(windows.start, windows.length, strict=True))
              for piece in judged(documents, *map(int, window), marks)]
  found = pieces(reader.batch(*where, packing=True, restart_positions=True))
  assert [piece[:3] for piece in found] == expected
  assert all(positions == list(range(len(read))) for _, read, _, positions in found)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 999), seq_len=st.integers(1, 60), longest=st.integers(1, 200))
def test_each_document_is_predicted_once_after_the_end_of_text(tmp_path_factory, seed, seq_len, longest):
  """The held-out rows, in order: a document begins with each piece that reads the end-of-text token first."""
  documents = documents_of('end', seed, 12, longest)
  corpus = opened(tmp_path_factory.mktemp('c') / 'c', documents)
  found = [[]]
  for i in range(reader.n_eval_batches(corpus, 3, seq_len)):
    for _, read, targets, _ in pieces(reader.eval_batch(corpus, i, 3, seq_len, slice(None), True, True)):
      counted = [target for target in targets if target != -1]
      assert read[1:len(counted)] == counted[:-1] and END not in read[1:len(counted)]
      if read[0] == END and counted:
        found.append([])
      found[-1] += counted
  targets = [documents[0][1:].tolist(), *(document.tolist() for document in documents[1:])]
  n = sum(map(len, found))
  assert n == max((corpus.n_tokens - 1) // seq_len * seq_len, min(seq_len, corpus.n_tokens - 1))
  assert found[:-1] == targets[:len(found) - 1] and found[-1] == targets[len(found) - 1][:len(found[-1])]


def test_rows_have_the_tokens_that_they_have_without_packing(corpus):
  for step in (0, 9, 10**9):
    where = [corpus], [1], 3, step, 24, T, True, slice(None), True
    plain, packed = reader.batch(*where), reader.batch(*where, packing=True)
    assert list(plain) == ['inputs', 'targets'] and list(packed) == ['inputs', 'targets', 'segments']
    assert all((plain[name] == packed[name]).all() for name in plain)
    assert packed['segments'].max() > 1


def test_a_batch_does_not_depend_on_hosts_or_shards(corpus, tmp_path):
  again = opened(tmp_path / 'again', random_documents(0, 300), shard_tokens=77)
  other = opened(tmp_path / 'other', documents_of('end', 1, 9))
  def batch(one, step, rows=slice(None)):
    return reader.batch([one, other], [0.7, 0.3], 3, step, 24, T, True, rows, True,
                        packing=True, restart_positions=True)
  def halves(step):
    return [batch(again, step, rows) for rows in (slice(0, 12), slice(12, 24))]
  for step in (0, 7, 10**12):
    for name, array in batch(corpus, step).items():
      assert array.dtype == np.int32 and array.shape == (24, T)
      assert (np.concatenate([half[name] for half in halves(step)]) == array).all()


def test_rows_after_the_last_window_are_one_segment_without_targets(corpus):
  n = reader.n_eval_batches(corpus, 7, T)
  last = reader.eval_batch(corpus, n - 1, 7, T, slice(None), True, True)
  empty = np.flatnonzero((last['targets'] == -1).all(1))
  assert len(empty) and (last['segments'][empty] == 1).all()
  assert (last['positions'][empty] == np.arange(T)).all()


@pytest.mark.parametrize('fields', [{}, {'data.packing': True},
                                    {'data.packing': True, 'data.restart_positions': True}])
def test_training_reads_what_its_config_says_and_compiles_for_it(corpus, fields):
  config = tiny_config(**fields)
  flags = {'packing': config.data.packing, 'restart_positions': config.data.restart_positions}
  with mesh_of() as mesh:
    read = mixture.Mixture(['c'], [1], [corpus], [None], '')
    run = loop.Run(config, None, mesh, None, read, 10, None, None)
    expected = reader.batch([corpus], [1], config.train.seed, 5, 8, 24, True, slice(None), True, **flags)
    found, planned = loop.train_batch(run, 5), trace.step_shapes(config, mesh)[1]
  assert list(found) == list(expected) == packing.array_names(config.data)
  assert all((found[name] == expected[name]).all() for name in expected)
  shapes = lambda batch: {name: (array.shape, array.dtype) for name, array in batch.items()}
  assert shapes(found) == shapes(planned) == shapes(sizes.random_batch(config))


@pytest.mark.parametrize('fields, message', [
  ({'data.restart_positions': True}, 'set config.data.packing = True'),
  ({'data.packing': True, 'data.cross_documents': False}, 'cross_documents = False allows one'),
  ({'data.packing': True, 'model.architecture': 'lstm'}, 'architecture = lstm does not have'),
])
def test_what_does_not_fit_is_refused(fields, message):
  with pytest.raises(InputError, match=message):
    tiny_config(**fields)
