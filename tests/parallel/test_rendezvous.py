"""The meeting before JAX starts: everyone is let in, strangers are passed over, and what is wrong is said."""

import concurrent.futures
import contextlib
import errno
import json
import os
import queue
import socket
import stat
import threading
import time
from types import SimpleNamespace

import jax
import pytest

from gptjax.errors import InputError, LostProcess
from gptjax.parallel import control, rendezvous, rendezvous_server, run_token


def free_address():
  with socket.create_server(('127.0.0.1', 0)) as server:
    return f'127.0.0.1:{server.getsockname()[1]}'


def outcomes(arguments, limit=60, workdir='', log=lambda line: None):
  """(hosts, bind) that each `meet(address, n, me)` gives, or the message of its error."""
  def one(arguments):
    try:
      met = rendezvous.connect(*arguments, limit, str(workdir), log)
    except (InputError, LostProcess, rendezvous.Stopped) as error:
      return str(error)
    for connection in met.connections.values():
      connection.close()
    return met.hosts, met.bind
  with concurrent.futures.ThreadPoolExecutor(len(arguments)) as threads:
    return list(threads.map(one, arguments))


@contextlib.contextmanager
def process_0(n, workdir='', limit=30):
  """`outcomes` of process 0, as it waits: (its address, the future)."""
  address = free_address()
  with concurrent.futures.ThreadPoolExecutor(1) as threads:
    yield address, threads.submit(outcomes, [(address, n, 0)], limit, workdir)


class Stranger:
  """Anyone who can reach the port; what process 0 sends is in `heard`."""

  def __init__(self, address):
    host, _, port = address.rpartition(':')
    deadline = time.monotonic() + 30
    while True:
      try:
        self.socket = socket.create_connection((host, int(port)), timeout=30)
        break
      except OSError:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    self.lines, self.heard = self.socket.makefile('rb'), b''

  def say(self, value):
    self.socket.sendall(json.dumps(value).encode() + b'\n')

  def hear(self):
    line = self.lines.readline()
    self.heard += line
    return json.loads(line) if line else None

  def greet(self, number, n, host='there'):
    """Says who it is; gives the answer, None if the connection was closed."""
    self.say({'process': number, 'n': n, 'host': host, 'nonce': 'x'})
    return self.hear()

  def prove(self, key, number, n, host='there'):
    """Comes as a process of the run would; gives the answer to its proof."""
    answer = self.greet(number, n, host)
    self.say(run_token.proof(key, 'process', 'x', answer['nonce'], number, n, host))
    return self.hear()


HERE = socket.gethostname()


@pytest.fixture(autouse=True)
def no_token(monkeypatch):
  monkeypatch.delenv(run_token.VARIABLE, raising=False)


@pytest.mark.parametrize('token', ['none', 'in the workdir', 'in the environment'])
def test_all_learn_the_hosts_and_process_0_where_to_listen(tmp_path, monkeypatch, token):
  if token == 'in the environment':
    monkeypatch.setenv(run_token.VARIABLE, 'a secret of the run')
  address, workdir = free_address(), tmp_path / 'runs' / 'one' if token == 'in the workdir' else ''
  found = outcomes([(address, 5, i) for i in range(5)], workdir=workdir)
  known = lambda me: [HERE if i in (0, me) else '' for i in range(5)]
  assert found == [([HERE] * 5, address)] + [(known(i), None) for i in range(1, 5)]
  assert not list(tmp_path.iterdir())  # nothing is left of the token


def test_the_port_is_free_for_what_comes_after():
  address = free_address()
  assert outcomes([(address, 2, i) for i in range(2)]) == [([HERE] * 2, address), ([HERE] * 2, None)]
  port = int(address.rpartition(':')[2])
  with socket.create_server(('127.0.0.1', port)) as server:
    assert server.getsockname() == ('127.0.0.1', port)


SILENT = [b'']
ENDLESS = [b'x' * 100_000]
ODD = [b'GET / HTTP/1.1\r\n\r\n', b'\n', b'[' * 10_000 + b'\n', b'\xff\n', b'{"process": 1}\n', b'7\n',
       b'gptjax 1 2 there\n', b'{"process": 1, "n": 2, "host": "", "nonce": "x"}\n']


