"""The rendezvous of the processes of a run before JAX starts; after a minute, missing processes are reported.

JAX's own start waits silently and then aborts the process. So the processes first connect by plain sockets,
at the port that JAX's coordination service uses once all have connected. The connections stay open until JAX
has started: if one closes before, its process is dead.

On a connection the other process sends its index, process 0 answers with the source of its token, and both
prove that they have it (see `run_token`). Then process 0 sends its host name, the same few bytes to each. It
alone has the list of all names; the others find one in JAX's store when a message needs it (see `control`).
"""

import contextlib
import os
import selectors
import socket
import sys
import threading
import time
from typing import NamedTuple

from gptjax.command import shutdown
from gptjax.errors import LOST, InputError, LostProcess
from gptjax.parallel import run_token, wire
from gptjax.parallel.coordinator import host_and_port
from gptjax.parallel.rendezvous_server import ANSWER_LIMIT, RendezvousServer
from gptjax.text.printable import printable


class Connected(NamedTuple):
  """The result of the rendezvous."""
  hosts: list        # host name of each process; '' if it is not known here
  bind: str | None   # address to which process 0 binds
  connections: dict  # {process index: socket}: on process 0 to each other one, elsewhere to process 0


class Stopped(Exception):
  """Another process has received a stop signal and has ended the run; args: the last line, the exit code."""


def _log(line):
  print(line, file=sys.stderr, flush=True)


def connect(address, n, me, limit, workdir='', log=_log):
  """Connect the processes of the run; returns when all have connected.

  Args:
    address: 'HOST:PORT' of process 0, the same on all.
    n: number of processes.
    me: index of this one.
    limit: seconds.
    workdir: of the run, for its token (see `run_token`); '' if there is none.
    log: called with a warning.

  Returns:
    Connected.

  Raises:
    ValueError: the processes disagree, or the address or the token is invalid.
    LostProcess: some processes have not connected; the message lists them.
    Stopped: another process has received a stop signal.
  """
  host, port = host_and_port(address)
  deadline = time.monotonic() + limit
  socket_info = _resolve(address, host, port, deadline)
  connections = {}
  name = f'process {me} of {n} ({_hostname()})'
  shutdown.set_end_others(lambda line, code: wire.send(
    list(connections.values()), [f'{name} has ended the run: {line}'[:wire.MAX_TEXT], code]))
  if me:
    return _join(address, socket_info, n, me, connections, deadline, limit, workdir)
  host_address = socket_info[4][0]
  one_machine = host_address.startswith('127.') or host_address == '::1'
  with run_token.process_0_token(workdir, one_machine) as token:
    if not token.key:
      log(f'anyone who reaches {address} can take the place of a process of this run: set '
          f'{run_token.VARIABLE} to the same secret in all of them (`{run_token.GENERATE_COMMAND}`)')
    return _serve(address, socket_info, n, connections, deadline, limit, token)


def _hostname():
  return wire.host_name(socket.gethostname() or 'unknown')


def process_name(i, hosts):
  """The name of a process in messages."""
  return f'process {i} of {len(hosts)}' + (f' ({hosts[i]})' if hosts[i] else '')


def lost_message(absent, hosts):
  """The message about processes that do not answer."""
  return (f'{" and ".join(process_name(i, hosts) for i in absent)} does not answer: killed, out of memory, '
          'hanging or cut off; see its own log. Start again: the run resumes from its newest checkpoint')


@contextlib.contextmanager
def watch_connections(connections, hosts, on_lost):
  """Context manager that watches the other processes while JAX starts.

  Args:
    connections, hosts: from `connect`.
    on_lost: called in a thread with a line about a process and an exit code, as soon as the process is dead
      or has received a stop signal.
  """
  started = threading.Event()
  thread = threading.Thread(target=_watch, args=(connections, hosts, on_lost, started), daemon=True)
  thread.start()
  try:
    yield
    wire.send(connections.values(), wire.STARTED)
  finally:
    started.set()
    thread.join()
    for connection in connections.values():
      connection.close()


def _watch(connections, hosts, on_lost, started):
  """Until JAX has started, report each process whose connection closes; process 0 informs the others."""
  with selectors.DefaultSelector() as selector:
    for number, connection in connections.items():
      selector.register(connection, selectors.EVENT_READ, number)
    while not started.is_set():
      for key, _ in selector.select(0.1):
        selector.unregister(key.fileobj)
        message = wire.receive(key.fileobj, limit=2)
        if message != wire.STARTED:
          line, code = wire.parse_cause(message) or (lost_message([key.data], hosts), LOST)
          wire.send(connections.values(), [line, code])
          on_lost(line, code)


def _resolve(address, host, port, deadline):
  """The first entry of getaddrinfo; a name may be unknown until the machine of process 0 is up."""
  while True:
    try:
      return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
      if time.monotonic() > deadline:
        raise InputError(f'the address of process 0 is {address}, and {host} is not known here '
                         f'({error.strerror})') from None
      time.sleep(0.5)


def _serve(address, socket_info, n, connections, deadline, limit, token):
  """Process 0: wait for all processes, then send each the name of this host, or the error."""
  listening, bind = _listen(address, socket_info)
  with listening, contextlib.ExitStack() as on_failure:
    server = RendezvousServer(listening, n, token, _hostname(), connections)
    on_failure.callback(server.close)
    server.wait(deadline)
    hosts = [server.hosts.get(i, '') for i in range(n)]
    lost = missing_message(hosts, limit, server.refused) if not all(hosts) and not server.mismatch else ''
    answer = {'host': hosts[0], 'wrong': server.mismatch, 'lost': lost}
    wire.send(connections.values(), server.stopped or answer)
    if server.stopped:
      raise Stopped(*server.stopped)
    _raise_errors(server.mismatch, lost)
    on_failure.pop_all()
  for connection in connections.values():
    connection.settimeout(None)
  return Connected(hosts, bind, connections)


