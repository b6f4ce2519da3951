"""The meeting before JAX starts: everyone is let in, strangers are passed over, and what is wrong is said."""

import concurrent.futures
import socket
import time

import pytest

from gptjax import lobby
from gptjax.errors import InputError, LostProcess


def free_address():
  with socket.create_server(('127.0.0.1', 0)) as server:
    return f'127.0.0.1:{server.getsockname()[1]}'


def outcomes(arguments, limit=60):
  """(hosts, bind) that each `meet(address, n, me)` gives, or the message of its error."""
  def one(arguments):
    try:
      met = lobby.meet(*arguments, limit)
    except (InputError, LostProcess) as error:
      return str(error)
    for connection in met.connections.values():
      connection.close()
    return met.hosts, met.bind
  with concurrent.futures.ThreadPoolExecutor(len(arguments)) as threads:
    return list(threads.map(one, arguments))


def test_all_learn_the_hosts_and_process_0_where_to_listen():
  address = free_address()
  found = outcomes([(address, 5, i) for i in range(5)])
  hosts = [socket.gethostname()] * 5
  assert found == [(hosts, address)] + [(hosts, None)] * 4


def test_the_port_is_free_for_what_comes_after():
  address = free_address()
  outcomes([(address, 2, i) for i in range(2)])
  port = int(address.rpartition(':')[2])
  with socket.create_server(('127.0.0.1', port)):
    pass


def test_a_stranger_is_passed_over():
  address = free_address()
  host, _, port = address.rpartition(':')
  with concurrent.futures.ThreadPoolExecutor(1) as threads:
    meeting = threads.submit(outcomes, [(address, 2, 0)])
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
      try:
        stranger = socket.create_connection((host, int(port)))
        break
      except OSError:
        time.sleep(0.01)
    stranger.sendall(b'GET / HTTP/1.1\r\n\r\n')
    other, = outcomes([(address, 2, 1)])
    stranger.close()
    assert other[0] == meeting.result()[0][0] == [socket.gethostname()] * 2


@pytest.mark.parametrize('n, numbers, says', [
  (3, (1, 1), 'two processes were started as number 1'),
  (4, (1, 3), 'these have not come within 2 s: 2;')])
def test_what_is_wrong_is_said_to_all_who_are_there(n, numbers, says):
  address = free_address()
  found = outcomes([(address, n, i) for i in (0, *numbers)], limit=2)
  assert all(says in outcome for outcome in found), found


def test_another_number_of_processes_is_said():
  address = free_address()
  found = outcomes([(address, 2, 0), (address, 3, 1)])
  assert all('was started as one of 3, process 0 as one of 2' in outcome for outcome in found)


@pytest.mark.parametrize('address', ['nowhere', 'host:port', ':'])
def test_an_address_is_host_and_port(address):
  with pytest.raises(ValueError, match='is not HOST:PORT'):
    lobby.meet(address, 2, 0, 1)


def test_a_port_that_is_taken_is_said():
  address = free_address()
  with socket.create_server(('127.0.0.1', int(address.rpartition(':')[2]))):
    said, = outcomes([(address, 2, 0)], limit=1)
  assert 'cannot listen' in said and 'Take another port' in said


def test_a_host_that_is_not_known_is_said():
  said, = outcomes([('no-such-host.invalid:1234', 2, 1)], limit=1)
  assert 'no-such-host.invalid is not known here' in said
