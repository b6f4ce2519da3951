"""Exclusive ownership of a folder by one process: a record of the owner in `owner.json`, and a lock on it.

The record has the host, process id, start time and a random token of the owner. The kernel releases the lock
(`flock`) however the process ends, so the record of a killed process is replaced silently. On two kinds of
file systems the lock is not sufficient: without flock (Lustre mounted without `-o flock`), the record alone
decides, and a line reports this; if other machines do not see the lock (gcsfuse, Lustre with `-o
localflock`), it says nothing about a record of another machine.

Therefore an owner increments a counter in its record every `HEARTBEAT` seconds. On the same machine the
process id and its start time show whether the owner is alive. A record of another machine is watched: a
heartbeat within `HEARTBEAT_LIMIT` seconds means that the owner is alive, none that it is dead. No clocks are
compared.
"""

import contextlib
import errno
import fcntl
import json
import os
import secrets
import socket
import sys
import threading
import time
from datetime import datetime
from pathlib import Path

from gptjax.errors import InputError
from gptjax.storage.files import atomic, json_files

FILE = 'owner.json'
HEARTBEAT = 10        # seconds between two heartbeats
HEARTBEAT_LIMIT = 90  # seconds without a heartbeat after which an owner on another machine is dead
MAX_RECORD = 1 << 16  # bytes that are read of a record
SETTLE = 1            # seconds after which, without flock, concurrent writers see each other's record
UNSUPPORTED = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL}

_open = set()  # files that are locked by this process


def _close_in_child():
  # A lock belongs to the open file, which a forked child shares: the lock would outlive its owner.
  for file in _open:
    file.close()


os.register_at_fork(after_in_child=_close_in_child)


def _log(line):
  print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def own_folder(folder, log=_log):
  """Context manager that creates a folder if necessary and excludes other owners.

  At the end the record is removed, and the folder too if it was created here and is empty.

  Args:
    folder: of a run or a corpus.
    log: called with a line about limits of the file system.

  Raises:
    InputError: another process owns the folder (host, process and since when), or it cannot be written to.
  """
  folder = Path(folder)
  created = [path for path in (folder, *folder.parents) if not path.exists()]
  try:
    atomic.make_folders(folder)
    file = _acquire(folder, log)
  except OSError as error:
    raise InputError(f'{folder} is not writable ({error.strerror}): use another folder') from None
  record = {'host': socket.gethostname(), 'pid': os.getpid(), 'since': _now(), 'token': secrets.token_hex(8),
            'process': _process(os.getpid()), 'machine': _machine(), 'beat': 0}
  ended = threading.Event()
  try:
    _write(file, record)
    if file not in _open:
      _confirm(folder, record)
    atomic.remove_leftovers(folder)
    beats = threading.Thread(target=_beat, args=(file, record, ended), daemon=True)
    beats.start()
    try:
      yield
    finally:
      ended.set()
      beats.join()
      with contextlib.suppress(OSError):
        if _read(folder).get('token') == record['token'] and os.getpid() == record['pid']:  # no forked child
          (folder / FILE).unlink()
  finally:
    _open.discard(file)
    file.close()
    with contextlib.suppress(OSError):  # not empty
      for path in created:
        path.rmdir()


@contextlib.contextmanager
def own_workdir(workdir):
  """`own_folder` for a run of several processes: process 0 owns the workdir, the others wait for it."""
  from gptjax.parallel import processes  # here: corpora are prepared without it
  with contextlib.ExitStack() as stack:
    def own():
      stack.enter_context(own_folder(workdir))
    processes.on_process_0(own)
    yield


def _acquire(folder, log):
  """The open record, locked if the file system supports it; its previous owner has ended."""
  while True:
    file = open(folder / FILE, 'a+b', buffering=0, opener=atomic.no_follow)
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
      locked = True
    except OSError as error:
      locked = False
      if error.errno not in UNSUPPORTED:
        file.close()
        if not isinstance(error, BlockingIOError | PermissionError):
          raise
        raise _in_use(folder, _read(folder)) from None
    # The previous owner may have removed the file after it was opened here: then the lock has no effect.
    if not _is_at(file, folder / FILE):
      file.close()
      continue
    try:
      if not locked:
        log(f'{folder}: the file system has no flock; {FILE} alone prevents a second run')
      _check_ended(folder, locked, log)
    except BaseException:
      file.close()
      raise
    if _is_at(file, folder / FILE):
      if locked:
        _open.add(file)
      return file
    file.close()


def _is_at(file, path):
  try:
    return os.path.samestat(os.fstat(file.fileno()), path.stat())
  except FileNotFoundError:
    return False


def _check_ended(folder, locked, log):
  """Raise InputError if the process of the record is alive."""
  previous = _read(folder)
  if not previous:
    return
  if previous.get('machine') == _machine():
    # On one machine the lock is sufficient; without it, the process is looked up.
    if not locked and previous.get('process') == _process(previous.get('pid')):
      raise _in_use(folder, previous)
    return
  log(f'{folder} was not released by {_owner(previous)}: waiting up to {HEARTBEAT_LIMIT} s for its heartbeat')
  deadline = time.monotonic() + HEARTBEAT_LIMIT
  while time.monotonic() < deadline and (folder / FILE).exists():
    time.sleep(min(1, HEARTBEAT))
    current = _read(folder)
    if current and current != previous:
      raise _in_use(folder, current)


def _confirm(folder, record):
  """Without flock: if two processes write a record at the same time, the last one owns the folder."""
  time.sleep(SETTLE)
  current = _read(folder)
  if current.get('token') != record['token']:
    raise _in_use(folder, current)


def _beat(file, record, ended):
  """The thread of the heartbeat; it does not change the record of another owner."""
  while not ended.wait(HEARTBEAT):
    with contextlib.suppress(OSError):  # a full disk must not end the run; the next heartbeat tries again
      if _parsed(os.pread(file.fileno(), MAX_RECORD, 0)).get('token') == record['token']:
        record['beat'] += 1
        _write(file, record)


def _write(file, record):
  # The file is open for appending: empty it before each write.
  file.truncate(0)
  file.write(json.dumps(record).encode() + b'\n')
  os.fsync(file.fileno())


def _read(folder):
  """The record; {} if it is absent, damaged or being written."""
  try:
    with open(folder / FILE, 'rb') as file:
      return _parsed(file.read(MAX_RECORD))
  except FileNotFoundError:
    return {}


def _parsed(content):
  try:
    record = json_files.parse(content)
  except ValueError:
    return {}
  return record if isinstance(record, dict) and isinstance(record.get('machine'), list) else {}


def _in_use(folder, record):
  return InputError(f'{folder} is in use by {_owner(record)}: wait until it has ended, or use another folder')


def _owner(record):
  if not record:
    return 'another process'
  return f'process {record.get("pid")} on {record.get("host")} (since {record.get("since")})'


def _now():
  return datetime.now().astimezone().isoformat(' ', 'seconds')


def _machine():
  """The scope of process ids: host, boot and PID namespace."""
  scope = [socket.gethostname()]
  with contextlib.suppress(OSError):  # only Linux has them
    scope += [Path('/proc/sys/kernel/random/boot_id').read_text().strip(), os.readlink('/proc/self/ns/pid')]
  return scope


def _process(pid):
  """An identifier that distinguishes a process from a later one with the same id; None if it has ended."""
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
