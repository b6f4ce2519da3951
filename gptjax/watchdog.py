"""Ends a run that hangs: no progress for too long, and it shows where it stands and exits with 70."""

import faulthandler
import math
import sys
import threading
import time

from gptjax import hosts


class Watchdog:
  """A thread that waits for signs of progress.

  Args:
    limits: `config.watchdog`, in seconds.
  """

  def __init__(self, limits):
    self.limits = limits
    self.ended = threading.Event()
    self.progress(slow=True)
    threading.Thread(target=self._watch, daemon=True).start()

  def progress(self, slow=False):
    """Says that all is well; the next sign is due within the limit for a step.

    Args:
      slow: what comes next may be compiled first, or waits for a disk: the longer limit.
    """
    name = 'compile_timeout' if slow else 'step_timeout'
    limit = getattr(self.limits, name)
    self.due = name, limit, time.monotonic() + (limit or math.inf)

  def close(self):
    self.ended.set()

  def _watch(self):
    while not self.ended.wait(0.2):
      name, limit, end = self.due
      if time.monotonic() > end:
        print(f'no progress for {limit:g} s; the stacks of all threads:', file=sys.stderr)
        faulthandler.dump_traceback()
        hosts.hanging(f'no progress for config.watchdog.{name} = {limit:g} s')