@pytest.mark.parametrize('sent', [SILENT * 30, ENDLESS, ODD], ids=['silent', 'endless', 'odd'])
def test_strangers_hold_up_nobody(tmp_path, sent):
  with process_0(2, tmp_path, limit=25) as (address, meeting):
    strangers = [Stranger(address) for _ in sent]
    for stranger, content in zip(strangers, sent):
      with contextlib.suppress(OSError):  # closed before it has said all
        stranger.socket.sendall(content)
    other, = outcomes([(address, 2, 1)], limit=25, workdir=tmp_path)
    assert other == ([HERE] * 2, None) and meeting.result()[0][0] == [HERE] * 2
    for stranger in strangers:
      stranger.socket.close()


def test_a_silent_stranger_is_closed_after_a_while(monkeypatch):
  monkeypatch.setattr(rendezvous_server, 'ANSWER_LIMIT', 0.1)
  with process_0(2) as (address, meeting):
    assert Stranger(address).hear() is None
    outcomes([(address, 2, 1)])
    meeting.result()


def test_of_more_strangers_than_files_may_be_open_the_oldest_is_closed(monkeypatch):
  monkeypatch.setattr(rendezvous_server, 'MAX_UNIDENTIFIED', 0)
  with process_0(2) as (address, meeting):
    strangers = [Stranger(address) for _ in range(3)]
    assert strangers[0].hear() is None
    assert outcomes([(address, 2, 1)])[0][0] == meeting.result()[0][0] == [HERE] * 2
    for stranger in strangers:
      stranger.socket.close()


@pytest.mark.parametrize('number', [99, -7, 0, 2, True, 1.0, '1', None])
@pytest.mark.parametrize('token', [False, True])
def test_only_numbers_of_the_run_come(tmp_path, number, token):
  workdir = tmp_path if token else ''
  with process_0(2, workdir) as (address, meeting):
    assert Stranger(address).greet(number, 2) is None
    assert outcomes([(address, 2, 1)], workdir=workdir)[0][0] == meeting.result()[0][0] == [HERE] * 2


def test_without_the_token_nobody_takes_the_place_of_a_process(tmp_path):
  with process_0(2, tmp_path) as (address, meeting):
    impostor = Stranger(address)
    assert impostor.prove(b'', 1, 2) == {'refused': True} and impostor.hear() is None
    # Nor with a proof that was overheard: that of process 0, or of another connection.
    reflecting = Stranger(address)
    asked = reflecting.greet(1, 2)
    reflecting.say(run_token.proof(_token(tmp_path), 'process 0', 'x', asked['nonce'], 1, 2, 'there'))
    assert reflecting.hear() == {'refused': True}
    repeating = Stranger(address)
    repeating.greet(1, 2)
    repeating.say(run_token.proof(_token(tmp_path), 'process', 'x', asked['nonce'], 1, 2, 'there'))
    assert repeating.hear() == {'refused': True}
    for stranger in impostor, reflecting, repeating:
      stranger.say(['nothing more to do', 75])
    assert outcomes([(address, 2, 1)], workdir=tmp_path)[0][0] == meeting.result()[0][0] == [HERE] * 2


def _token(workdir):
  path, = workdir.glob('.rendezvous-*')
  return path.read_bytes()


def test_the_token_is_for_the_user_alone_and_never_sent(tmp_path):
  old, young = (tmp_path / f'.rendezvous-{digit * 32}' for digit in 'ab')
  for path, age in (old, 2 * run_token.STALE_SECONDS), (young, 0):
    path.write_text('of another start')
    os.utime(path, (time.time() - age,) * 2)
  with process_0(2, tmp_path) as (address, meeting):
    stranger = Stranger(address)
    name = stranger.greet(1, 2)['token']
    assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    assert not old.exists() and young.exists()
    key = (tmp_path / name).read_bytes()
    answer = Stranger(address).prove(key, 1, 2)
    assert answer.keys() == {'proof'} and key not in stranger.heard + json.dumps(answer).encode()
    stranger.socket.close()
    meeting.result()
  assert not (tmp_path / name).exists()


def test_a_process_without_the_token_of_the_workdir_says_where_it_is(tmp_path):
  address = free_address()
  with concurrent.futures.ThreadPoolExecutor(2) as threads:
    found = [threads.submit(outcomes, [(address, 2, i)], 2, tmp_path / 'elsewhere' if i else tmp_path / 'w')
             for i in range(2)]
    first, second = (one.result()[0] for one in found)
  assert 'did not connect within 2 s: 1' in first
  assert f'does not see the token of this run, {tmp_path}/elsewhere/.rendezvous-' in second


