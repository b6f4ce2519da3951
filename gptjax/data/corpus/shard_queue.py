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

  A shard has `load()`, which returns an error or None, `done`, `url`, `size` and `n_downloaded`, and these
  attributes are set here: `claimed` by a thread or a reader; `error`, which its readers raise; `failed`: to
  be loaded again when it is read.
  """

  def __init__(self):
    self._changed, self._planning = threading.Condition(), threading.Lock()
    self._awaited, self._planned, self._order = collections.deque(), collections.deque(), None
    self._threads, self._waited_for = 0, collections.Counter()  # number of readers that wait for a shard
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
      for shard in shards:
        if not shard.done and (shard.failed or not shard.claimed):
          shard.claimed, shard.failed = True, False
          self._awaited.append(shard)
      self._waited_for.update(shards)
      self._start_threads()
    seen = _n_downloaded(shards)
    try:
      while missing := [shard for shard in shards if not shard.done]:
        if self._failure:
          raise self._failure
        with self._changed:
          self._changed.wait_for(lambda missing=missing: any(shard.done for shard in missing), timeout=1)
        before, seen = seen, _n_downloaded(shards)
        if seen > before:
          self._while_waiting()
        if time.monotonic() - began > due:
          due += REPORT_AGAIN
          self.note(_waiting_line(missing))
    finally:
      with self._changed:
        self._waited_for -= collections.Counter(shards)

  def _start_threads(self):
    limit = THREADS_IF_AWAITED if self._awaited else THREADS
    busy = len(self._awaited) if self._order is None else limit
    for _ in range(min(limit - self._threads, busy)):
      self._threads += 1
      threading.Thread(target=self._work, name='shards', daemon=True).start()

  def _work(self):
    while (shard := self._next()) is not None:
      error = shard.load()
      with self._changed:
        raised = self._waited_for[shard] > 0
        if error and raised:
          shard.error = error
        elif error:  # whoever reads the shard, perhaps hours later, begins again
          shard.failed = True
        self._changed.notify_all()
      if error and not raised:
        self.note(str(error))

  def _next(self):
    """The next shard for a thread, which is then claimed; None: the thread ends."""
    while True:
      with self._changed:
        if self._awaited:
          return self._awaited.popleft()
        while self._planned and self._threads <= THREADS:
          shard = self._planned.popleft()
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


def _n_downloaded(shards):
  return sum(shard.n_downloaded for shard in shards)


def _waiting_line(shards):
  done, size = _n_downloaded(shards), sum(shard.size for shard in shards)
  more = f' and {len(shards) - 1} more' if len(shards) > 1 else ''
  return f'waiting for {shards[0].url}{more}: {done / 1e6:,.0f} of {size / 1e6:,.0f} MB are here'
