"""Corpora in buckets: the batches of the local copy, through a cache of any size, in spite of faults."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import object_storage
import pytest
from corpus_files import random_documents, write_corpus

from gptjax.data.corpus import mixture, reader, remote_shards, shard_queue
from gptjax.errors import InputError
from gptjax.storage.files import buckets, cache, paths

ARGUMENTS = dict(weights=[1.0], seed=3, batch_size=8, seq_len=16, cross_documents=True, shift=True)
PACKED = {'packing': True, 'restart_positions': True}
N_SHARDS = 12


@pytest.fixture(scope='module')
def local(tmp_path_factory):
  return Path(write_corpus(tmp_path_factory.mktemp('corpus') / 'c', random_documents(0, 200)[:-1],
                           validation=random_documents(1, 9), shard_tokens=333))


served = object_storage.served(object_storage.GS_AND_SLOWLY_S3)


def upload(folder, url):
  for path in folder.rglob('*'):
    if path.is_file():
      buckets.put(url / str(path.relative_to(folder)), path.read_bytes())


@pytest.fixture
def remote(served, local, tmp_path, monkeypatch, request):
  """The Url of a copy of the local corpus; the cache is empty, there are no faults yet."""
  scheme, faults = served
  monkeypatch.setattr(buckets, 'FIRST_PAUSE', 0.01)
  monkeypatch.setattr(cache._Settings, 'folder', tmp_path / 'cache')
  new_process(monkeypatch)
  url = paths.location(f'{scheme}://buck/{abs(hash(request.node.name))}')
  upload(local, url)
  original = {name: vars(faults)[name] for name in ('fail', 'cut', 'code', 'method', 'path')}
  yield url
  vars(faults).update(original)


def new_process(monkeypatch):
  monkeypatch.setattr(cache, '_reserved', {})
  monkeypatch.setattr(cache, '_verified', set())
  monkeypatch.setattr(remote_shards, '_queue', shard_queue.Queue())
  monkeypatch.setattr(remote_shards, '_told', set())


def batches(corpus, steps=range(30), **changed):
  return [reader.batch([corpus], step=step, **{**ARGUMENTS, **changed}) for step in steps]


def assert_same(remote, local, verify=True):
  """All that is read of an open remote corpus is that of the local one."""
  steps = range(20) if verify else range(3)  # many requests
  for options in ({}, {'cross_documents': False}, {'rows': slice(2, 5)}, PACKED):
    for one, other in zip(batches(remote, steps, **options), batches(local, steps, **options), strict=True):
      assert all((one[name] == other[name]).all() for name in other)
  for step in range(reader.n_eval_batches(local, 4, 16)):
    one, other = (reader.eval_batch(corpus, step, 4, 16, **PACKED) for corpus in (remote, local))
    assert all((one[name] == other[name]).all() for name in other)
  assert (remote.tokens(0, remote.n_tokens) == local.tokens(0, local.n_tokens)).all()
  assert (remote.document_starts == local.document_starts).all() and remote.digest == local.digest


@pytest.mark.ci
@pytest.mark.parametrize('verify', [True, False])
def test_all_that_is_read_is_that_of_the_local_copy(remote, local, monkeypatch, verify):
  for split in ('train', 'validation'):
    here = reader.open_corpus(local, split, verify=True)
    for _ in ('cold', 'warm'):
      new_process(monkeypatch)
      assert_same(reader.open_corpus(str(remote), split, verify=verify), here, verify)
  with pytest.raises(reader.MissingSplit):
    reader.open_corpus(str(remote), 'test', verify=verify)


def test_once_cached_a_step_makes_no_request(remote, served, local):
  corpus = reader.open_corpus(str(remote), 'train', verify=True)
  assert len(corpus.shards) == N_SHARDS
  list(corpus.shards)
  before = len(served[1].requests)
  batches(corpus)
  assert len(served[1].requests) == before
  assert len(content_reads(served[1], remote)) == N_SHARDS


def test_shards_are_fetched_in_the_order_of_the_batches_then_those_held_out(remote, local, served):
  corpora = [reader.open_corpus(str(remote), split, verify=True) for split in ('train', 'validation')]
  here = reader.open_corpus(local, 'train', verify=True)
  windows = lambda step: reader.batch_windows([here], step=step, **{**ARGUMENTS, 'batch_size': 1})
  expected = []
  for step in range(400):
    start, length = windows(step).start[0], windows(step).length[0]
    for token in range(start, start + length + 1):
      expected.append(int(np.searchsorted(here.shard_offsets, token % here.n_tokens, 'right')) - 1)
  shards = corpora[0].shards.all
  order = remote_shards._order(corpora[:1], corpora[1:], map(windows, range(400)))
  found = list(dict.fromkeys(shard for part in order for shard in part))
  assert found == [shards[number] for number in dict.fromkeys(expected)] + corpora[1].shards.all
  noted = []
  remote_shards.fetch_ahead(corpora[:1], [corpora[1], None], map(windows, range(400)), noted.append)
  deadline = time.monotonic() + 60
  while not all(shard.done for corpus in corpora for shard in corpus.shards.all):
    assert time.monotonic() < deadline
    time.sleep(0.05)
  before = len(served[1].requests)
  assert_same(corpora[0], here)
  assert len(served[1].requests) == before and noted == []
  remote_shards.fetch_ahead([here], [None], None, None)  # local: nothing is done


def test_an_awaited_shard_comes_before_those_that_are_planned(remote, monkeypatch):
  corpus = reader.open_corpus(str(remote), 'train', verify=True)
  loaded, load = [], remote_shards._Shard.load
  def slow(shard):
    time.sleep(0.1)
    load(shard)
    loaded.append(shard)
  monkeypatch.setattr(remote_shards._Shard, 'load', slow)
  remote_shards._queue.begin(iter([corpus.shards.all[:-1]]), print, lambda: None)
  time.sleep(0.05)
  corpus.shards[N_SHARDS - 1]
  remote_shards._queue.wait(corpus.shards.all)
  assert loaded.index(corpus.shards.all[-1]) < shard_queue.THREADS_IF_AWAITED


@pytest.mark.parametrize('limit', [0, 2000, 5000])
def test_what_the_cache_has_no_room_for_is_read_by_ranges(remote, local, served, monkeypatch, capsys, limit):
  monkeypatch.setattr(cache._Settings, 'limit', limit or 1)
  corpus = reader.open_corpus(str(remote), 'train', verify=True)
  assert_same(corpus, reader.open_corpus(local, 'train', verify=True), verify=False)
  held = sum(path.stat().st_size for path in (cache._Settings.folder / 'files').glob('*'))
  assert held <= limit and (held > 0 or limit < 5000)
  assert capsys.readouterr().err.count('no room for all shards') == 1
  corpus.shards.verify()
  before = len(served[1].requests)
  batches(corpus, [5], batch_size=4)
  assert len(served[1].requests) - before <= 8  # at most two parts of each window


def test_the_files_used_least_recently_make_room(remote, local, monkeypatch):
  monkeypatch.setattr(cache._Settings, 'limit', 20_000)
  (cache._Settings.folder / 'files').mkdir(parents=True)
  old = cache._Settings.folder / 'files' / 'of another corpus'
  old.write_bytes(bytes(18_000))
  corpus = reader.open_corpus(str(remote), 'train', verify=True)
  batches(corpus)
  assert not old.exists()
  assert all(isinstance(shard.content, np.ndarray) for shard in corpus.shards.all)


def damage(content):
  return content[:100] + bytes([content[100] ^ 1]) + content[101:]


def test_a_damaged_shard_is_reported_before_a_token_of_it_is_used(remote, local, monkeypatch):
  name = 'train-00003.bin'
  buckets.put(remote / name, damage((local / name).read_bytes()))
  corpus = reader.open_corpus(str(remote), 'train', verify=True)
  good = [shard for shard in range(N_SHARDS) if shard != 3]
  assert all(len(corpus.shards[shard]) for shard in good)
  for _ in range(2):
    with pytest.raises(InputError, match=rf'{name} is damaged: its SHA-256 is'):
      corpus.shards[3]
  with pytest.raises(InputError, match=rf'{name} is damaged'):
    batches(corpus)
  monkeypatch.setattr(cache._Settings, 'limit', 1)
  new_process(monkeypatch)
  with pytest.raises(InputError, match=rf'{name} is damaged'):
    reader.open_corpus(str(remote), 'train', verify=True).shards.verify()


def test_a_fault_far_ahead_is_noted_at_once_and_raised_when_it_is_read(remote, local):
  name = 'train-00003.bin'
  buckets.put(remote / name, damage((local / name).read_bytes()))
  for mended in (False, True):
    corpus = reader.open_corpus(str(remote), 'train', verify=True)
    noted, damaged = [], corpus.shards.all[3]
    remote_shards.fetch_ahead([corpus], [], (reader.batch_windows([corpus], step=step, **ARGUMENTS)
                                             for step in range(99)), noted.append)
    deadline = time.monotonic() + 60
    while not all(shard.done for shard in corpus.shards.all if shard is not damaged) or not damaged.failed:
      assert time.monotonic() < deadline
      time.sleep(0.05)
    assert len(noted) == 1 and 'train-00003.bin is damaged' in noted[0]
    if mended:
      buckets.put(remote / name, (local / name).read_bytes())
      assert (corpus.shards[3] == np.fromfile(local / name, '<u2')).all()
    else:
      with pytest.raises(InputError, match=rf'{name} is damaged'):
        batches(corpus)


def test_a_damaged_copy_in_the_cache_is_downloaded_again(remote, local, monkeypatch, capsys):
  batches(reader.open_corpus(str(remote), 'train', verify=True))
  for path in (cache._Settings.folder / 'files').glob('*'):
    if path.stat().st_size > 101:
      path.write_bytes(damage(path.read_bytes()))
  new_process(monkeypatch)
  assert_same(reader.open_corpus(str(remote), 'train', verify=True),
              reader.open_corpus(local, 'train', verify=True))
  assert capsys.readouterr().err.count('is damaged: downloading') == N_SHARDS + 1


@pytest.mark.parametrize('name', ['train-00003.bin', 'train-documents.bin'])
def test_a_missing_or_cut_file_is_an_error_at_the_start(remote, local, name):
  buckets.put(remote / name, (local / name).read_bytes()[:-2])
  with pytest.raises(InputError, match=rf'{remote / name} has .* bytes, not'):
    reader.open_corpus(str(remote), 'train', verify=False)
  buckets.remove(remote / name)
  with pytest.raises(InputError, match=rf'{remote / name} is missing'):
    reader.open_corpus(str(remote), 'train', verify=False)


def test_what_is_no_corpus_is_an_error(remote):
  with pytest.raises(InputError, match=r'nothing does not exist: create it with'):
    reader.open_corpus(f'{remote}/nothing', 'train', verify=False)
  buckets.remove(remote / 'manifest.json')
  with pytest.raises(InputError, match=r'manifest.json does not exist'):
    reader.open_corpus(str(remote), 'train', verify=False)


@pytest.mark.parametrize('fault', [{'fail': 0.1}, {'cut': 0.1, 'method': 'GET'}])
@pytest.mark.parametrize('limit', [0, 1])
def test_faults_that_pass_change_nothing(remote, local, served, monkeypatch, fault, limit):
  monkeypatch.setattr(cache._Settings, 'limit', limit)
  vars(served[1]).update(fault)
  corpus = reader.open_corpus(str(remote), 'train', verify=True)
  for one, other in zip(batches(corpus, range(3)),
                        batches(reader.open_corpus(local, 'train', verify=True), range(3)), strict=True):
    assert all((one[name] == other[name]).all() for name in other)


def test_a_mixture_of_corpora_here_and_in_a_bucket(remote, local, served):
  upload(local, remote.parent / 'other' / 'd')
  folders = [str(remote), f'{remote.parent}/other/d']
  opened = mixture.open_mixture(folders, [0.5, 0.5], verify=True)
  assert opened.names == [remote.name, 'other/d']
  assert mixture.open_mixture([str(local), *folders], [1, 1, 1], verify=False).names == [str(local), *folders]
  with pytest.raises(InputError, match='listed twice'):
    mixture.open_mixture([folders[0], f'{folders[0]}/'], [1, 1], verify=False)
  here = [reader.open_corpus(local, 'train', verify=True)] * 2
  options = {**ARGUMENTS, 'weights': [1, 1]}
  one, other = (reader.batch(corpora, step=7, **options) for corpora in (opened.train, here))
  assert (one['inputs'] == other['inputs']).all()


READER = '''
import sys
from pathlib import Path
from gptjax.data.corpus import reader
from gptjax.storage.files import cache
cache._Settings.folder = Path(sys.argv[2])
corpus = reader.open_corpus(sys.argv[1], 'train', verify=True)
print('open', flush=True)
print(int(corpus.tokens(0, corpus.n_tokens).sum()), flush=True)
'''


def start_reader(url, folder):
  return subprocess.Popen([sys.executable, '-c', READER, str(url), str(folder)], stdout=subprocess.PIPE,
                          text=True, env=os.environ)


def content_reads(faults, url):
  """The requests for the content of shards."""
  return [path for method, path, _ in faults.requests if method == 'GET' and url.name in path
          and re.search(r'train-\d+\.bin\?alt=media|^/buck/.*train-\d+\.bin$', path)]


def test_two_processes_share_the_cache(remote, local, served, tmp_path):
  before = len(content_reads(served[1], remote))
  readers = [start_reader(remote, tmp_path / 'shared') for _ in range(2)]
  sums = [process.communicate(timeout=120)[0].split()[-1] for process in readers]
  here = reader.open_corpus(local, 'train', verify=True)
  assert sums == [str(int(here.tokens(0, here.n_tokens).sum()))] * 2
  assert len(content_reads(served[1], remote)) - before == N_SHARDS


def test_a_kill_during_a_download_leaves_nothing_that_is_used(remote, local, served, tmp_path, monkeypatch):
  vars(served[1]).update(stall_first=2, path=r'train-0.*alt=media|/train-0', method='GET')
  process = start_reader(remote, tmp_path / 'killed')
  assert process.stdout.readline() == 'open\n'
  time.sleep(1)
  process.kill()
  process.wait()
  vars(served[1]).update(stall_first=0)
  assert start_reader(remote, tmp_path / 'killed').communicate(timeout=120)[0].split()[-1].isdigit()
  manifest = json.loads((local / 'manifest.json').read_text())['splits']['train']
  names = {path.name for path in (tmp_path / 'killed' / 'files').iterdir() if path.suffix != '.lock'}
  assert names == {file['sha256'] for file in (*manifest['shards'], manifest['index'])}