def test_process_0_proves_itself_too(monkeypatch):
  """Who listens in its place can neither end the others nor name their hosts."""
  monkeypatch.setenv(run_token.VARIABLE, 'a secret of the run')
  with socket.create_server(('127.0.0.1', 0)) as server, concurrent.futures.ThreadPoolExecutor(1) as threads:
    address = f'127.0.0.1:{server.getsockname()[1]}'
    meeting = threads.submit(outcomes, [(address, 2, 1)], 1)
    guest, _ = server.accept()
    lines = guest.makefile('rb')
    lines.readline()
    guest.sendall(b'{"nonce": "y", "token": "%s"}\n' % run_token.VARIABLE.encode())
    lines.readline()
    guest.sendall(b'{"proof": "%s"}\n["all is done", 75]\n' % (64 * b'0'))
    assert 'got no answer from process 0' in meeting.result()[0]
    guest.close()


def test_without_any_token_a_second_process_of_a_number_is_refused_and_the_first_stays():
  with process_0(3) as (address, meeting):
    first, second, third = (Stranger(address) for _ in range(3))
    assert first.prove(b'', 1, 3).keys() == {'proof'}
    second.prove(b'', 1, 3)
    assert 'two processes were started as number 1' in second.hear()['wrong']
    third.prove(b'', 2, 3, '\x1b]0;title\x07\u202e')
    assert meeting.result()[0][0] == [HERE, 'there', r'\x1b]0;title\x07\u202e']
    assert first.hear()['host'] == third.hear()['host'] == HERE


@pytest.mark.parametrize('code', [0, 3, 137, None, True, '75', 75.0])
def test_only_what_ends_a_run_is_a_cause(code):
  with process_0(3) as (address, meeting):
    first, second = (Stranger(address) for _ in range(2))
    first.prove(b'', 1, 3)
    first.say(['all is done', code])
    second.prove(b'', 2, 3)
    assert meeting.result()[0][0] == [HERE, 'there', 'there']


def test_a_cause_is_printable():
  with process_0(3) as (address, meeting):
    first = Stranger(address)
    first.prove(b'', 1, 3)
    first.say(['told to stop\n\x1b[2J', 75])
    assert meeting.result() == [str((r'told to stop\n\x1b[2J', 75))]


@pytest.mark.parametrize('word, found', [
  (b'["all is done", 0]\n', ('does not answer', 70)), (b'x' * 100_000, ('does not answer', 70)),
  (b'["\\u001b[2J", 75]\n', (r'\x1b[2J', 75))])
def test_the_same_holds_while_jax_starts(word, found):
  ours, theirs = socket.socketpair()
  lost = queue.SimpleQueue()
  with rendezvous.watch_connections({1: ours}, ['a', 'b'], lambda *cause: lost.put(cause)), theirs:
    theirs.setblocking(False)
    theirs.send(word)
    line, code = lost.get(timeout=30)
  assert found[0] in line and found[1] == code


@pytest.mark.parametrize('n, numbers, says', [
  (3, (1, 1), 'two processes were started as number 1'),
  (4, (1, 3), 'these did not connect within 2 s: 2;')])
def test_what_is_wrong_is_said_to_all_who_are_there(tmp_path, n, numbers, says):
  address = free_address()
  found = outcomes([(address, n, i) for i in (0, *numbers)], limit=2, workdir=tmp_path)
  assert all(says in outcome for outcome in found), found


def test_another_number_of_processes_is_said(tmp_path):
  address = free_address()
  found = outcomes([(address, 2, 0), (address, 3, 1)], workdir=tmp_path)
  assert all('was started as one of 3, process 0 as one of 2' in outcome for outcome in found)


@pytest.mark.parametrize('address', ['nowhere', 'host:port', ':'])
def test_an_address_is_host_and_port(address):
  with pytest.raises(ValueError, match='is not HOST:PORT'):
    rendezvous.connect(address, 2, 0, 1)


def test_a_port_that_is_taken_is_said():
  address = free_address()
  with socket.create_server(('127.0.0.1', int(address.rpartition(':')[2]))):
    said, = outcomes([(address, 2, 0)], limit=1)
  assert 'cannot listen' in said and 'JAX_COORDINATOR_PORT' in said


def test_a_host_that_is_not_known_is_said():
  said, = outcomes([('no-such-host.invalid:1234', 2, 1)], limit=1)
  assert 'no-such-host.invalid is not known here' in said


@pytest.mark.parametrize('mounts, folder, shared', [
  ('/dev/sda / ext4 rw\n', '/runs', False),
  ('/dev/sda / ext4 rw\nserver:/x /runs nfs4 rw\n', '/runs/a/b', True),
  ('/dev/sda / ext4 rw\nserver:/x /runs nfs4 rw\n', '/runsets', False),
  ('auto /home autofs rw\nserver:/x /home nfs rw\n', '/home', True),
  ('root / overlay rw\nb /with\\040space fuse.gcsfuse rw\n', '/with space/x', True),
  ('server:/x / nfs rw\n/dev/sda /tmp xfs rw\n', '/tmp/x', False),
  ('', '/runs', False)])
