"""Where the processes of a run meet before JAX starts: who has not come is named after a minute.

JAX's own start waits without a word and then aborts the process. So the processes first meet on plain
sockets, at the very port that JAX's coordination service takes over once everyone is there. The connections
stay open until JAX's start is over: one that closes before shows at once that its process is dead.

On a connection the other process says who it is, process 0 answers which token it asks for, and both prove
that they have it (see `run_token`); then comes the list of hosts.
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
  """What a process knows once all are there."""
  hosts: list        # names of the hosts of all
  bind: str | None   # the address to which process 0 is to bind
  connections: dict  # {number of a process: socket}; process 0 has one to each, each other one to process 0


class Stopped(Exception):
  """Another process has been told to stop and has ended the run; args: the last line, and the exit code."""


def _say(line):
  print(line, file=sys.stderr, flush=True)


def connect(address, n, me, limit, workdir='', say=_say):
  """Waits until all processes of the run are there.

  Args:
    address: 'HOST:PORT' of process 0, the same on all.
    n: how many processes there are.
    me: the number of this one.
    limit: seconds.
    workdir: of the run, for its token (see `run_token`); '' if there is none.
    say: called with a line of warning.

  Returns:
    Met.

  Raises:
    ValueError: what they disagree on, or what is wrong with the address or the token.
    LostProcess: names the processes that have not come.
    Stopped: another process was told to stop.
  """
  host, port = host_and_port(address)
  deadline = time.monotonic() + limit
  place = _find(address, host, port, deadline)
  connections = {}
  name = f'process {me} of {n} ({_hostname()})'
  shutdown.set_end_others(lambda line, code: wire.send(
    list(connections.values()), [f'{name} has ended all: {line}'[:wire.MAX_TEXT], code]))
  if me:
    return _join(address, place, n, me, connections, deadline, limit, workdir)
  one_machine = place[4][0].startswith('127.') or place[4][0] == '::1'
  with run_token.process_0_token(workdir, one_machine) as token:
    if not token.key:
      say(f'anyone who reaches {address} can take the place of a process of this run: set '
          f'{run_token.VARIABLE} to one secret in all of them (`{run_token.MAKE_COMMAND}` makes one)')
    return _receive(address, place, n, connections, deadline, limit, token)


def _hostname():
  return wire.host_name(socket.gethostname() or 'unknown')


def process_name(i, hosts):
  """How a message names a process."""
  return f'process {i} of {len(hosts)} ({hosts[i]})'


def lost_message(absent, hosts):
  """The message about processes that do not answer."""
  return (f'{" and ".join(process_name(i, hosts) for i in absent)} does not answer: killed, out of memory, '
          'hanging or cut off; see its own log. Start again: the run goes on from its newest checkpoint')


@contextlib.contextmanager
def watch_connections(connections, hosts, lost):
  """Watches the other processes while JAX starts.

  Args:
    connections, hosts: what `connect` gave.
    lost: called in a thread with a line that names a process, and an exit code, as soon as that is dead or
      has been told to stop.
  """
  over = threading.Event()
  thread = threading.Thread(target=_watch, args=(connections, hosts, lost, over), daemon=True)
  thread.start()
  try:
    yield
    wire.send(connections.values(), wire.STARTED)
  finally:
    over.set()
    thread.join()
    for connection in connections.values():
      connection.close()


def _watch(connections, hosts, lost, over):
  """Until `over`: what closes without a word is dead; process 0 passes on who it is, or what it has said."""
  with selectors.DefaultSelector() as selector:
    for number, connection in connections.items():
      selector.register(connection, selectors.EVENT_READ, number)
    while not over.is_set():
      for key, _ in selector.select(0.1):
        selector.unregister(key.fileobj)
        word = wire.receive(key.fileobj, limit=2)
        if word != wire.STARTED:
          line, code = wire.parse_cause(word) or (lost_message([key.data], hosts), LOST)
          wire.send(connections.values(), [line, code])
          lost(line, code)


def _find(address, host, port, deadline):
  """What getaddrinfo says of the host; a name may become known only when process 0's machine is up."""
  while True:
    try:
      return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
      if time.monotonic() > deadline:
        raise InputError(f'--coordinator={address}: {host} is not known here ({error.strerror})') from None
      time.sleep(0.5)


def _receive(address, place, n, connections, deadline, limit, token):
  """Process 0: takes everyone in, then sends all the list of hosts, or what went wrong."""
  server, bind = _listen(address, place)
  with server, contextlib.ExitStack() as failed:
    arrivals = RendezvousServer(server, n, token, _hostname(), connections)
    failed.callback(arrivals.close)
    arrivals.wait(deadline)
    hosts = [arrivals.hosts.get(i, '') for i in range(n)]
    lost = missing_message(hosts, limit, arrivals.refused) if not all(hosts) and not arrivals.wrong else ''
    answer = {'hosts': hosts, 'wrong': arrivals.wrong, 'lost': lost}
    wire.send(connections.values(), arrivals.stopped or answer)
    if arrivals.stopped:
      raise Stopped(*arrivals.stopped)
    _raise(arrivals.wrong, lost)
    failed.pop_all()
  for connection in connections.values():
    connection.settimeout(None)
  return Connected(hosts, bind, connections)


