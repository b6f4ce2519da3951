"""Reading a corpus: its token stream, training and held-out batches, and damage to its files."""

import dataclasses
import hashlib
import json
import shutil

import numpy as np
import pytest
from corpus_files import random_documents, write_corpus, write_manifest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptjax.data.corpus import reader
from gptjax.errors import InputError

T = 16


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return write_corpus(tmp_path_factory.mktemp('corpus') / 'c', random_documents(0, 300),
                      validation=random_documents(1, 9), shard_tokens=333)


@pytest.fixture(scope='module')
def corpus(folder):
  return reader.open_corpus(folder, 'train', verify=True)


@pytest.fixture(scope='module')
def stream():
  return np.concatenate(random_documents(0, 300))


def windows_of(stream, seq_len):
  """All windows by a plain loop: {tokens of the window: its number}."""
  n = (len(stream) - 1) // seq_len
  return {tuple(stream[i * seq_len:(i + 1) * seq_len + 1]): i for i in range(n)}


def rows_of(batch):
  """Windows of a batch whose targets are all counted."""
  assert (batch['inputs'][:, 1:] == batch['targets'][:, :-1]).all()
  return [(*row, last) for row, last in zip(batch['inputs'], batch['targets'][:, -1], strict=True)]


def test_counts(corpus, stream):
  assert (corpus.n_tokens, corpus.n_documents) == (len(stream), 300)
  assert corpus.n_bytes == 3 * len(stream)
  assert corpus.tokenizer['n_vocab'] == 1000
  lengths = [len(document) for document in random_documents(0, 300)]
  assert np.diff(corpus.document_starts, append=corpus.n_tokens).tolist() == lengths


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_stream_does_not_depend_on_the_shards(tmp_path_factory, data):
  dtype = data.draw(st.sampled_from(['uint16', 'uint32']))
  documents = random_documents(data.draw(st.integers(0, 99)), 12, n_vocab=60_000)
  stream = np.concatenate(documents)
  written = write_corpus(tmp_path_factory.mktemp('c'), documents, n_vocab=60_000, dtype=dtype,
                         shard_tokens=data.draw(st.integers(1, len(stream))))
  corpus = reader.open_corpus(written, 'train', verify=True)
  start, stop = sorted(data.draw(st.tuples(*[st.integers(0, len(stream))] * 2)))
  read = corpus.tokens(start, stop)
  assert read.dtype == np.int32 and (read == stream[start:stop]).all()
  seq_len = data.draw(st.integers(1, 40))
  if seq_len < len(stream):
    batch = reader.batch([corpus], [1], 0, 0, 9, seq_len, True)
    assert set(rows_of(batch)) <= set(windows_of(stream, seq_len))


