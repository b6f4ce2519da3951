"""Process 0's side of the rendezvous: accept, authenticate and register the other processes.

All connections are served concurrently, each with a time limit of its own, so that a silent one delays no
other. A connection that violates the protocol is closed.
"""

import selectors
import time
from contextlib import suppress

from gptjax.parallel import run_token, wire

ANSWER_LIMIT = 10      # seconds within which a connection must identify itself
MAX_UNIDENTIFIED = 64  # connections that have not identified themselves, beyond the number of processes
MAX_REPORTED = 3       # refused connections that are reported


class RendezvousServer:
  """The processes that have connected to process 0.

  Args:
    server: listening socket.
    n: number of processes.
    token: run_token.Token.
    host: name of this machine.
    sockets: dict to which {process index: socket} of connected processes is added, process 0 excepted.
  """

  def __init__(self, server, n, token, host, sockets):
    self.server, self.n, self.token, self.sockets = server, n, token, sockets
    self.hosts = {0: host}  # {process index: host name} of connected processes
    self.mismatch = ''      # why the processes cannot form a run
    self.stopped = None     # (line, exit code) of a process that has received a stop signal
    self.refused = []       # lines about refused connections
    self._selector, self._pending = selectors.DefaultSelector(), []

  def wait(self, deadline):
    """Wait until all processes have connected, they cannot form a run, one is stopped, or the time is up."""
    self.server.setblocking(False)
    self._selector.register(self.server, selectors.EVENT_READ)
    while len(self.hosts) < self.n and not self.mismatch and not self.stopped:
      remaining = deadline - time.monotonic()
      if remaining <= 0:
        break
      for key, _ in self._selector.select(min(remaining, 0.5 if self._pending else remaining)):
        self._accept() if key.fileobj is self.server else key.data.read()
        if self.mismatch or self.stopped:
          break
      for peer in [peer for peer in self._pending if time.monotonic() > peer.deadline]:
        peer.close()
    self._selector.close()
    for peer in list(self._pending):
      peer.close()

  def close(self):
    """Close the connections to all connected processes."""
    for connection in self.sockets.values():
      connection.close()

  def _accept(self):
    try:
      connection, (address, *_) = self.server.accept()
    except BlockingIOError:
      return
    except OSError:  # the limit of open files is reached
      connection = None
    if self._pending and (connection is None or len(self._pending) >= self.n + MAX_UNIDENTIFIED):
      self._pending[0].close()  # the oldest
    if connection:
      peer = _Peer(self, connection, str(address))
      self._pending.append(peer)
      self._selector.register(connection, selectors.EVENT_READ, peer)

  def _remove(self, peer):
    with suppress(KeyError, ValueError):
      self._selector.unregister(peer.connection)
    if peer in self._pending:
      self._pending.remove(peer)
    if peer.index is not None and not self.stopped:  # another connection may take its place
      del self.hosts[peer.index], self.sockets[peer.index]

  def _protocol(self, peer):
    """Coroutine of the protocol of one connection: receives each line; ValueError closes the connection."""
    index, n, host, peer_nonce = _parse_greeting((yield))
    own_nonce = run_token.nonce()
    facts, key = (peer_nonce, own_nonce, index, n, host), self.token.key
    peer.send({'nonce': own_nonce, 'token': self.token.source})
    proof = yield
    if key and not run_token.verify_proof(proof, key, 'process', *facts):
      self._refuse(f'{peer.address}, which calls itself process {index} on {wire.host_name(host)}, has '
                   'another token')
      peer.send({'refused': True})
      raise ValueError
    peer.send({'proof': run_token.proof(key, 'process 0', *facts)})
    mismatch = self._find_mismatch(index, n, wire.host_name(host))
    if mismatch:
      peer.send({'wrong': mismatch})
      if not key:  # the peer is not authenticated, so it must not end the run
        self._refuse(mismatch)
        raise ValueError
      self.mismatch = mismatch
      return
    self._pending.remove(peer)
    peer.index, peer.deadline = index, float('inf')
    self.hosts[index], self.sockets[index] = wire.host_name(host), peer.connection
    while not self.stopped:
      self.stopped = wire.parse_cause((yield))

  def _refuse(self, line):
    if line not in self.refused and len(self.refused) < MAX_REPORTED:
      self.refused.append(line)

  def _find_mismatch(self, index, n, host):
    if n != self.n:
      return (f'process {index} on {host} was started as one of {n}, process 0 as one of {self.n}: start '
              'all with the same number of processes')
    if index in self.hosts:
      return (f'two processes were started as number {index} (on {self.hosts[index]} and {host}): give '
              'each its own --process_id')
    return ''


class _Peer:
  """One connection, and the state of its protocol."""

  def __init__(self, server, connection, address):
    self.server, self.connection, self.address, self.index = server, connection, address, None
    self.deadline = time.monotonic() + ANSWER_LIMIT
    self.connection.setblocking(False)
    self.buffer, self.protocol = b'', server._protocol(self)
    next(self.protocol)

  def read(self):
    """Read the available bytes and pass complete lines to the protocol."""
    try:
      received = self.connection.recv(1 << 16)
      self.buffer += received
      *lines, self.buffer = self.buffer.split(b'\n')
      if not received or max(map(len, [*lines, self.buffer])) > wire.MAX_LINE:
        raise ValueError
      for line in lines:
        self.protocol.send(wire.decode(line))
    except BlockingIOError:
      pass
    except StopIteration:
      pass  # the protocol is complete
    except (OSError, ValueError):
      self.close()

  def send(self, value):
    """Send a short line; ValueError if it does not fit into the socket's buffer."""
    line = wire.encode(value)
    if self.connection.send(line) != len(line):
      raise ValueError

  def close(self):
    self.server._remove(self)
    self.connection.close()


def _parse_greeting(value):
  """(index, n, host, nonce) from the first line of a process other than 0; ValueError if it is invalid."""
  if not isinstance(value, dict):
    raise ValueError
  index, n, host, nonce = (value.get(name) for name in ('process', 'n', 'host', 'nonce'))
  if type(index) is not int or type(n) is not int or not 0 < index < n or not isinstance(nonce, str):
    raise ValueError
  wire.host_name(host)
  return index, n, host, nonce
