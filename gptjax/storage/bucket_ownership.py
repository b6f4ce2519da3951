"""Exclusive ownership of a folder in a bucket: numbered records of its owners, with heartbeats.

The record with the highest number, of `owner/000001.json` and so on, is that of the owner. A process becomes
the owner by creating the next number if absent, which one of several succeeds in. It rewrites its own record
every `HEARTBEAT` seconds, and no other: a request of an earlier owner that arrives late changes nothing.
`check`, which is called before anything is committed, ends a run that is no longer the owner.

The record of a process that has vanished stays. A process that finds one watches it, and takes the folder
over if it does not change for `TAKEOVER` seconds in which the storage answers. No clocks are compared.
"""

import contextlib
import json
import threading
import time

from gptjax.errors import LostWorkdir
from gptjax.storage import owner_record
from gptjax.storage.files import buckets

FOLDER = 'owner'
HEARTBEAT = 10   # seconds between two heartbeats
TAKEOVER = 120   # seconds without a heartbeat after which the folder of an owner is taken over
RELEASED = 'released'  # field of the record of an owner that has ended

_owned = {}  # Url of each folder of this process: the number of its record


@contextlib.contextmanager
def own(folder, log, keep_record=True):
  """Context manager that excludes other owners of a folder, `ownership.own_folder` for a Url.

  Args:
    folder: Url.
    log: called with a line before waiting for the heartbeat of an earlier owner.
    keep_record: whether the last record stays, so that numbers are never used again; else it is removed.
  """
  record = owner_record.new()
  number = _acquire(folder, record, log)
  _owned[folder] = number
  ended = threading.Event()
  beats = threading.Thread(target=_beat, args=(_file(folder, number), record, ended), daemon=True)
  beats.start()
  try:
    yield
  finally:
    ended.set()
    beats.join(HEARTBEAT)
    del _owned[folder]
    with contextlib.suppress(Exception):  # without access the record stays, and is taken over
      if keep_record:
        buckets.put(_file(folder, number), _text({**record, RELEASED: True}))
      else:
        buckets.remove(_file(folder, number))


def check(path):
  """Raise LostWorkdir if this process has lost the folder that holds `path`, a Url."""
  for folder, number in list(_owned.items()):
    if str(path).startswith(f'{folder}/'):
      newest, current = read(folder)
      if newest != number:
        raise LostWorkdir(f'{folder} was taken over by {owner_record.name(current)}, because this process '
                          f'had not renewed its record for {TAKEOVER} s: this run ends')


def read(folder):
  """Return (number, record) of the newest owner; (0, {}) if there is none."""
  number = max((int(name[:-len('.json')]) for name in buckets.names(folder / FOLDER)
                if name.endswith('.json') and name[:-len('.json')].isdecimal()), default=0)
  try:
    content = buckets.read(_file(folder, number), owner_record.MAX_BYTES) if number else b'{}'
  except FileNotFoundError:
    content = b'{}'
  return number, owner_record.parse(content)


def _file(folder, number):
  return folder / FOLDER / f'{number:06}.json'


def _acquire(folder, record, log):
  """Wait until there is no living owner, and return the number of the record of this process."""
  number, previous = read(folder)
  if previous and not previous.get(RELEASED):
    if owner_record.is_alive(previous):
      raise owner_record.in_use(folder, previous)
    if not owner_record.has_ended(previous):
      _watch(folder, number, previous, log)
  if not buckets.create(_file(folder, number + 1), _text(record)):
    raise owner_record.in_use(folder, read(folder)[1])
  for earlier in range(max(1, number - 9), number + 1):
    with contextlib.suppress(Exception):  # they only take space
      buckets.remove(_file(folder, earlier))
  return number + 1


def _watch(folder, number, previous, log):
  """Return if the owner gives no sign of life for TAKEOVER seconds."""
  log(f'{folder} was not released by {owner_record.name(previous)}: waiting up to {TAKEOVER} s for its '
      'heartbeat')
  deadline = time.monotonic() + TAKEOVER
  while time.monotonic() < deadline:
    time.sleep(min(HEARTBEAT / 2, 5))
    asked = time.monotonic()
    newest, current = read(folder)
    if time.monotonic() - asked > HEARTBEAT:  # while the storage is away, its owner cannot beat either
      deadline = time.monotonic() + TAKEOVER
    if newest != number or (current and not current.get(RELEASED) and current != previous):
      raise owner_record.in_use(folder, current)
    if not current or current.get(RELEASED):
      return


def _beat(file, record, ended):
  while not ended.wait(HEARTBEAT):
    # Without an answer the next heartbeat tries again; what lasts is reported by the requests of the run.
    with contextlib.suppress(Exception):
      record['beat'] += 1
      buckets.put(file, _text(record), longest_pause=HEARTBEAT)


def _text(record):
  return json.dumps(record) + '\n'
