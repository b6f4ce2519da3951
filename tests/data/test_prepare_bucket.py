"""A corpus that is prepared into a bucket is the local one, byte for byte, in spite of kills and faults."""

import errno
import json
import os
import signal
import subprocess
import sys
import time

import object_storage
import prepared
import pytest
from conftest import slow_except
from prepared import contents, make_texts, write_jsonl

from gptjax.data import inspect as inspect_command
from gptjax.data import prepare
from gptjax.data.clean import webtext
from gptjax.data.corpus import reader, remote_shards, shard_queue
from gptjax.data.stages import join, parts
from gptjax.errors import InputError
from gptjax.storage import bucket_ownership
from gptjax.storage.files import buckets, cache, paths, spool

OPTIONS = dict(shard_tokens=500)


served = object_storage.served(object_storage.GS_AND_SLOWLY_S3)


@pytest.fixture
def url(served, tmp_path, monkeypatch, request):
  """The Url of an empty folder; the cache is empty, there are no faults yet."""
  scheme, faults = served
  monkeypatch.setattr(buckets, 'FIRST_PAUSE', 0.01)
  monkeypatch.setattr(cache._Settings, 'folder', tmp_path / 'cache')
  monkeypatch.setattr(cache, '_reserved', {})
  monkeypatch.setattr(cache, '_verified', set())
  monkeypatch.setattr(remote_shards, '_queue', shard_queue.Queue())
  original = {name: vars(faults)[name] for name in ('fail', 'cut', 'code', 'method', 'path', 'stall_first')}
  yield paths.location(f'{scheme}://buck/{abs(hash(request.node.name))}/c')
  vars(faults).update(original)


@pytest.fixture(scope='module')
def source(tmp_path_factory):
  return write_jsonl(tmp_path_factory.mktemp('source') / 'a.jsonl', make_texts(40))


@pytest.fixture(scope='module')
def local(source, tmp_path_factory):
  folder = tmp_path_factory.mktemp('local') / 'c'
  prepared.run(source, folder, **OPTIONS)
  return folder


def in_bucket(url):
  return {name: buckets.read(url / name) for name in buckets.find(url)}


@pytest.fixture(scope='module', autouse=True)
def small_parts():
  with pytest.MonkeyPatch.context() as patched:
    patched.setattr(parts, 'MIN_BYTES', 9000)
    yield


def test_the_corpus_is_that_of_a_local_folder(url, source, local, served):
  manifest = prepared.run(source, url, **OPTIONS)
  assert in_bucket(url) == contents(local) and len(manifest['splits']['train']['shards']) > 3
  corpus = reader.open_corpus(str(url), 'train', verify=True)
  assert (corpus.tokens(0, corpus.n_tokens) == reader.open_corpus(local, 'train', verify=True).tokens(
    0, corpus.n_tokens)).all()
  before = len(served[1].requests)
  assert prepared.run(source, url, **OPTIONS) == manifest
  assert all(method in ('GET', 'HEAD', 'DELETE') for method, *_ in served[1].requests[before:])


@pytest.mark.slow
def test_test_sets_in_a_bucket_are_excluded_as_those_of_a_folder(url, source, tmp_path):
  texts = make_texts(40)
  test = ''.join(json.dumps({'text': text[5:90]}) + '\n' for text in texts[::9])
  (tmp_path / 'test').mkdir()
  (tmp_path / 'test' / 'a.jsonl').write_text(test)
  buckets.put(url.parent / 'test' / 'more' / 'a.jsonl', test)
  for spans in (False, True):
    options = {**OPTIONS, 'clean': 'webtext', 'exclude_spans': spans,
               'clean_without': [name for name in webtext.FILTERS if name not in webtext.DUPLICATES]}
    here = prepared.run(source, tmp_path / f'c{spans}', exclude=[f'{tmp_path}/test'], **options)
    there = prepared.run(source, url.parent / f'c{spans}', exclude=[f'{url.parent}/test'], **options)
    assert here['splits'] == there['splits'] and here['skipped'] == there['skipped']
    assert [*here['excluded'].values()] == [*there['excluded'].values()]
    assert here['excluded'][f'{tmp_path}/test']['source_documents'] > 3


