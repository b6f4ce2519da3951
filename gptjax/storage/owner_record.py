"""The record of the owner of a folder: host, process, start time and a random token."""

import contextlib
import os
import secrets
import socket
from datetime import datetime
from pathlib import Path

from gptjax.errors import InputError
from gptjax.storage.files import json_files

FILE = 'owner.json'
MAX_BYTES = 1 << 16


def new():
  """Return the record of this process, a dict; `beat` counts its heartbeats."""
  return {'host': socket.gethostname(), 'pid': os.getpid(),
          'since': datetime.now().astimezone().isoformat(' ', 'seconds'), 'token': secrets.token_hex(8),
          'process': process(os.getpid()), 'machine': machine(), 'beat': 0}


def parse(content):
  """Return the record in the content of a file (bytes); {} if it is damaged or being written."""
  try:
    record = json_files.parse(content)
  except ValueError:
    return {}
  return record if isinstance(record, dict) and isinstance(record.get('machine'), list) else {}


def is_alive(record):
  """Return whether it is known that the process of a record runs: only that of this machine is."""
  return record.get('machine') == machine() and record.get('process') == process(record.get('pid'))


def has_ended(record):
  """Return whether it is known that the process of a record has ended, or that there was none."""
  return not record or (record.get('machine') == machine() and not is_alive(record))


def in_use(folder, record):
  """Return the InputError for a folder of another owner."""
  return InputError(f'{folder} is in use by {name(record)}: wait until it has ended, or use another folder')


def name(record):
  """Return the owner as messages name it."""
  if not record:
    return 'another process'
  return f'process {record.get("pid")} on {record.get("host")} (since {record.get("since")})'


def machine():
  """Return the scope of process ids: host, boot and PID namespace."""
  scope = [socket.gethostname()]
  with contextlib.suppress(OSError):  # only Linux has them
    scope += [Path('/proc/sys/kernel/random/boot_id').read_text().strip(), os.readlink('/proc/self/ns/pid')]
  return scope


def process(pid):
  """Return what distinguishes a process from a later one with the same id; None if it has ended."""
  with contextlib.suppress(OSError, ValueError, TypeError):
    fields = Path(f'/proc/{int(pid)}/stat').read_text().rpartition(')')[2].split()
    return None if fields[0] in 'ZX' else fields[19]  # a zombie is dead
  if Path('/proc/self/stat').exists():
    return None
  try:
    os.kill(int(pid), 0)  # without /proc only the id is checked
  except (OSError, ValueError, TypeError):
    return None
  return 'alive'
