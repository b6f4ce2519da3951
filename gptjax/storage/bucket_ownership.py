"""Exclusive ownership of a folder in a bucket: a record of the owner in `owner.json`, with a heartbeat.

The record is created if absent, by one request that only one process can win. The owner rewrites it every
`HEARTBEAT` seconds with a higher counter, and reads it before: if another process has written its own, this
one has lost the folder, and `check`, which is called before anything is committed, ends the run.

The record of a process that has vanished stays. A process that finds one watches it; a record that does not
change for `TAKEOVER` seconds is replaced. No clocks are compared.
"""

import contextlib
import json
import threading
import time

from gptjax.errors import InputError
from gptjax.storage import owner_record
from gptjax.storage.files import buckets

HEARTBEAT = 10   # seconds between two heartbeats
TAKEOVER = 120   # seconds without a heartbeat after which the folder of an owner is taken over
SETTLE = 2       # seconds after which processes that take over at the same time see who wrote last

_owned = {}  # Url of each folder of this process: its record


@contextlib.contextmanager
def own(folder, log):
  """Context manager that excludes other owners of a folder, `ownership.own_folder` for a Url."""
  file, record = folder / owner_record.FILE, owner_record.new()
  if not buckets.create(file, _text(record)):
    _take_over(folder, record, log)
  _owned[folder] = record
  ended = threading.Event()
  beats = threading.Thread(target=_beat, args=(folder, record, ended), daemon=True)
  beats.start()
  try:
    yield
  finally:
    ended.set()
    beats.join(HEARTBEAT)
    del _owned[folder]
    with contextlib.suppress(InputError, OSError):  # without access the record stays, and is taken over
      if read(folder).get('token') == record['token']:
        buckets.remove(file)


def check(path):
  """Raise InputError if this process has lost the folder that holds `path`, a Url."""
  for folder, record in list(_owned.items()):
    if str(path).startswith(f'{folder}/'):
      current = read(folder)
      if current.get('token') != record['token']:
        raise InputError(f'{folder} was taken over by {owner_record.name(current)}, because this process had '
                         f'not renewed {owner_record.FILE} for {TAKEOVER} s: this run ends')


def read(folder):
  """Return the record; {} if it is absent or damaged."""
  try:
    return owner_record.parse(buckets.read(folder / owner_record.FILE, owner_record.MAX_BYTES))
  except FileNotFoundError:
    return {}


def _take_over(folder, record, log):
  previous = read(folder)
  if owner_record.is_alive(previous):
    raise owner_record.in_use(folder, previous)
  if not owner_record.has_ended(previous):
    log(f'{folder} was not released by {owner_record.name(previous)}: waiting up to {TAKEOVER} s for its '
        'heartbeat')
    deadline = time.monotonic() + TAKEOVER
    while time.monotonic() < deadline and (current := read(folder)):
      if current != previous:
        raise owner_record.in_use(folder, current)
      time.sleep(min(HEARTBEAT / 2, 5))
  buckets.put(folder / owner_record.FILE, _text(record))
  time.sleep(SETTLE)
  current = read(folder)
  if current.get('token') != record['token']:
    raise owner_record.in_use(folder, current)


def _beat(folder, record, ended):
  while not ended.wait(HEARTBEAT):
    # Without an answer the next heartbeat tries again; `check` reports what lasts.
    with contextlib.suppress(InputError, OSError):
      if read(folder).get('token') != record['token']:
        return
      record['beat'] += 1
      buckets.put(folder / owner_record.FILE, _text(record))


def _text(record):
  return json.dumps(record) + '\n'