def _raise(wrong, lost):
  if wrong:
    raise InputError(wrong)
  if lost:
    raise LostProcess(lost)


def _listen(address, place):
  """A socket bound to the interface that the address names; to all, where it is not one of this machine."""
  family, _, _, _, where = place
  for host in (where[0], ''):
    try:
      server = socket.create_server((host, where[1]), family=family, backlog=4096)
    except OSError as error:
      trouble = error.strerror
    else:
      shown = f'[{host}]' if ':' in host else host or '[::]'
      return server, f'{shown}:{where[1]}'
  raise InputError(f'process 0 cannot listen at --coordinator={address} ({trouble}): is another run there? '
                   'Take another port')


def missing_message(hosts, limit, refused=()):
  """The message that names who has not come.

  Args:
    hosts: name of the host of each process, '' for those that have not come.
    limit: seconds for which they were awaited.
    refused: what to say of connections that were refused.
  """
  known = os.environ.get('TPU_WORKER_HOSTNAMES', '').split(',')
  name = lambda i: f'{i} ({known[i]})' if len(known) == len(hosts) else str(i)
  absent = [name(i) for i, host in enumerate(hosts) if not host]
  here = [f'{i} ({host})' for i, host in enumerate(hosts) if host]
  also = f'; refused: {"; ".join(refused)}' if refused else ''
  return (f'of {len(hosts)} processes these have not come within {limit:.0f} s: {", ".join(absent)}; here '
          f'are {", ".join(here)}{also}: look at the logs of those that are missing')


def _join(address, place, n, me, connections, deadline, limit, workdir):
  """Any other process: says who it is, and waits for the list of hosts."""
  family, kind, protocol, _, where = place
  unseen = ''
  while True:
    guest = socket.socket(family, kind, protocol)
    try:
      guest.settimeout(max(deadline - time.monotonic(), 0.1))
      guest.connect(where)
      wait = max(min(deadline - time.monotonic(), ANSWER_LIMIT), 1)
      unseen = _introduce(guest, n, me, connections, workdir, wait) or unseen
    except OSError:
      pass
    if connections:
      unseen = ''
      # The list of who is missing comes at the deadline.
      wait = max(deadline - time.monotonic(), 0) + 5
      answer = wire.receive(guest, wait, wire.MAX_LINE + 4 * n * wire.MAX_HOST)
      hosts = _hosts(answer, n)
      if hosts:
        guest.settimeout(None)
        return Connected(hosts, None, connections)
      connections.clear()
    guest.close()
    if time.monotonic() > deadline:
      if unseen:
        raise InputError(f'process {me} of {n} on {_hostname()} does not see the token of this run, '
                         f'{os.path.join(workdir, unseen)}: put the workdir on a disk that all processes '
                         f'see, or give all the same {run_token.VARIABLE}')
      raise LostProcess(f'process {me} of {n} on {_hostname()} got no answer from process 0 at '
                        f'--coordinator={address} within {limit:.0f} s: is it running there, and does a '
                        'firewall let the port through?')
    time.sleep(0.2)


def _introduce(guest, n, me, connections, workdir, wait):
  """Says who this process is, and has process 0 prove that it is of the same run.

  The connection is put into `connections` if so; each answer is awaited for `wait` seconds.

  Returns:
    The name of a file with a token that is not seen here, or ''.
  """
  nonce, name = run_token.nonce(), _hostname()
  guest.sendall(wire.encode({'process': me, 'n': n, 'host': name, 'nonce': nonce}))
  asked = wire.receive(guest, wait)
  if not isinstance(asked, dict):
    return ''
  facts = nonce, asked.get('nonce'), me, n, name
  key = run_token.key_for_process_0(asked.get('token'), workdir)
  if key is None:
    return asked['token']
  connections[0] = guest  # a last word that comes after the proof is heard
  guest.sendall(wire.encode(run_token.proof(key, 'process', *facts)))
  answer = wire.receive(guest, wait)
  if answer == {'refused': True}:
    raise InputError(f'process 0 does not take the token of process {me} of {n} on {name}: give all '
                     f'processes the same {run_token.VARIABLE}')
  found = answer.get('proof') if isinstance(answer, dict) else None
  if not isinstance(found, str) or (key and not run_token.is_proof(found, key, 'process 0', *facts)):
    connections.clear()
  return ''


def _hosts(answer, n):
  """The list of hosts in what process 0 has sent; None: it is none. Raises what it says otherwise."""
  if stopped := wire.parse_cause(answer):
    raise Stopped(*stopped)
  if not isinstance(answer, dict):
    return None
  _raise(*(printable(answer.get(name) or '') for name in ('wrong', 'lost')))
  hosts = answer.get('hosts')
  if not isinstance(hosts, list) or len(hosts) != n:
    return None
  try:
    return [wire.host_name(host) for host in hosts]
  except ValueError:
    return None
