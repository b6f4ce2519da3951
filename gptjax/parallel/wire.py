"""The wire format of processes before JAX starts: lines of JSON, none of which is trusted.

Whatever is received is bounded in length and in time, and is made printable before a message shows it.
"""

import contextlib
import json
import socket
import time

from gptjax.command.shutdown import STOPPED
from gptjax.errors import BAD_INPUT, BUG, LOST
from gptjax.storage.files import records
from gptjax.text.printable import printable

MAX_LINE = 1 << 14   # bytes of a line
SEND_LIMIT = 5       # seconds within which the receiver must accept a line
STARTED = 'started'  # the last line on a connection: JAX has started
CAUSES = BAD_INPUT, BUG, LOST, STOPPED  # exit codes with which one process may end the others
MAX_HOST = 253       # characters of a host name
MAX_TEXT = 2000      # characters of a line that is printed


def encode(value):
  """Return a JSON value as a line of bytes."""
  return json.dumps(value).encode() + b'\n'


def send(connections, value):
  """Send a value; connections that are closed, or do not accept it in time, are skipped."""
  for connection in connections:
    with contextlib.suppress(OSError):
      connection.settimeout(SEND_LIMIT)
      connection.sendall(encode(value))


def receive(connection, limit, max_bytes=MAX_LINE):
  """Receive the next value on a connection, without reading beyond it.

  Args:
    connection: socket.
    limit: seconds within which the whole line must arrive.
    max_bytes: of the line.

  Returns:
    The value; None if the connection is closed or the line is invalid.
  """
  line, deadline = b'', time.monotonic() + limit
  try:
    while not line.endswith(b'\n'):
      connection.settimeout(max(deadline - time.monotonic(), 0.001))
      peeked = connection.recv(1 << 16, socket.MSG_PEEK)
      if not peeked or len(line) > max_bytes or time.monotonic() > deadline:
        return None
      line += connection.recv(peeked.find(b'\n') + 1 or len(peeked))
    return decode(line)
  except (OSError, ValueError):
    return None


def decode(line):
  """Return the JSON value of a line (ValueError if it is not JSON)."""
  return records.parse(line)


def parse_cause(value):
  """Return (printable line, exit code) with which another process ends the run; None if it is not a cause."""
  if isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and is_cause(value[1]):
    return printable(value[0])[:MAX_TEXT], value[1]
  return None


def is_cause(code):
  """Whether one process may end the others with this exit code; 0, which means success, is excluded."""
  return type(code) is int and code in CAUSES


def host_name(name):
  """Return a received host name, printable and bounded (ValueError if it is not text)."""
  if not isinstance(name, str) or not name:
    raise ValueError
  return printable(name)[:MAX_HOST]