def test_each_window_once_an_epoch_and_batches_span_epochs(corpus, stream):
  expected = windows_of(stream, T)
  n, size = len(expected), 32
  assert n == reader.n_windows(corpus, T, True) and n % size
  seen = [row for step in range(3 * n // size + 1)
          for row in rows_of(reader.batch([corpus], [1], 0, step, size, T, True))]
  epochs = [[expected[row] for row in seen[e * n:(e + 1) * n]] for e in range(3)]
  for epoch in epochs:
    assert sorted(epoch) == list(range(n))
  assert epochs[0] != epochs[1] != epochs[2]
  assert epochs[0] != list(range(n))


@pytest.mark.parametrize('cross_documents', [True, False])
def test_hosts_read_the_same_global_batch(corpus, folder, cross_documents):
  other = reader.open_corpus(folder, 'validation', verify=False)
  for step in (0, 5, 10**9):
    whole = reader.batch([corpus, other], [0.7, 0.3], 3, step, 24, T, cross_documents)
    for hosts in (1, 2, 4, 8):
      share = 24 // hosts
      parts = [reader.batch([corpus, other], [0.7, 0.3], 3, step, 24, T, cross_documents,
                            rows=slice(h * share, (h + 1) * share)) for h in range(hosts)]
      for name, array in whole.items():
        assert array.dtype == np.int32 and array.shape == (24, T)
        assert (np.concatenate([part[name] for part in parts]) == array).all()


def test_a_batch_is_its_own_copy(corpus):
  first = reader.batch([corpus], [1], 0, 0, 8, T, True)
  kept = {name: array.copy() for name, array in first.items()}
  first['inputs'][:], first['targets'][:] = 7, 7
  again = reader.batch([corpus], [1], 0, 0, 8, T, True)
  assert all((again[name] == kept[name]).all() for name in kept)


def test_seed_and_digest_change_the_order_and_nothing_else_does(folder, corpus, tmp_path):
  moved = reader.open_corpus(shutil.copytree(folder, tmp_path / 'moved'), 'train', verify=False)
  batch = reader.batch([corpus], [1], 0, 2, 8, T, True)['inputs']
  assert (reader.batch([moved], [12.5], 0, 2, 8, T, True)['inputs'] == batch).all()
  assert (reader.batch([corpus], [1], 1, 2, 8, T, True)['inputs'] != batch).any()
  other = dataclasses.replace(corpus, digest='other')
  assert (reader.batch([other], [1], 0, 2, 8, T, True)['inputs'] != batch).any()


def test_the_order_is_of_what_a_corpus_holds_and_not_of_its_shards(tmp_path):
  documents = random_documents(0, 40)
  def written(name, documents, **changes):
    return reader.open_corpus(write_corpus(tmp_path / name, documents, **changes), 'train', verify=True)
  plain = written('plain', documents)
  again = written('again', documents, shard_tokens=77)
  assert len(again.shards) > 3 and again.digest == plain.digest
  for step in (0, 3, 10**9):
    batch, other = (reader.batch([c], [1], 0, step, 8, T, False) for c in (plain, again))
    assert all((batch[name] == other[name]).all() for name in batch)
  joined = [np.concatenate(documents[:2]), *documents[2:]]  # the same tokens, other documents
  changed = [np.append(documents[0][:-1] + 1, documents[0][-1]), *documents[1:]]
  others = [written('joined', joined), written('changed', changed),
            written('tokenizer', documents, tokenizer_digest='e' * 64),
            written('validation', documents, validation=documents[:1])]
  assert len({plain.digest, *(other.digest for other in others)}) == 5


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 99), seq_len=st.integers(1, 70), longest=st.integers(1, 60))
def test_windows_that_do_not_cross_documents_hold_each_once(tmp_path_factory, seed, seq_len, longest):
  """Each document by itself gives its tokens in order, each but the first predicted once an epoch."""
  documents = random_documents(seed, 40, longest)
  written = write_corpus(tmp_path_factory.mktemp('c'), documents, shard_tokens=101)
  corpus = reader.open_corpus(written, 'train', verify=False)
  n = reader.n_windows(corpus, seq_len, False)
  expected = [document[i:i + seq_len + 1].tolist()
              for document in documents for i in range(0, len(document) - 1, seq_len)]
  assert n == len(expected)
  if not n:
    with pytest.raises(ValueError, match='prepare more text'):
      reader.batch([corpus], [1], seed, 0, 6, seq_len, False)
    return
  epoch = [reader.batch([corpus], [1], seed, step, n, seq_len, False) for step in (0, 10**9)]
  for batch in epoch:
    found = []
    for inputs, targets in zip(batch['inputs'], batch['targets'], strict=True):
      length = (targets != -1).sum()
      assert (targets[length:] == -1).all() and (inputs[length:] == 0).all()
      assert (inputs[1:length] == targets[:length - 1]).all()
      found.append([*inputs[:length].tolist(), int(targets[length - 1])])
    assert sorted(found) == sorted(expected)


def test_end_of_text_is_predicted_where_documents_are_kept_apart(corpus):
  batch = reader.batch([corpus], [1], 0, 0, 64, T, False)
  assert (batch['targets'] == 999).any() and not (batch['inputs'] == 999).any()


def test_golden_batch(corpus):
  """Frozen: a change here means that no run can be resumed or repeated any more."""
  frozen = dataclasses.replace(corpus, digest='0123456789abcdef' * 4, n_tokens=1000 * T + 1)
  windows = [reader.batch_windows([frozen], [1], 17, step, 6, T, True)[1].tolist()
             for step in (0, 1, 10**9)]
  assert windows == GOLDEN_WINDOWS