def test_which_disks_other_machines_see(tmp_path, monkeypatch, mounts, folder, shared):
  monkeypatch.setattr(run_token, 'MOUNTS', tmp_path / 'mounts')
  (tmp_path / 'mounts').write_text(mounts)
  assert run_token.on_shared_file_system(folder) == shared


@pytest.mark.parametrize('here, source', [('', run_token.VARIABLE), ('a secret of the run', ''),
                                          ('a secret of the run', '.rendezvous-' + 32 * 'a'), ('short', '')])
def test_the_variable_is_for_all_processes_and_long_enough(monkeypatch, here, source):
  monkeypatch.setenv(run_token.VARIABLE, here)
  with pytest.raises(InputError, match=run_token.VARIABLE):
    run_token.key_for_process_0(source, '')


@pytest.mark.parametrize('source', ['.rendezvous-x', '../secret', '/etc/passwd', 7, None, ''])
def test_a_stranger_has_no_other_file_read(tmp_path, source):
  assert run_token.key_for_process_0(source, tmp_path) == b''


def test_a_token_behind_a_link_is_not_read(tmp_path):
  name = '.rendezvous-' + 32 * 'a'
  (tmp_path / 'secret').write_text('of another')
  (tmp_path / name).symlink_to(tmp_path / 'secret')
  assert run_token.key_for_process_0(name, tmp_path) is None


@pytest.mark.parametrize('received', ['\ud800', '', 'ü' * 64, None, 7, ['a']])
def test_whatever_a_stranger_sends_as_a_proof_is_none(received):
  assert not run_token.verify_proof(received, b'a secret of the run', 'process', 'x')


def test_a_token_file_that_cannot_be_written_whole_is_removed(tmp_path, monkeypatch):
  monkeypatch.delenv(run_token.VARIABLE, raising=False)
  def full(descriptor):
    raise OSError(errno.ENOSPC, 'no space left on the disk')
  monkeypatch.setattr(run_token.os, 'fsync', full)
  with run_token.process_0_token(tmp_path / 'new' / 'run', True) as token:
    assert token == run_token.NO_TOKEN
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('workdir', ['gs://b/run', 's3://b/run'])
def test_a_workdir_in_a_bucket_has_no_token_file(tmp_path, monkeypatch, workdir):
  monkeypatch.chdir(tmp_path)
  said, address = [], free_address()
  found = outcomes([(address, 2, i) for i in range(2)], workdir=workdir, log=said.append)
  assert found == [([HERE] * 2, address), ([HERE] * 2, None)]
  assert len(said) == 1 and run_token.VARIABLE in said[0]
  with run_token.process_0_token(workdir, True) as token:
    assert token == run_token.NO_TOKEN
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('answer, name', [
  ('there', 'process 1 of 3 (there)'), ('\x1b]0;t\x07', r'process 1 of 3 (\x1b]0;t\x07)'),
  ('', 'process 1 of 3'), ('late', 'process 1 of 3'),
  (jax.errors.JaxRuntimeError('NOT_FOUND'), 'process 1 of 3')])
def test_a_message_has_the_host_name_that_the_store_gives_in_time(monkeypatch, answer, name):
  def try_get(key):
    assert key == f'{control.HOSTS}1'
    if isinstance(answer, Exception):
      raise answer
    released.wait(60 if answer == 'late' else 0)
    return answer
  released = threading.Event()
  monkeypatch.setattr(control, 'hosts', ['first', '', 'me'])
  monkeypatch.setattr(control, 'POLL', 0.2)
  monkeypatch.setattr(control, 'client', lambda: SimpleNamespace(key_value_try_get=try_get))
  assert control.process_name(1) == name and control.process_name(2) == 'process 2 of 3 (me)'
  released.set()


def test_a_cause_has_the_host_name_of_its_sender_because_the_store_may_be_gone(monkeypatch):
  monkeypatch.setattr(control, 'hosts', ['first', '', 'me'])
  message = json.dumps([1, 'there', 'the disk is full', 2, False])
  assert control._parse_cause({f'{control.MESSAGES}cause': message}) == (1, 'the disk is full', 2, False)
  assert control.process_name(1) == 'process 1 of 3 (there)'  # no client: it is known
