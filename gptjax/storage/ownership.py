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

A folder in a bucket has records alone, see `bucket_ownership`.
"""

import contextlib
import fcntl
import json
import os
import sys
import threading
import time
from pathlib import Path

from gptjax.errors import InputError
from gptjax.storage import bucket_ownership, owner_record
from gptjax.storage.files import atomic, locks, paths
from gptjax.storage.files.paths import Url

HEARTBEAT = 10        # seconds between two heartbeats
HEARTBEAT_LIMIT = 90  # seconds without a heartbeat after which an owner on another machine is dead
SETTLE = 1            # seconds after which, without flock, concurrent writers see each other's record

_open = set()  # files that are locked by this process


def _close_in_child():
  # A lock belongs to the open file, which a forked child shares: the lock would outlive its owner.
  for file in _open:
    file.close()


os.register_at_fork(after_in_child=_close_in_child)


def _log(line):
  print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def own_folder(folder, log=_log, keep_record=False):
  """Context manager that creates a folder if necessary and excludes other owners.

  At the end the record is removed, and the folder too if it was created here and is empty.

  Args:
    folder: of a run or a corpus.
    log: called with a line about limits of the file system.
    keep_record: in a bucket, keep the record of the last owner, see `bucket_ownership.own`.

  Raises:
    InputError: another process owns the folder (host, process and since when), or it cannot be written to.
  """
  if isinstance(folder, Url):
    with bucket_ownership.own(folder, log, keep_record):
      yield
    return
  folder = Path(folder)
  created = [path for path in (folder, *folder.parents) if not path.exists()]
  try:
    atomic.make_folders(folder)
    file = _acquire(folder, log)
  except OSError as error:
    raise InputError(f'{folder} is not writable ({error.strerror}): use another folder') from None
  record = owner_record.new()
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
          (folder / owner_record.FILE).unlink()
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
      stack.enter_context(own_folder(paths.location(workdir), keep_record=True))
    processes.on_process_0(own)
    yield


def check(path):
  """Raise InputError if this process has lost the folder of a file that it is about to commit.

  A lock on this machine cannot be lost.
  """
  if isinstance(path, Url):
    bucket_ownership.check(path)


def _acquire(folder, log):
  """The open record, locked if the file system supports it; its previous owner has ended."""
  while True:
    file = open(folder / owner_record.FILE, 'a+b', buffering=0, opener=atomic.no_follow)
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
      locked = True
    except OSError as error:
      locked = False
      if error.errno not in locks.UNSUPPORTED:
        file.close()
        if not isinstance(error, BlockingIOError | PermissionError):
          raise
        raise owner_record.in_use(folder, _read(folder)) from None
    # The previous owner may have removed the file after it was opened here: then the lock has no effect.
    if not _is_at(file, folder / owner_record.FILE):
      file.close()
      continue
    try:
      if not locked:
        log(f'{folder}: the file system has no flock; {owner_record.FILE} alone prevents a second run')
      _check_ended(folder, locked, log)
    except BaseException:
      file.close()
      raise
    if _is_at(file, folder / owner_record.FILE):
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
  if previous.get('machine') == owner_record.machine():
    # On one machine the lock is sufficient; without it, the process is looked up.
    if not locked and previous.get('process') == owner_record.process(previous.get('pid')):
      raise owner_record.in_use(folder, previous)
    return
  log(f'{folder} was not released by {owner_record.name(previous)}: waiting up to {HEARTBEAT_LIMIT} s for '
      'its heartbeat')
  deadline = time.monotonic() + HEARTBEAT_LIMIT
  while time.monotonic() < deadline and (folder / owner_record.FILE).exists():
    time.sleep(min(1, HEARTBEAT))
    current = _read(folder)
    if current and current != previous:
      raise owner_record.in_use(folder, current)


def _confirm(folder, record):
  """Without flock: if two processes write a record at the same time, the last one owns the folder."""
  time.sleep(SETTLE)
  current = _read(folder)
  if current.get('token') != record['token']:
    raise owner_record.in_use(folder, current)


def _beat(file, record, ended):
  """The thread of the heartbeat; it does not change the record of another owner."""
  while not ended.wait(HEARTBEAT):
    with contextlib.suppress(OSError):  # a full disk must not end the run; the next heartbeat tries again
      content = os.pread(file.fileno(), owner_record.MAX_BYTES, 0)
      if owner_record.parse(content).get('token') == record['token']:
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
    with open(folder / owner_record.FILE, 'rb') as file:
      return owner_record.parse(file.read(owner_record.MAX_BYTES))
  except FileNotFoundError:
    return {}
