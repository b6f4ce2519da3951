"""Files of lines that grow, `NAME.jsonl`: on this machine one file; in a bucket, immutable parts of it.

    WORKDIR/metrics/20261130T094706123456-1f2e3d4c-000002.jsonl

Lines are appended to a file of this machine, and what is new in it is put as the next part, every minute and
by `Writer.flush`. Every 64 parts of a process are merged into one, NAME-FIRST-LAST.jsonl, and then removed:
so each line is put twice at most. The names of parts sort by the process that has written them, then by their
number: the first time in the name of a process is after those of all parts before it, whatever its clock
says.

Reading puts together NAME.jsonl, if there is one, and the parts, also in a copy of the folder on this
machine. When a run continues in such a copy, `replace` puts one file in their place. Until that is done,
NAME/whole.jsonl has its content, and nothing else is read.
"""

import concurrent.futures
import contextlib
import os
import re
import secrets
import threading
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from gptjax.errors import Unavailable
from gptjax.storage.files import access, atomic, spool
from gptjax.storage.files.paths import Url

PART_SECONDS = 60.0   # between parts
CLOSE_SECONDS = 30.0  # that `Writer.close` waits for the last part
LARGEST = 1 << 40     # bytes of an object that is read
READERS = 16          # parts that are read at a time
MERGED = 64           # parts that are merged into one
TRIES = 5             # lists of parts, if some are merged while they are read
WHOLE = 'whole.jsonl'
_PART = re.compile(r'((\d{8}T\d{12})-[0-9a-f]{8})-(\d{6,})(?:-(\d{6,}))?\.jsonl')
_TIME = '%Y%m%dT%H%M%S%f'


def folder_of(path):
  """Return the folder of the parts of `NAME.jsonl` (a Path or Url): `NAME` beside it."""
  return path.parent / path.name.removesuffix('.jsonl')


def part_names(path):
  """Return the names of the parts of `NAME.jsonl` in order, without those that are merged; [] without any."""
  return [part.name for part in _parts(path)]


class _Part(NamedTuple):
  """The name of a part, with the numbers of the first and the last part that are in it."""
  prefix: str  # of the process that has written it
  first: int
  last: int
  name: str


def _parts(path):
  """Return [_Part] in order, without those that are merged."""
  found = [_Part(match[1], int(match[3]), int(match[4] or match[3]), match[0])
           for match in map(_PART.fullmatch, access.names(folder_of(path))) if match]
  parts = []
  for part in sorted(found, key=lambda part: (part.prefix, part.first, -part.last)):
    if not parts or parts[-1].prefix != part.prefix or parts[-1].last < part.last:
      parts.append(part)
  return parts


def read(path, log):
  """Return [(location, bytes)] of `NAME.jsonl` and its parts in order; [] if there are neither.

  Args:
    path: Path or Url of NAME.jsonl.
    log: called with a line about parts that are missing.
  """
  if (whole := _whole(path)) is not None:
    return [(folder_of(path) / WHOLE, whole)]
  for _ in range(TRIES):
    parts = _parts(path)
    locations = [path, *(folder_of(path) / part.name for part in parts)]
    if not parts:
      contents = [_read(path)]
      break
    with concurrent.futures.ThreadPoolExecutor(READERS) as pool:
      contents = list(pool.map(_read, locations))
    if None not in contents[1:]:  # else some are merged by now
      break
  for line in _gaps(parts):
    log(f'{folder_of(path)}: {line}: its lines are omitted')
  return [(location, content) for location, content in zip(locations, contents, strict=True)
          if content is not None]


def _read(path):
  try:
    return access.read(path, LARGEST) if isinstance(path, Url) else path.read_bytes()
  except FileNotFoundError:
    return None


def _gaps(parts):
  """Yield a text about each part of a process that is missing before the last one."""
  before = None
  for part in parts:
    start = before.last + 1 if before and before.prefix == part.prefix else 0
    for number in range(start, part.first):
      yield f'{_name(part.prefix, number)} is missing'
    before = part


def _whole(path):
  """Return the content of an unfinished `replace`, or None."""
  whole = folder_of(path) / WHOLE
  return None if isinstance(path, Url) or not whole.is_file() else _read(whole)


def replace(path, text):
  """Replace `NAME.jsonl` and its parts, if there are any, on this machine by one file NAME.jsonl.

  If the process is killed meanwhile, either the old lines are read or the new ones.
  """
  names = [name for name in access.names(folder_of(path)) if _PART.fullmatch(name)]
  if names:
    atomic.write(folder_of(path) / WHOLE, text)  # from here on, the new lines are read
  atomic.write(path, text)
  for name in names:
    access.remove(folder_of(path) / name)
  if names:
    atomic.sync(folder_of(path))
  if folder_of(path).is_dir():
    access.remove(folder_of(path) / WHOLE)
  with contextlib.suppress(OSError):
    folder_of(path).rmdir()


