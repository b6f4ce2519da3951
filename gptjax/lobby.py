"""Where the processes of a run meet before JAX starts: who has not come is named after a minute.

JAX's own start waits without a word and then aborts the process. So the processes first meet on plain
sockets, at the very port that JAX's coordination service takes over once everyone is there. The connections
stay open until JAX's start is over: one that closes before shows at once that its process is dead.
"""

import contextlib
import json
import os
import selectors
import socket
import threading
import time
from typing import NamedTuple

from gptjax import shutdown
from gptjax.coordinator import host_and_port
from gptjax.errors import LOST, InputError, LostProcess

GREETING = 'gptjax'
STARTED = b'started\n'  # the last word on a connection: JAX's start is over


class Met(NamedTuple):
  """What a process knows once all are there."""
  hosts: list        # names of the hosts of all
  bind: str | None   # the address to which process 0 is to bind
  connections: dict  # {number of a process: socket}; process 0 has one to each, each other one to process 0


class Stopped(Exception):
  """Another process has been told to stop and has ended the run; args: the last line, and the exit code."""


def meet(address, n, me, limit):
  """Waits until all processes of the run are there.

  Args:
    address: 'HOST:PORT' of process 0, the same on all.
    n: how many processes there are.
    me: the number of this one.
    limit: seconds.

  Returns:
    Met.

  Raises:
    ValueError: what they disagree on, or what is wrong with the address.
    LostProcess: names the processes that have not come.
    Stopped: another process was told to stop.
  """
  host, port = host_and_port(address)
  deadline = time.monotonic() + limit
  place = _find(address, host, port, deadline)
  connections = {}
  name = f'process {me} of {n} ({socket.gethostname()})'
  shutdown.end_others_by(
    lambda line, code: _send(list(connections.values()), _last_word(f'{name} has ended all: {line}', code)))
  if me == 0:
    return _receive(address, place, n, connections, deadline, limit)
  return _join(address, place, n, me, connections, deadline, limit)


def called(i, hosts):
  """How a message names a process."""
  return f'process {i} of {len(hosts)} ({hosts[i]})'


def gone(absent, hosts):
  """The message about processes that do not answer."""
  return (f'{" and ".join(called(i, hosts) for i in absent)} does not answer: killed, out of memory, hanging '
          'or cut off; see its own log. Start again: the run goes on from its newest checkpoint')


@contextlib.contextmanager
def watched(connections, hosts, lost):
  """Watches the other processes while JAX starts.

  Args:
    connections, hosts: what `meet` gave.
    lost: called in a thread with a line that names a process, and an exit code, as soon as that is dead or
      has been told to stop.
  """
  over = threading.Event()
  thread = threading.Thread(target=_watch, args=(connections, hosts, lost, over), daemon=True)
  thread.start()
  try:
    yield
    _send(connections.values(), STARTED)
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
        word = _word(key.fileobj)
        if word != STARTED:
          line, code = json.loads(word) if word else (gone([key.data], hosts), LOST)
          _send(connections.values(), _last_word(line, code))
          lost(line, code)


def _word(connection):
  """What has come on a connection; nothing from one that is closed."""
  try:
    return connection.recv(1 << 16)
  except OSError:
    return b''


def _last_word(line, code):
  """What a process sends before it ends because it has been told to stop, or knows who is dead."""
  return json.dumps([line, code]).encode() + b'\n'


def _send(connections, word):
  for connection in connections:
    with contextlib.suppress(OSError):  # it is gone
      connection.sendall(word)


def _find(address, host, port, deadline):
  """What getaddrinfo says of the host; a name may become known only when process 0's machine is up."""
  while True:
    try:
      return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
      if time.monotonic() > deadline:
        raise InputError(f'--coordinator={address}: {host} is not known here ({error.strerror})') from None
      time.sleep(0.5)


