"""Downloads shards in the background: those for which a reader waits before those planned."""

import collections
import sys
import threading
import time

THREADS, THREADS_IF_AWAITED = 2, 4  # shards downloaded at a time; the second, while a reader waits for one
REPORT, REPORT_AGAIN = 5, 30        # seconds of waiting before a line, and between further lines


def print_line(line):
  """Print a line to stderr."""
  print(line, file=sys.stderr, flush=True)


class Queue:
  """Loads shards in daemon threads, which end when there is nothing to do.

  A shard has `load()`, which does not raise, `done`, `error`, `claimed` (set here), `url`, `size` and
  `n_downloaded`.
  """

  def __init__(self):
    self._changed, self._planning = threading.Condition(), threading.Lock()
    self._awaited, self._planned, self._order = collections.deque(), collections.deque(), None
    self._threads = self._readers = 0
    self._failure = None
    self.note, self._while_waiting = print_line, lambda: None

  def begin(self, order, note, while_waiting):
    """Load what `order` yields, lists of shards; arguments as for `remote_shards.fetch_ahead`."""
    with self._changed:
      self._order, self._failure = order, None
      self._planned.clear()
      self.note, self._while_waiting = note, while_waiting
      self._start_threads()

  def wait(self, shards):
    """Return when all these shards are loaded, or have an error.

    Raises:
      Exception: what `order` or `while_waiting` raised.
    """
    if all(shard.done for shard in shards):
      return
    began, due = time.monotonic(), REPORT
    with self._changed:
      self._awaited.extend(shard for shard in shards if not shard.claimed)
      self._readers += 1
      self._start_threads()
    try:
      while missing := [shard for shard in shards if not shard.done]:
        if self._failure:
          raise self._failure
        with self._changed:
          self._changed.wait_for(lambda missing=missing: any(shard.done for shard in missing), timeout=1)
        self._while_waiting()
        if time.monotonic() - began > due:
          due += REPORT_AGAIN
          self.note(_waiting_line(missing))
    finally:
      with self._changed:
        self._readers -= 1

  def _start_threads(self):
    limit = THREADS_IF_AWAITED if self._awaited else THREADS
    busy = len(self._awaited) if self._order is None else limit
    for _ in range(min(limit - self._threads, busy)):
      self._threads += 1
      threading.Thread(target=self._work, name='shards', daemon=True).start()

  def _work(self):
    while (shard := self._next()) is not None:
      shard.load()
      with self._changed:
        unread = shard.error is not None and not self._readers
        self._changed.notify_all()
      if unread:  # it is raised when the shard is read, which may be hours later
        self.note(str(shard.error))

  def _next(self):
    """The next shard for a thread, which is then claimed; None: the thread ends."""
    while True:
      with self._changed:
        waiting = [self._awaited] if self._threads > THREADS else [self._awaited, self._planned]
        for queue in waiting:
          while queue:
            shard = queue.popleft()
            if not shard.claimed:
              shard.claimed = True
              return shard
        order = self._order
        if order is None or self._threads > THREADS:
          self._threads -= 1
          return None
      with self._planning:
        self._plan(order)

  def _plan(self, order):
    found, failure = None, None
    try:
      found = next(order, None)
    except Exception as error:
      failure = error
    with self._changed:
      if order is self._order:
        self._planned.extend(found or ())
        self._order, self._failure = order if found is not None else None, failure


def _waiting_line(shards):
  done, size = sum(shard.n_downloaded for shard in shards), sum(shard.size for shard in shards)
  more = f' and {len(shards) - 1} more' if len(shards) > 1 else ''
  return f'waiting for {shards[0].url}{more}: {done / 1e6:,.0f} of {size / 1e6:,.0f} MB are here'