def test_another_corpus_or_other_content_is_refused(url, source):
  prepared.run(source, url, **OPTIONS)
  with pytest.raises(InputError, match=rf'{url} holds a corpus, complete or partial, with another seq_len'):
    prepared.run(source, url, **OPTIONS, seq_len=5)
  buckets.put(url.parent / 'notes' / 'diary.txt', 'dear')
  with pytest.raises(InputError, match=r'notes is not empty \(it holds diary.txt\): give a new folder'):
    prepared.run(source, url.parent / 'notes', **OPTIONS)
  assert in_bucket(url.parent / 'notes') == {'diary.txt': b'dear'}


def test_a_second_process_is_refused(url, source):
  owned = bucket_ownership.own(url, print, keep_record=False)
  with owned, pytest.raises(InputError, match=rf'{url} is in use by process'):
    prepared.run(source, url, **OPTIONS)
  assert in_bucket(url) == {}


def test_a_manifest_of_another_process_is_not_replaced(url, source, monkeypatch):
  write = join.write_manifest
  def after_another(job):
    buckets.put(url / 'manifest.json', 'of another')
    return write(job)
  monkeypatch.setattr(join, 'write_manifest', after_another)
  with pytest.raises(InputError, match='has a manifest now, of another process'):
    prepared.run(source, url, **OPTIONS)
  assert buckets.read(url / 'manifest.json') == b'of another'


@pytest.mark.first_cases(1)
@pytest.mark.parametrize('fault', [{'fail': 0.1}, {'cut': 0.1, 'method': 'GET'}])
def test_faults_that_pass_change_nothing(url, source, local, served, fault):
  vars(served[1]).update(fault)
  prepared.run(source, url, **OPTIONS)
  vars(served[1]).update(fail=0, cut=0)
  assert in_bucket(url) == contents(local)


def test_an_upload_that_fails_is_an_error_and_the_next_call_goes_on(url, source, local, monkeypatch):
  put_file, n_puts = spool.put_file, []
  def fail_at_last(url, path):
    n_puts.append(url)
    if len(n_puts) > 12:
      raise InputError('no access')
    put_file(url, path)
  monkeypatch.setattr(spool, 'put_file', fail_at_last)
  with pytest.raises(InputError, match='no access'):
    prepared.run(source, url, **OPTIONS)
  assert 'manifest.json' not in in_bucket(url) and 'progress.json' in in_bucket(url)
  with pytest.raises(InputError, match=rf'{url} holds a corpus, complete or partial, with another seq_len'):
    prepared.run(source, url, **OPTIONS, seq_len=5)
  again = []
  monkeypatch.setattr(spool, 'put_file', lambda url, path: (again.append(url), put_file(url, path)))
  prepared.run(source, url, **OPTIONS)
  assert in_bucket(url) == contents(local)
  assert not set(n_puts[:10]) & set(again)  # of two complete parts


@pytest.mark.ci
def test_tasks_on_machines_that_share_only_the_bucket(url, source, local, monkeypatch, tmp_path):
  stages = {'judge': 3, 'mark': 1, 'tokenizer': 1, 'encode': 3, 'join': 2}
  options = {**OPTIONS, 'clean': 'webtext', 'clean_without': webtext.FILTERS[:-2]}
  prepared.run(source, tmp_path / 'one', **options)
  for stage, tasks in stages.items():
    for task in reversed(range(tasks)):
      monkeypatch.setattr(cache._Settings, 'folder', tmp_path / f'machine {stage} {task}')
      prepared.run(source, url, stage=stage, task=task, tasks=tasks, **options)
  assert in_bucket(url) == contents(tmp_path / 'one')


