"""One process writes to a folder: a second one is refused, and one that is gone is in nobody's way."""

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading

import pytest
from conftest import ENVIRONMENT, ROOT, train

from gptjax.storage import ownership
from gptjax.storage.files import locks

HOLD = r"""
import os, sys, time
from gptjax.storage import ownership
with ownership.own_folder(sys.argv[1]):
  if sys.argv[2] == 'fork' and not os.fork():
    os.write(1, f'{os.getpid()}\n'.encode())  # whole lines, for two processes share the pipe
    time.sleep(600)
  os.write(1, b'ready\n')
  time.sleep(600)
"""


@pytest.fixture
def held():
  """Starts a process that owns a folder, and ends it with the test."""
  started = []
  def start(folder, what='', program=HOLD):
    process = subprocess.Popen([sys.executable, '-c', program, str(folder), what], cwd=ROOT, text=True,
                               env=ENVIRONMENT, stdout=subprocess.PIPE)
    started.append(process)
    first = [process.stdout.readline().strip() for _ in range(2 if what == 'fork' else 1)]
    assert 'ready' in first
    return process, next((int(line) for line in first if line != 'ready'), None)
  yield start
  for process in started:
    process.kill()
    process.communicate()


def kill(process):
  process.send_signal(signal.SIGKILL)
  process.wait()


def without_flock(monkeypatch, number=errno.ENOSYS):
  def flock(file, how):
    raise OSError(number, os.strerror(number))
  monkeypatch.setattr(fcntl, 'flock', flock)
  monkeypatch.setattr(ownership, 'SETTLE', 0.01)


def nothing_said(line):
  raise AssertionError(line)


def test_the_second_is_refused_and_told_who_was_first(tmp_path, held):
  process, _ = held(tmp_path)
  record = (tmp_path / 'owner.json').read_bytes()
  with pytest.raises(ValueError) as refused, ownership.own_folder(tmp_path):
    pass
  said, since = str(refused.value), json.loads(record)['since']
  assert f'{tmp_path} is in use by process {process.pid} on {socket.gethostname()} (since {since})' in said
  assert (tmp_path / 'owner.json').read_bytes() == record


@pytest.mark.parametrize('what', ['', 'fork'])
def test_after_a_kill_it_is_taken_over_without_a_word_even_if_a_forked_child_lives_on(tmp_path, held, what):
  process, child = held(tmp_path, what)
  try:
    kill(process)
    with ownership.own_folder(tmp_path, nothing_said):
      assert json.loads((tmp_path / 'owner.json').read_text())['pid'] == os.getpid()
  finally:
    if child:
      os.kill(child, signal.SIGKILL)


def test_a_process_that_is_started_does_not_inherit_the_lock(tmp_path):
  with ownership.own_folder(tmp_path):
    child = subprocess.Popen(['sleep', '60'], close_fds=False)
  try:
    with ownership.own_folder(tmp_path, nothing_said):
      assert child.poll() is None and (tmp_path / 'owner.json').exists()
  finally:
    child.kill()
    child.wait()


def test_afterwards_nothing_is_left(tmp_path):
  with ownership.own_folder(tmp_path / 'runs' / 'a'):
    assert (tmp_path / 'runs' / 'a' / 'owner.json').exists()
  assert not list(tmp_path.iterdir())
  with ownership.own_folder(tmp_path / 'b'):
    (tmp_path / 'b' / 'config.json').touch()
  assert [path.name for path in (tmp_path / 'b').iterdir()] == ['config.json']
  with pytest.raises(ValueError, match='not writable'), ownership.own_folder(tmp_path / 'b' / 'config.json'):
    pass


@pytest.mark.parametrize('content', [b'', b'{"pid": 1', b'\xff\x00', b'[]', b'{"pid": "x", "process": null}'])
def test_a_damaged_record_is_in_nobodys_way(tmp_path, content):
  (tmp_path / 'owner.json').write_bytes(content)
  with ownership.own_folder(tmp_path, nothing_said):
    assert json.loads((tmp_path / 'owner.json').read_text())['pid'] == os.getpid()


@pytest.fixture
def quick(monkeypatch):
  monkeypatch.setattr(ownership, 'HEARTBEAT', 0.05)
  monkeypatch.setattr(ownership, 'HEARTBEAT_LIMIT', 1.0)