def _raise_errors(mismatch, lost):
  if mismatch:
    raise InputError(mismatch)
  if lost:
    raise LostProcess(lost)


def _listen(address, socket_info):
  """A socket bound to the interface of the address, or to all if this machine has no such interface."""
  family, _, _, _, (own_host, port, *_) = socket_info
  for host in (own_host, ''):
    try:
      server = socket.create_server((host, port), family=family, backlog=4096)
    except OSError as error:
      reason = error.strerror
    else:
      bracketed = f'[{host}]' if ':' in host else host or '[::]'
      return server, f'{bracketed}:{port}'
  raise InputError(f'process 0 cannot listen at {address} ({reason}): is another run using the port? Give '
                   'all processes another one, by --coordinator or JAX_COORDINATOR_PORT')


def missing_message(hosts, limit, refused=()):
  """The message that lists the processes that have not connected.

  Args:
    hosts: host name of each process, '' for those that have not connected.
    limit: seconds that were waited.
    refused: lines about refused connections.
  """
  known = os.environ.get('TPU_WORKER_HOSTNAMES', '').split(',')
  name = lambda i: f'{i} ({known[i]})' if len(known) == len(hosts) else str(i)
  absent = [name(i) for i, host in enumerate(hosts) if not host]
  connected = [f'{i} ({host})' for i, host in enumerate(hosts) if host]
  also = f'; refused: {"; ".join(refused)}' if refused else ''
  return (f'of {len(hosts)} processes these did not connect within {limit:.0f} s: {", ".join(absent)}; '
          f'connected: {", ".join(connected)}{also}: look at the logs of those that are missing, '
          'or raise config.watchdog.connect_timeout if they only start more slowly')


def _join(address, socket_info, n, me, connections, deadline, limit, workdir):
  """Any other process: connect to process 0, authenticate, and wait until all processes have connected."""
  family, kind, protocol, _, server_address = socket_info
  missing_token = ''
  while True:
    client = socket.socket(family, kind, protocol)
    try:
      client.settimeout(max(deadline - time.monotonic(), 0.1))
      client.connect(server_address)
      wait = max(min(deadline - time.monotonic(), ANSWER_LIMIT), 1)
      missing_token = _authenticate(client, n, me, connections, workdir, wait) or missing_token
    except OSError:
      pass
    if connections:
      missing_token = ''
      # Process 0 sends the list of missing processes at the deadline.
      wait = max(deadline - time.monotonic(), 0) + 5
      answer = wire.receive(client, wait, wire.MAX_LINE + 4 * n * wire.MAX_HOST)
      first = _parse_host(answer)
      if first:
        client.settimeout(None)
        hosts = [first, *[''] * (n - 1)]
        hosts[me] = _hostname()
        return Connected(hosts, None, connections)
      connections.clear()
    client.close()
    if time.monotonic() > deadline:
      if missing_token:
        raise InputError(f'process {me} of {n} on {_hostname()} does not see the token of this run, '
                         f'{os.path.join(workdir, missing_token)}: put the workdir on a disk that all '
                         f'processes see, or give all the same {run_token.VARIABLE}')
      raise LostProcess(f'process {me} of {n} on {_hostname()} got no answer from process 0 at '
                        f'{address} within {limit:.0f} s: is it running there, and does a '
                        'firewall let the port through?')
    time.sleep(0.2)


def _authenticate(client, n, me, connections, workdir, wait):
  """Identify this process to process 0, and check that process 0 belongs to the same run.

  If it does, the connection is added to `connections`. Each answer may take `wait` seconds.

  Returns:
    The name of the token's file if this process cannot see it, else ''.
  """
  nonce, name = run_token.nonce(), _hostname()
  client.sendall(wire.encode({'process': me, 'n': n, 'host': name, 'nonce': nonce}))
  challenge = wire.receive(client, wait)
  if not isinstance(challenge, dict):
    return ''
  facts = nonce, challenge.get('nonce'), me, n, name
  key = run_token.key_for_process_0(challenge.get('token'), workdir)
  if key is None:
    return challenge['token']
  connections[0] = client  # before the proof is sent: process 0 may read a stop request right after it
  client.sendall(wire.encode(run_token.proof(key, 'process', *facts)))
  answer = wire.receive(client, wait)
  if answer == {'refused': True}:
    raise InputError(f'process 0 does not take the token of process {me} of {n} on {name}: give all '
                     f'processes the same {run_token.VARIABLE}')
  proof = answer.get('proof') if isinstance(answer, dict) else None
  if not isinstance(proof, str) or (key and not run_token.verify_proof(proof, key, 'process 0', *facts)):
    connections.clear()
  return ''


def _parse_host(answer):
  """The host name in the answer of process 0; None if it is invalid. Raises the error that it reports."""
  if stopped := wire.parse_cause(answer):
    raise Stopped(*stopped)
  if not isinstance(answer, dict):
    return None
  _raise_errors(*(printable(answer.get(name) or '') for name in ('wrong', 'lost')))
  try:
    return wire.host_name(answer.get('host'))
  except ValueError:
    return None