@pytest.mark.ci
@pytest.mark.parametrize('suffix', ['train', 'train-starts'])
def test_a_missing_object_of_a_result_is_an_error_that_says_what_to_do(url, source, local, suffix):
  for stage in ('tokenizer', 'encode'):
    prepared.run(source, url, stage=stage, **OPTIONS)
  [lost] = [url / name for name in buckets.find(url) if name.endswith(f'encode/00001.{suffix}')]
  buckets.remove(lost)
  record = str(lost).replace(suffix, 'json')
  with pytest.raises(InputError, match=rf'{lost} is missing: remove {record}, and run --stage=encode again'):
    prepared.run(source, url, stage='join', **OPTIONS)
  buckets.remove(lost.parent / '00001.json')
  prepared.run(source, url, **OPTIONS)
  assert in_bucket(url) == contents(local)


KILLED = '''
import sys
import prepared
from pathlib import Path
from gptjax.storage.files import cache
cache._Settings.folder = Path(sys.argv[3])
from gptjax.data.stages import parts
parts.MIN_BYTES = 9000
prepared.run(sys.argv[1], sys.argv[2], shard_tokens=500)
'''


@pytest.mark.ci
@pytest.mark.parametrize('requests', slow_except([8, 20, 35], 20))
def test_killed_during_the_upload_the_same_call_goes_on(url, source, local, served, tmp_path, requests):
  command = [sys.executable, '-c', KILLED, source, str(url), str(cache._Settings.folder)]
  before = len(served[1].requests)
  process = subprocess.Popen(command, env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)})
  deadline = time.monotonic() + 120
  while process.poll() is None and len(served[1].requests) < before + requests:
    assert time.monotonic() < deadline
    time.sleep(0.002)
  process.kill()
  assert process.wait() == -signal.SIGKILL, 'it ended before'
  prepared.run(source, url, **OPTIONS)
  assert in_bucket(url) == contents(local)


def test_the_commands_take_buckets(url, source, local, capsys, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  prepare.main([f'--source={source}', '--tokenizer=train-bpe:300', f'--out={url}', '--seq_len=4',
                '--validation_fraction=0.1'])
  assert 'held out' in capsys.readouterr().out
  inspect_command.main([str(url), f'--png={url.parent}/lengths.png'])
  shown = capsys.readouterr().out
  assert f'corpus      {url}' in shown and 'are unchanged' in shown
  assert buckets.read(url.parent / 'lengths.png').startswith(b'\x89PNG')
  for flags in (['--document=3'], ['--step=2', '--batch_size=2', '--seq_len=8', '--seed=0',
                                   '--cross_documents=true', '--shift_windows=true']):
    outputs = []
    for folder in (url, local):
      inspect_command.main([str(folder), *flags])
      outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1]
  assert list(tmp_path.iterdir()) == [tmp_path / 'cache']


def test_a_damaged_shard_is_found_by_the_command(url, source):
  prepared.run(source, url, **OPTIONS)
  content = buckets.read(url / 'train-00001.bin')
  buckets.put(url / 'train-00001.bin', content[:-2] + b'\0\0')
  with pytest.raises(InputError, match=r'train-00001.bin is damaged'):
    inspect_command.main([str(url)])


def test_a_corpus_in_a_bucket_is_a_source(url, source, local, tmp_path):
  prepared.run(source, url, **OPTIONS)
  prepared.run(f'corpus:{local}', tmp_path / 'a', 'train-char')
  prepared.run(f'corpus:{url}', tmp_path / 'b', 'train-char')
  prepared.run(f'corpus:{url}:train', tmp_path / 'd', f'bpe:{url}/tokenizer')
  one, other = contents(tmp_path / 'a'), contents(tmp_path / 'b')
  assert all(one[name] == other[name] for name in one if name != 'manifest.json')


def test_a_full_disk_ends_it_and_the_same_command_continues(url, source, local, monkeypatch):
  temporary, left = spool.temporary, [7]
  def full(url):
    left[0] -= 1
    if left[0] < 0:
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return temporary(url)
  with monkeypatch.context() as patched:
    patched.setattr(spool, 'temporary', full)
    with pytest.raises(OSError, match='No space left'):
      prepared.run(source, url, **OPTIONS)
  prepared.run(source, url, **OPTIONS)
  assert in_bucket(url) == contents(local)