def _receive(address, place, n, guests, deadline, limit):
  """Process 0: takes everyone in, then sends all the list of hosts, or what went wrong."""
  names, wrong, stopped = {0: socket.gethostname()}, '', b''
  with contextlib.ExitStack() as failed:
    server, bind = _listen(address, place)
    with server, selectors.DefaultSelector() as selector:
      selector.register(server, selectors.EVENT_READ)
      while len(names) < n and not wrong and not stopped and (left := deadline - time.monotonic()) > 0:
        for key, _ in selector.select(left):
          if key.fileobj is not server:
            selector.unregister(key.fileobj)
            stopped = stopped or _word(key.fileobj)
            continue
          guest, _ = server.accept()
          failed.callback(guest.close)
          wrong = wrong or _take_in(guest, names, guests, n)
          if guest in guests.values():
            selector.register(guest, selectors.EVENT_READ)
    hosts = [names.get(i, '') for i in range(n)]
    lost = missing(hosts, limit) if len(names) < n and not wrong else ''
    told = [*guests.values(), *([guest] if wrong else [])]
    answer = {'hosts': hosts, 'wrong': wrong, 'lost': lost}
    _send(told, stopped or (json.dumps(answer) + '\n').encode())
    if stopped:
      raise Stopped(*json.loads(stopped))
    _raise(wrong, lost)
    failed.pop_all()
  return Met(hosts, bind, guests)


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


def _take_in(guest, names, guests, n):
  """Reads who has come; gives what is wrong with that, or ''. What does not speak like us is passed over."""
  guest.settimeout(2)
  try:
    word, number, their_n, host = guest.recv(1024).decode().split()
    number, their_n = int(number), int(their_n)
  except (OSError, ValueError):
    word = ''
  if word != GREETING:
    guest.close()
    return ''
  if their_n != n:
    return (f'process {number} on {host} was started as one of {their_n}, process 0 as one of {n}: start all '
            'with the same number of processes')
  if number in names and not _closed(guests.get(number)):
    return (f'two processes were started as number {number} (on {names[number]} and {host}): give each '
            'its own --process_id')
  guest.settimeout(None)
  names[number], guests[number] = host, guest
  return ''


def _closed(guest):
  """Whether a process that had come has ended since; then another may take its place."""
  if guest is None:  # process 0 itself
    return False
  guest.setblocking(False)
  try:
    return not guest.recv(1)
  except BlockingIOError:
    return False
  except OSError:
    return True
  finally:
    guest.setblocking(True)


def missing(hosts, limit):
  """The message that names who has not come."""
  known = os.environ.get('TPU_WORKER_HOSTNAMES', '').split(',')
  name = lambda i: f'{i} ({known[i]})' if len(known) == len(hosts) else str(i)
  absent = [name(i) for i, host in enumerate(hosts) if not host]
  here = [f'{i} ({host})' for i, host in enumerate(hosts) if host]
  return (f'of {len(hosts)} processes these have not come within {limit:.0f} s: {", ".join(absent)}; here '
          f'are {", ".join(here)}: look at the logs of those that are missing')


def _join(address, place, n, me, connections, deadline, limit):
  """Any other process: says who it is, and waits for the list of hosts."""
  family, kind, protocol, _, where = place
  while True:
    guest = socket.socket(family, kind, protocol)
    guest.settimeout(max(deadline - time.monotonic(), 0.1))
    try:
      guest.connect(where)
      connections[0] = guest
      guest.sendall(f'{GREETING} {me} {n} {socket.gethostname()}\n'.encode())
      guest.settimeout(max(deadline - time.monotonic(), 0) + 5)  # the list of who is missing comes then
      answer = guest.makefile('rb', buffering=0).readline()  # and not a byte of what comes after it
    except OSError:
      answer = b''
    if answer.endswith(b'\n'):
      answer = json.loads(answer)
      if isinstance(answer, list):
        raise Stopped(*answer)
      _raise(answer['wrong'], answer['lost'])
      guest.settimeout(None)
      return Met(answer['hosts'], None, connections)
    guest.close()
    if time.monotonic() > deadline:
      raise LostProcess(f'process {me} of {n} on {socket.gethostname()} got no answer from process 0 at '
                        f'--coordinator={address} within {limit:.0f} s: is it running there, and does a '
                        'firewall let the port through?')
    time.sleep(0.2)