def _name(prefix, number):
  return f'{prefix}-{number:06}.jsonl'


def _merged_name(prefix, first, last):
  return f'{prefix}-{first:06}-{last:06}.jsonl'


class Writer:
  """Appends lines to `NAME.jsonl` in a bucket, from any thread.

  Args:
    path: Url of NAME.jsonl.
    every: seconds between parts; None: PART_SECONDS.
    log: called with a line about a part that could not be put.
  """

  def __init__(self, path, log, every=None):
    self._folder, self._log, self._every = folder_of(path), log, every or PART_SECONDS
    self._prefix, self._number = _new_prefix(part_names(path)), 0
    self._file = open(spool.folder(path.parent) / f'{self._prefix}-{path.name}', 'xb+',
                      opener=atomic.no_follow)
    self._content = b''     # of the part that is being put, or could not be put
    self._end = 0           # of what is in parts or in `_content`, bytes
    self._starts = [0]      # of the parts that are not merged and of the next one, bytes
    self._merged = 0        # number of parts that are merged
    self._writing, self._putting = threading.Lock(), threading.Lock()
    self._raised, self._closing, self._error = False, threading.Event(), None
    self._thread = threading.Thread(target=self._work, name='parts', daemon=True)
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
    except BaseException:
      self._raised = True
      raise

  def close(self):
    """Put the last part and stop; it waits CLOSE_SECONDS, and says where lines are that are not put by then.

    Raises:
      InputError: they could not be put; but not if this was the error of the last `flush` already.
    """
    raised = self._raised
    self._closing.set()
    self._thread.join(CLOSE_SECONDS)
    waiting = self._thread.is_alive()  # for the storage: the thread ends with the process
    with self._writing:
      self._file.flush()
      put, written = self._starts[-1], self._file.seek(0, os.SEEK_END)
    if put < written:
      spool.keep()
      self._log(f'{self._folder}: the last lines are not there, but in {self._file.name}, '
                f'from byte {put:,} on')
    if not waiting:
      self._file.close()
    if put < written and not raised:
      raise self._error or Unavailable(f'{self._folder}: the storage has not answered for {CLOSE_SECONDS:g} '
                                       's: see whether it can be reached, and start again')

  def _put(self):
    with self._putting:
      for _ in range(1 + bool(self._content)):
        if self._next():
          access.write(self._folder / _name(self._prefix, self._number), self._content)
          self._starts.append(self._starts[-1] + len(self._content))
          self._content, self._number, self._raised = b'', self._number + 1, False

  def _merge(self):
    """Merge MERGED parts, if there are so many: the file of this machine has their lines, too."""
    while len(self._starts) > MERGED and not self._closing.is_set():
      with self._writing:
        self._file.flush()
        self._file.seek(self._starts[0])
        content = self._file.read(self._starts[MERGED] - self._starts[0])
        self._file.seek(0, os.SEEK_END)
      numbers = range(self._merged, self._merged + MERGED)
      access.write(self._folder / _merged_name(self._prefix, numbers[0], numbers[-1]), content)
      for number in numbers:
        access.remove(self._folder / _name(self._prefix, number))
      self._starts, self._merged = self._starts[MERGED:], numbers[-1] + 1

  def _next(self):
    """Whether there is something to put, in `_content`: unchanged if it could not be put before."""
    with self._writing:
      if not self._content:
        self._file.flush()
        self._file.seek(self._end)
        self._content = self._file.read()
        self._end += len(self._content)
    return bool(self._content)

  def _work(self):
    """The thread: puts and merges parts until `close`, then puts the last one."""
    warned = set()
    def attempt(work, fault):
      try:
        work()
        warned.discard(fault)
      except Exception as error:  # the next `flush` raises that of a part
        if fault not in warned:
          self._log(f'{self._folder}: {fault} ({error})')
        warned.add(fault)
    while not self._closing.wait(self._every):
      attempt(self._put, f'lines could not be put there, and wait in {self._file.name}')
      attempt(self._merge, 'parts could not be merged, which is tried again later')
    if not self._raised:
      try:
        self._put()
      except Exception as error:
        self._error = error


def _new_prefix(names):
  """A prefix that sorts after those of all parts, with the current time if possible."""
  now = datetime.now(UTC).replace(tzinfo=None)
  if names:
    last = datetime.strptime(_PART.fullmatch(names[-1])[2], _TIME)
    now = max(now, last + timedelta(microseconds=1))
  return f'{now.strftime(_TIME)}-{secrets.token_hex(4)}'
