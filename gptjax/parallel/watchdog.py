"""Ends a run that makes no progress: dumps the stacks of all threads and exits with 70."""

import faulthandler
import math
import sys
import threading
import time

from gptjax.parallel import control
from gptjax.storage.files import buckets


class Watchdog:
  """A thread that ends the run unless `progress` is called in time.

  Args:
    limits: `config.watchdog`, in seconds.
  """

  def __init__(self, limits):
    self.limits = limits
    self.ended = threading.Event()
    buckets.configure(on_retry=self._storage_is_away)
    self.progress(slow=True)
    threading.Thread(target=self._watch, daemon=True).start()

  def progress(self, slow=False):
    """Report progress; the next call is due within the limit for a step.

    Args:
      slow: the next work may include compilation or wait for a disk: use the longer limit.
    """
    name = 'compile_timeout' if slow else 'step_timeout'
    self.due = name, getattr(self.limits, name) or math.inf, time.monotonic()

  def _storage_is_away(self):
    """A request is repeated: progress, unless its thread is one that nothing waits for."""
    if not threading.current_thread().daemon:
      self.progress(slow=True)

  def close(self):
    self.ended.set()

  def _watch(self):
    """10 s before the limit: roll call. 2 s before it: dump stacks and end all processes."""
    absent = called_for = None
    while not self.ended.wait(0.1):
      due = name, limit, started = self.due
      elapsed = time.monotonic() - started
      if elapsed > limit - min(10, 0.75 * limit) and called_for is not due:
        absent, called_for = control.roll_call(min(control.ROLL_CALL_LIMIT, limit / 4)), due
      elif elapsed > limit - min(2, 0.25 * limit):
        print(f'no progress for {elapsed:.0f} s; the stacks of all threads:', file=sys.stderr)
        faulthandler.dump_traceback()
        control.end_all_hung(f'no progress within config.watchdog.{name} = {limit:g} s', absent)