@pytest.mark.parametrize('number', sorted(locks.UNSUPPORTED))
def test_without_flock_the_process_of_the_record_is_looked_up(tmp_path, held, monkeypatch, number):
  process, _ = held(tmp_path)
  without_flock(monkeypatch, number)
  said = []
  with (pytest.raises(ValueError, match=f'in use by process {process.pid}'),
        ownership.own_folder(tmp_path, said.append)):
    pass
  kill(process)
  with ownership.own_folder(tmp_path, said.append):
    assert json.loads((tmp_path / 'owner.json').read_text())['pid'] == os.getpid()
    with (pytest.raises(ValueError, match=f'in use by process {os.getpid()}'),
          ownership.own_folder(tmp_path, print)):
      pass
  assert len(said) == 2 and all('has no flock' in line for line in said)
  assert not list(tmp_path.iterdir())


def test_without_flock_a_later_process_of_the_same_number_is_another_one(tmp_path, monkeypatch):
  without_flock(monkeypatch)
  with ownership.own_folder(tmp_path, print):
    record = json.loads((tmp_path / 'owner.json').read_text())
  (tmp_path / 'owner.json').write_text(json.dumps(record | {'process': '1'}))
  with ownership.own_folder(tmp_path, print):
    owner = json.loads((tmp_path / 'owner.json').read_text())
    assert owner['pid'] == record['pid'] and owner['process'] == record['process'] != '1'
    assert owner['token'] != record['token']


def test_without_flock_one_of_two_at_the_same_moment_gives_way(tmp_path, monkeypatch):
  without_flock(monkeypatch)
  def other(seconds):
    (tmp_path / 'owner.json').write_text(json.dumps({'host': 'b', 'pid': 7, 'since': 'now', 'token': 'b',
                                                   'machine': ['b']}))
  monkeypatch.setattr(ownership.time, 'sleep', other)
  with pytest.raises(ValueError, match='in use by process 7 on b'), ownership.own_folder(tmp_path, print):
    pass
  assert json.loads((tmp_path / 'owner.json').read_text())['token'] == 'b'


@pytest.mark.parametrize('flock', [True, False])
def test_an_owner_on_another_machine_lives_as_long_as_its_heart_beats(tmp_path, monkeypatch, quick, flock):
  """With a lock too: it may be one that other machines do not see."""
  if not flock:
    without_flock(monkeypatch)
  record = {'host': 'b', 'pid': 7, 'since': 'noon', 'token': 'b', 'machine': ['b'], 'beat': 0}
  gone, said = threading.Event(), []
  def beat():
    while not gone.is_set():
      record['beat'] += 1
      (tmp_path / 'new').write_text(json.dumps(record))
      (tmp_path / 'new').replace(tmp_path / 'owner.json')
      gone.wait(0.02)
  (tmp_path / 'owner.json').write_text(json.dumps(record))
  thread = threading.Thread(target=beat)
  thread.start()
  try:
    with (pytest.raises(ValueError, match=r'in use by process 7 on b \(since noon\)'),
          ownership.own_folder(tmp_path, said.append)):
      pass
  finally:
    gone.set()
    thread.join()
  with ownership.own_folder(tmp_path, said.append):
    mine = lambda: json.loads((tmp_path / 'owner.json').read_bytes() or '{}')
    while mine().get('beat', 0) < 3:  # its own heart beats
      pass
    assert mine()['pid'] == os.getpid()
  assert any('not released by process 7 on b' in line for line in said)


def test_a_second_run_changes_nothing_in_the_workdir_of_the_first(corpus_folder, tmp_path):
  (tmp_path / 'run').mkdir()
  (tmp_path / 'run' / 'metrics.jsonl').write_text('of the first\n')
  with ownership.own_folder(tmp_path / 'run'):
    contents = {path: path.read_bytes() for path in (tmp_path / 'run').rglob('*')}
    second = train('', tmp_path / 'run', f'--config.data.source=text:{corpus_folder}/../00.txt',
                   '--config.data.tokenizer=train-bpe:290')
    assert {path: path.read_bytes() for path in (tmp_path / 'run').rglob('*')} == contents
  assert second.returncode == 2, second.stderr
  last = second.stderr.strip().splitlines()
  assert len(last) == 1 and f'in use by process {os.getpid()} on {socket.gethostname()} (since ' in last[0]
