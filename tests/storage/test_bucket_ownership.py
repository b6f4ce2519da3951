"""One owner of a folder in a bucket: processes that share nothing else, and owners that vanish."""

import concurrent.futures
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time

import object_storage
import pytest
from conftest import ROOT

from gptjax.errors import InputError
from gptjax.storage import bucket_ownership, owner_record, ownership
from gptjax.storage.files import buckets, paths

OWNER = """
import sys, time
from gptjax.storage import ownership
from gptjax.storage.files import paths
with ownership.own_folder(paths.location(sys.argv[1])):
  print('owned', flush=True)
  time.sleep(1000)
"""
NUMBERS = itertools.count()


@pytest.fixture(scope='module', params=object_storage.GS_AND_SLOWLY_S3)
def served(request):
  with object_storage.in_process(object_storage.BUCKETS[request.param]('buck')):
    yield request.param


@pytest.fixture
def folder(served, monkeypatch):
  for name, seconds in (('HEARTBEAT', 0.2), ('TAKEOVER', 1.5)):
    monkeypatch.setattr(bucket_ownership, name, seconds)
  return paths.location(f'{served}://buck/run{next(NUMBERS)}')


def elsewhere(record):
  """The record as a process of another machine would have written it."""
  return {**record, 'machine': ['b', 'x', 'y'], 'host': 'b', 'pid': 7}


def put(folder, record, number=1):
  buckets.put(folder / 'owner' / f'{number:06}.json', json.dumps(record))


def test_a_second_owner_is_told_of_the_first_and_harms_nothing(folder):
  with ownership.own_folder(folder):
    before = bucket_ownership.read(folder)[1]
    refused = pytest.raises(InputError, match=rf'in use by process {os.getpid()} on .* \(since ')
    with refused, ownership.own_folder(folder):
      pass
    assert bucket_ownership.read(folder)[1]['token'] == before['token']
    ownership.check(folder / 'checkpoints' / '1')
  assert buckets.find(folder) == {}


def test_an_owner_elsewhere_lives_as_long_as_its_heart_beats(folder):
  record = elsewhere(owner_record.new())
  put(folder, record)
  with concurrent.futures.ThreadPoolExecutor(1) as pool:
    beating = pool.submit(lambda: time.sleep(0.7) or put(folder, {**record, 'beat': 5}))
    with pytest.raises(InputError, match='in use by process 7 on b'), ownership.own_folder(folder, print):
      pass
    beating.result()


def test_a_vanished_owner_is_replaced_after_a_while(folder):
  said = []
  put(folder, elsewhere(owner_record.new()))
  started = time.monotonic()
  with ownership.own_folder(folder, said.append):
    assert time.monotonic() - started > bucket_ownership.TAKEOVER
    assert bucket_ownership.read(folder)[1]['pid'] == os.getpid()
  assert len(said) == 1 and 'was not released by process 7 on b' in said[0]


def test_an_outage_of_the_storage_is_no_sign_that_the_owner_has_vanished(folder, monkeypatch):
  record, read, looks = elsewhere(owner_record.new()), bucket_ownership.read, []
  put(folder, record)
  def slow(folder):  # the first look lasts longer than TAKEOVER, and the owner beats soon afterwards
    looks.append(1)
    if len(looks) == 2:
      time.sleep(2)
    elif len(looks) == 4:
      put(folder, {**record, 'beat': 1})
    return read(folder)
  monkeypatch.setattr(bucket_ownership, 'read', slow)
  with pytest.raises(InputError, match='is in use by process 7 on b'), ownership.own_folder(folder):
    pass


def test_the_heart_beats_soon_after_an_outage(folder, monkeypatch):
  pauses = []
  monkeypatch.setattr(buckets, '_repeated', lambda url, attempt, longest=None: pauses.append(longest))
  ended = threading.Event()
  threading.Timer(0.5, ended.set).start()
  bucket_ownership._beat(folder / 'owner' / '000001.json', {'beat': 0}, ended)
  assert pauses and set(pauses) == {bucket_ownership.HEARTBEAT}


def test_a_killed_owner_of_this_machine_is_replaced_at_once(folder, tmp_path):
  process = subprocess.Popen([sys.executable, '-c', OWNER, str(folder)], cwd=tmp_path, text=True,
                             env={**os.environ, 'PYTHONPATH': str(ROOT)}, stdout=subprocess.PIPE)
  try:
    assert process.stdout.readline() == 'owned\n'
    with pytest.raises(InputError, match=f'in use by process {process.pid}'), ownership.own_folder(folder):
      pass
  finally:
    process.send_signal(signal.SIGKILL)
    process.communicate()
  said = []
  with ownership.own_folder(folder, said.append):
    assert not said and bucket_ownership.read(folder)[1]['pid'] == os.getpid()


@pytest.mark.first_cases(1)
@pytest.mark.parametrize('vanished', [False, True])
def test_one_of_many_that_start_together_owns_the_folder(folder, vanished):
  if vanished:
    put(folder, elsewhere(owner_record.new()))
  def own(_):
    try:
      with ownership.own_folder(folder, lambda line: None):
        time.sleep(3)
        return True
    except InputError:
      return False
  with concurrent.futures.ThreadPoolExecutor(6) as pool:
    assert sum(pool.map(own, range(6))) == 1


def test_a_process_that_lost_the_folder_commits_nothing_and_leaves_the_new_owner(folder):
  new = elsewhere(owner_record.new())
  with ownership.own_folder(folder):
    put(folder, new, 2)
    with pytest.raises(InputError, match=r'was taken over by process 7 on b .*this run ends'):
      ownership.check(folder / 'checkpoints')
    time.sleep(0.6)
  assert bucket_ownership.read(folder) == (2, new)


def test_a_late_request_of_an_earlier_owner_changes_nothing(folder):
  put(folder, elsewhere(owner_record.new()))
  with ownership.own_folder(folder, lambda line: None):
    put(folder, {**elsewhere(owner_record.new()), 'beat': 9})
    ownership.check(folder / 'checkpoints')
    with pytest.raises(InputError, match=f'in use by process {os.getpid()}'), ownership.own_folder(folder):
      pass


def test_a_workdir_keeps_the_number_of_its_last_owner(folder):
  for number in (1, 2, 3):
    with ownership.own_workdir(folder):
      assert bucket_ownership.read(folder)[0] == number
    assert bucket_ownership.read(folder)[1]['released']
  assert buckets.names(folder / 'owner') == ['000003.json']


def test_a_folder_on_this_machine_is_never_lost(tmp_path):
  with ownership.own_folder(tmp_path / 'run'):
    (tmp_path / 'run' / owner_record.FILE).write_text('{}')
    ownership.check(tmp_path / 'run' / 'checkpoints')
