"""Process 0's side of the rendezvous: who connects proves that it belongs to the run, and is counted.

All connections are served at the same time, each with a time limit of its own, so that one that is silent
holds up no other. What does not speak as a process of the run does is closed.
"""

import selectors
import time
from contextlib import suppress

from gptjax.parallel import run_token, wire

ANSWER_LIMIT = 10  # seconds in which a connection is to say who it is
MAX_UNIDENTIFIED = 64     # connections that have not said it yet, beyond the number of processes
SHOWN = 3          # refused connections that are reported


class RendezvousServer:
  """The processes that have come to process 0.

  Args:
    server: listening socket.
    n: how many processes there are.
    token: run_token.Token.
    host: name of this machine.
    sockets: dict that gets {number: socket} of those that are here, process 0 excepted.
  """

  def __init__(self, server, n, token, host, sockets):
    self.server, self.n, self.token, self.sockets = server, n, token, sockets
    self.hosts = {0: host}  # {number: name of the host} of those that are here
    self.wrong = ''         # why no run can come of this
    self.stopped = None     # (line, exit code): one was told to stop
    self.refused = []       # what to say of connections that were refused
    self._selector, self._pending = selectors.DefaultSelector(), []

  def wait(self, deadline):
    """Until all are here, something is wrong, one was told to stop, or the time is up."""
    self.server.setblocking(False)
    self._selector.register(self.server, selectors.EVENT_READ)
    while len(self.hosts) < self.n and not self.wrong and not self.stopped:
      left = deadline - time.monotonic()
      if left <= 0:
        break
      for key, _ in self._selector.select(min(left, 0.5 if self._pending else left)):
        self._accept() if key.fileobj is self.server else key.data.read()
        if self.wrong or self.stopped:
          break
      for guest in [guest for guest in self._pending if time.monotonic() > guest.deadline]:
        guest.close()
    self._selector.close()
    for guest in list(self._pending):
      guest.close()

  def close(self):
    """Closes the connections to those that are here."""
    for connection in self.sockets.values():
      connection.close()

  def _accept(self):
    try:
      connection, (address, *_) = self.server.accept()
    except BlockingIOError:
      return
    except OSError:  # no more files may be open
      connection = None
    if self._pending and (connection is None or len(self._pending) >= self.n + MAX_UNIDENTIFIED):
      self._pending[0].close()  # the oldest
    if connection:
      guest = _Guest(self, connection, str(address))
      self._pending.append(guest)
      self._selector.register(connection, selectors.EVENT_READ, guest)

  def _forget(self, guest):
    with suppress(KeyError, ValueError):
      self._selector.unregister(guest.connection)
    if guest in self._pending:
      self._pending.remove(guest)
    if guest.number is not None and not self.stopped:  # another may take its place
      del self.hosts[guest.number], self.sockets[guest.number]

  def _dialogue(self, guest):
    """What is said on one connection: yields for each line, ValueError closes it."""
    number, n, host, theirs = _greeting((yield))
    mine = run_token.nonce()
    facts, key = (theirs, mine, number, n, host), self.token.key
    guest.send({'nonce': mine, 'token': self.token.source})
    found = yield
    if key and not run_token.is_proof(found, key, 'process', *facts):
      self._refuse(f'{guest.address}, which calls itself process {number} on {wire.host_name(host)}, has '
                   'another token')
      guest.send({'refused': True})
      raise ValueError
    guest.send({'proof': run_token.proof(key, 'process 0', *facts)})
    wrong = self._wrong(number, n, wire.host_name(host))
    if wrong:
      guest.send({'wrong': wrong})
      if not key:  # it may be anyone, who is not to end the run
        self._refuse(wrong)
        raise ValueError
      self.wrong = wrong
      return
    self._pending.remove(guest)
    guest.number, guest.deadline = number, float('inf')
    self.hosts[number], self.sockets[number] = wire.host_name(host), guest.connection
    while not self.stopped:
      self.stopped = wire.parse_cause((yield))

  def _refuse(self, line):
    if line not in self.refused and len(self.refused) < SHOWN:
      self.refused.append(line)

  def _wrong(self, number, n, host):
    if n != self.n:
      return (f'process {number} on {host} was started as one of {n}, process 0 as one of {self.n}: start '
              'all with the same number of processes')
    if number in self.hosts:
      return (f'two processes were started as number {number} (on {self.hosts[number]} and {host}): give '
              'each its own --process_id')
    return ''


class _Guest:
  """One connection, and how far it has come."""

  def __init__(self, arrivals, connection, address):
    self.arrivals, self.connection, self.address, self.number = arrivals, connection, address, None
    self.deadline = time.monotonic() + ANSWER_LIMIT
    self.connection.setblocking(False)
    self.buffer, self.dialogue = b'', arrivals._dialogue(self)
    next(self.dialogue)

  def read(self):
    """Takes what has come."""
    try:
      found = self.connection.recv(1 << 16)
      self.buffer += found
      *lines, self.buffer = self.buffer.split(b'\n')
      if not found or max(map(len, [*lines, self.buffer])) > wire.MAX_LINE:
        raise ValueError
      for line in lines:
        self.dialogue.send(wire.decode(line))
    except BlockingIOError:
      pass
    except StopIteration:
      pass  # nothing more is to come of it
    except (OSError, ValueError):
      self.close()

  def send(self, value):
    """Sends a short line; who does not take it at once, with nothing sent before, is not one of ours."""
    line = wire.encode(value)
    if self.connection.send(line) != len(line):
      raise ValueError

  def close(self):
    self.arrivals._forget(self)
    self.connection.close()


def _greeting(value):
  """(number, n, host, nonce) of a process other than 0 (ValueError: it is none of ours)."""
  if not isinstance(value, dict):
    raise ValueError
  number, n, host, theirs = (value.get(name) for name in ('process', 'n', 'host', 'nonce'))
  if type(number) is not int or type(n) is not int or not 0 < number < n or not isinstance(theirs, str):
    raise ValueError
  wire.host_name(host)
  return number, n, host, theirs
