"""Files of lines that grow, `NAME.jsonl`: on this machine one file; in a bucket, immutable parts of it.

    WORKDIR/metrics/20261130T094706123456-1f2e3d4c-000002.jsonl

Lines are appended to a file of this machine, and what is new in it is put as the next part, every minute and
by `Writer.flush`. The names of parts sort by the process that has written them, then by their number: the
first time in the name of a process is after those of all parts before it, whatever its clock says.

Reading puts together NAME.jsonl, if there is one, and the parts, also in a copy of the folder on this
machine.
"""

import concurrent.futures
import contextlib
import re
import secrets
import threading
from datetime import UTC, datetime, timedelta

from gptjax.storage.files import access, atomic, spool
from gptjax.storage.files.paths import Url

EVERY = 60.0        # seconds between parts
LARGEST = 1 << 40   # bytes of an object that is read
READERS = 16        # parts that are read at a time
_PART = re.compile(r'(\d{8}T\d{12})-[0-9a-f]{8}-(\d{6,})\.jsonl')
_TIME = '%Y%m%dT%H%M%S%f'


def folder_of(path):
  """Return the folder of the parts of `NAME.jsonl` (a Path or Url): `NAME` beside it."""
  return path.parent / path.name.removesuffix('.jsonl')


def part_names(path):
  """Return the sorted names of the parts of `NAME.jsonl`; [] if there are none."""
  return [name for name in access.names(folder_of(path)) if _PART.fullmatch(name)]


def read(path, log):
  """Return [(location, bytes)] of `NAME.jsonl` and its parts in order; [] if there are neither.

  Args:
    path: Path or Url of NAME.jsonl.
    log: called with a line about each part that is missing.
  """
  names, folder = part_names(path), folder_of(path)
  for name in _missing(names):
    log(f'{folder / name} is missing: its lines are omitted')
  locations = [path, *(folder / name for name in names)]
  if len(locations) == 1:
    contents = [_read(path)]
  else:
    with concurrent.futures.ThreadPoolExecutor(READERS) as pool:
      contents = list(pool.map(_read, locations))
  return [(location, content) for location, content in zip(locations, contents, strict=True)
          if content is not None]


def _read(path):
  try:
    return access.read(path, LARGEST) if isinstance(path, Url) else path.read_bytes()
  except FileNotFoundError:
    return None


def _missing(names):
  """Return the names of the parts before the last one of each process that are not there."""
  numbers = {}
  for name in names:
    prefix, _, number = name.removesuffix('.jsonl').rpartition('-')
    numbers.setdefault(prefix, set()).add(int(number))
  return [_name(prefix, number) for prefix, found in numbers.items()
          for number in sorted(set(range(max(found))) - found)]


def remove(path):
  """Remove the parts of a file of this machine, whose lines are all in the file by now."""
  for name in part_names(path):
    access.remove(folder_of(path) / name)
  with contextlib.suppress(OSError):
    folder_of(path).rmdir()


def _name(prefix, number):
  return f'{prefix}-{number:06}.jsonl'


class Writer:
  """Appends lines to `NAME.jsonl` in a bucket, from any thread.

  Args:
    path: Url of NAME.jsonl.
    every: seconds between parts; None: EVERY.
    log: called with a line about a part that could not be put.
  """

  def __init__(self, path, log, every=None):
    self._folder, self._log, self._every = folder_of(path), log, every or EVERY
    self._prefix, self._number = _new_prefix(part_names(path)), 0
    self._file = open(spool.folder(path.parent) / f'{self._prefix}-{path.name}', 'xb+',
                      opener=atomic.no_follow)
    self._content = b''     # of the part that is being put, or could not be put
    self._end = 0           # of what is in parts or in `_content`, bytes
    self._writing, self._putting = threading.Lock(), threading.Lock()
    self._raised, self._closing = False, threading.Event()
    self._thread = threading.Thread(target=self._put_regularly, name='parts', daemon=True)
    self._thread.start()

  def write(self, text):
    """Append text, one or several lines."""
    with self._writing:
      self._file.write(text.encode())

  def flush(self):
    """Return when all that has been written is in the bucket.

    Raises:
      InputError: it could not be put; a later call tries again.
    """
    try:
      self._put()
    except Exception:
      self._raised = True
      raise

  def close(self):
    """Put the last part and stop; after `flush` has raised an error, only say where the lines are."""
    self._closing.set()
    self._thread.join()
    try:
      if not self._raised:
        self._put()
    finally:
      if self._content:
        spool.keep()
        self._log(f'{self._folder}: the last lines are not there, but in {self._file.name}, '
                  f'from byte {self._end - len(self._content):,} on')
      self._file.close()

  def _put(self):
    with self._putting:
      for _ in range(1 + bool(self._content)):
        if self._next():
          access.write(self._folder / _name(self._prefix, self._number), self._content)
          self._content, self._number = b'', self._number + 1

  def _next(self):
    """Whether there is something to put, in `_content`: unchanged if it could not be put before."""
    with self._writing:
      if not self._content:
        self._file.flush()
        self._file.seek(self._end)
        self._content = self._file.read()
        self._end += len(self._content)
    return bool(self._content)

  def _put_regularly(self):
    warned = False
    while not self._closing.wait(self._every):
      try:
        self._put()
        warned = False
      except Exception as error:  # the next `flush` raises it
        if not warned:
          self._log(f'{self._folder}: lines could not be put there, and wait in {self._file.name} ({error})')
        warned = True


def _new_prefix(names):
  """A prefix that sorts after those of all parts, with the current time if possible."""
  now = datetime.now(UTC).replace(tzinfo=None)
  if names:
    last = datetime.strptime(_PART.fullmatch(names[-1])[1], _TIME)
    now = max(now, last + timedelta(microseconds=1))
  return f'{now.strftime(_TIME)}-{secrets.token_hex(4)}'
