"""What processes send each other before JAX starts: lines of JSON, of which none is trusted.

Whatever comes is bounded in length and in time, and what a message shows of it is printable.
"""

import contextlib
import json
import socket
import time

from gptjax.command.shutdown import STOPPED
from gptjax.errors import BAD_INPUT, BUG, LOST
from gptjax.files import records
from gptjax.text.printable import printable

MAX_LINE = 1 << 14       # bytes of a line
SEND_LIMIT = 5       # seconds in which who is sent a line is to take it
STARTED = 'started'  # the last word on a connection: JAX's start is over
CAUSES = BAD_INPUT, BUG, LOST, STOPPED  # exit codes with which one process may end the others
MAX_HOST = 253           # characters that the name of a host has at most
MAX_TEXT = 2000          # characters of a line that is printed


def encode(value):
  """A JSON value as bytes to send."""
  return json.dumps(value).encode() + b'\n'


def send(connections, value):
  """Sends a value; who is gone, or does not take it in time, is passed over."""
  for connection in connections:
    with contextlib.suppress(OSError):
      connection.settimeout(SEND_LIMIT)
      connection.sendall(encode(value))


def receive(connection, limit, most=MAX_LINE):
  """The next value on a connection, and not a byte of what comes after it.

  Args:
    connection: socket.
    limit: seconds in which all of the line is to be there.
    most: bytes that it may have.

  Returns:
    The value; None if the connection is closed, or what comes is no such line.
  """
  found, deadline = b'', time.monotonic() + limit
  try:
    while not found.endswith(b'\n'):
      connection.settimeout(max(deadline - time.monotonic(), 0.001))
      peeked = connection.recv(1 << 16, socket.MSG_PEEK)
      if not peeked or len(found) > most or time.monotonic() > deadline:
        return None
      found += connection.recv(peeked.find(b'\n') + 1 or len(peeked))
    return decode(found)
  except (OSError, ValueError):
    return None


def decode(line):
  """The JSON value of a line (ValueError: it is not JSON)."""
  return records.parse(line)


def parse_cause(value):
  """(line, exit code) for which another process ends the run, printable; None: it is no such thing."""
  if isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and is_cause(value[1]):
    return printable(value[0])[:MAX_TEXT], value[1]
  return None


def is_cause(code):
  """Whether it is an exit code with which one process may end the others; 0, which means done, is not."""
  return type(code) is int and code in CAUSES


def host_name(name):
  """The name of a host as received, printable (ValueError: it is no text)."""
  if not isinstance(name, str) or not name:
    raise ValueError
  return printable(name)[:MAX_HOST]