def test_eval_batches_are_the_split_in_plain_order(folder):
  held_out = reader.open_corpus(folder, 'validation', verify=True)
  stream = np.concatenate(random_documents(1, 9))
  n = (len(stream) - 1) // T
  for size in (1, 4, 5, n, n + 3):
    n_batches = reader.n_eval_batches(held_out, size, T)
    assert n_batches == -(-n // size)
    batches = [reader.eval_batch(held_out, step, size, T) for step in range(n_batches)]
    inputs = np.concatenate([batch['inputs'] for batch in batches])
    targets = np.concatenate([batch['targets'] for batch in batches])
    assert inputs.shape == targets.shape == (n_batches * size, T)
    assert (inputs[:n].ravel() == stream[:n * T]).all()
    assert (targets[:n].ravel() == stream[1:n * T + 1]).all()
    assert (inputs[n:] == 0).all() and (targets[n:] == -1).all()
    halves = [reader.eval_batch(held_out, n_batches - 1, size, T, rows)['targets']
              for rows in (slice(0, size // 2), slice(size // 2, size))]
    assert (np.concatenate(halves) == batches[-1]['targets']).all()


def test_too_short_for_one_window(tmp_path):
  written = write_corpus(tmp_path / 'c', [[1, 2, 3, 4]])
  corpus = reader.open_corpus(written, 'train', verify=True)
  assert reader.n_windows(corpus, 3, True) == 1
  assert reader.batch([corpus], [1], 0, 9, 2, 3, True)['targets'].tolist() == [[2, 3, 4]] * 2
  assert reader.n_windows(corpus, 4, True) == 0
  with pytest.raises(ValueError, match=r'has 4 tokens, but a window of seq_len 4 needs 5'):
    reader.batch([corpus], [1], 0, 0, 2, 4, True)


def test_missing_split(folder, tmp_path):
  with pytest.raises(reader.MissingSplit, match=r"split 'test'.*'train', 'validation'"):
    reader.open_corpus(folder, 'test', verify=False)
  alone = write_corpus(tmp_path / 'c', random_documents(0, 3))
  with pytest.raises(reader.MissingSplit, match="'validation'"):
    reader.open_corpus(alone, 'validation', verify=False)


def _truncate(path):
  path.write_bytes(path.read_bytes()[:-2])


def _drop_digest(path):
  path.write_text(json.dumps({**json.loads(path.read_text()), 'digest': '0' * 64}))


def _flip(path):
  data = bytearray(path.read_bytes())
  data[5] ^= 1
  path.write_bytes(bytes(data))


DAMAGE = {
  'no folder': ('', lambda path: shutil.rmtree(path), 'does not exist: create it'),
  'no manifest': ('manifest.json', lambda path: path.unlink(), 'is incomplete'),
  'not JSON': ('manifest.json', lambda path: path.write_text('{'), 'is not JSON'),
  'not UTF-8': ('manifest.json', lambda path: path.write_bytes(b'\xff{}'), 'is not JSON'),
  'no object': ('manifest.json', lambda path: path.write_text('[]'), 'not the manifest'),
  'other version': ('manifest.json', lambda path: path.write_text('{"version": 1}'), 'version 2'),
  'wrong digest': ('manifest.json', _drop_digest, 'digest should be [0-9a-f]{12}, but its field is 0000'),
  'no shard': ('train-00001.bin', lambda path: path.unlink(), 'train-00001.bin is missing'),
  'short shard': ('train-00001.bin', _truncate, 'has 664 bytes, not 666 as in its manifest'),
  'short index': ('train-documents.bin', _truncate, 'has 2,398 bytes, not 2,400 as in its manifest'),
}


@pytest.mark.parametrize('name', DAMAGE)
def test_damage_is_named_in_one_line(folder, tmp_path, name):
  file, damage, message = DAMAGE[name]
  copy = shutil.copytree(folder, tmp_path / 'copy')
  damage(copy / file)
  with pytest.raises(ValueError, match=message) as caught:
    reader.open_corpus(str(copy), 'train', verify=False)
  assert '\n' not in str(caught.value) and str(copy) in str(caught.value)


@pytest.mark.parametrize('file', ['train-00000.bin', 'train-00003.bin', 'train-documents.bin'])
def test_verify_finds_a_flipped_bit(folder, tmp_path, file):
  copy = shutil.copytree(folder, tmp_path / 'copy')
  _flip(copy / file)
  reader.open_corpus(str(copy), 'train', verify=False)
  with pytest.raises(ValueError, match=f'{file} is damaged: its SHA-256 is'):
    reader.open_corpus(str(copy), 'train', verify=True)


def test_verify_finds_ids_outside_the_vocabulary(tmp_path):
  written = write_corpus(tmp_path / 'c', [[1, 2, 10, 3]], n_vocab=10)
  with pytest.raises(ValueError, match='has the token 10, but its tokenizer only 10'):
    reader.open_corpus(written, 'train', verify=True)


def test_verify_finds_an_index_that_is_none(tmp_path):
  written = write_corpus(tmp_path / 'c', random_documents(0, 5))
  path = tmp_path / 'c' / 'train-documents.bin'
  starts = np.frombuffer(path.read_bytes(), '<u8')[::-1]
  path.write_bytes(starts.tobytes())
  manifest = json.loads((tmp_path / 'c' / 'manifest.json').read_text())
  manifest['splits']['train']['index']['sha256'] = hashlib.sha256(
    starts.tobytes()).hexdigest()
  write_manifest(tmp_path / 'c', manifest)
  with pytest.raises(ValueError, match='not a sorted list'):
    reader.open_corpus(written, 'train', verify=True)


@pytest.mark.parametrize('verify', [False, True])
def test_a_device_is_no_shard(tmp_path, verify):
  """It has no bytes, as a shard of no tokens, but reading it never ends."""
  written = write_corpus(tmp_path / 'c', random_documents(0, 5))
  (tmp_path / 'c' / 'empty.bin').symlink_to('/dev/zero')
  manifest = json.loads((tmp_path / 'c' / 'manifest.json').read_text())
  manifest['splits']['train']['shards'].append({'file': 'empty.bin', 'tokens': 0, 'sha256': '0' * 64})
  write_manifest(tmp_path / 'c', manifest)
  with pytest.raises(InputError, match=r'empty.bin is (not a file|a link)'):
    reader.open_corpus(written, 'train', verify=verify)


def test_ids_begin_at_a_multiple_of_their_size(tmp_path):
  written = write_corpus(tmp_path / 'c', random_documents(0, 5))
  manifest = json.loads((tmp_path / 'c' / 'manifest.json').read_text())
  manifest['splits']['train']['shards'][0]['offset'] = 3
  write_manifest(tmp_path / 'c', manifest)
  with pytest.raises(InputError, match='begin at an impossible place'):
    reader.open_corpus(written, 'train', verify=False)


GOLDEN_WINDOWS = [
  [396, 817, 895, 876, 654, 327], [412, 91, 510, 547, 660, 726], [222, 303, 610, 696, 81, 304]]
