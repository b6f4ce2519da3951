"""Ends a run that hangs: no progress for too long, and it shows where it stands and exits with 70."""

import faulthandler
import math
import sys
import threading
import time

from gptjax.parallel import processes


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
    self.due = name, getattr(self.limits, name) or math.inf, time.monotonic()

  def close(self):
    self.ended.set()

  def _watch(self):
    """Towards the end of the limit: who answers? A little before it: stacks, and the end of all."""
    absent = asked = None
    while not self.ended.wait(0.1):
      due = name, limit, begun = self.due
      spent = time.monotonic() - begun
      if spent > limit - min(10, 0.75 * limit) and asked is not due:
        absent, asked = processes.roll_call(min(processes.ROLL_CALL_LIMIT, limit / 4)), due
      elif spent > limit - min(2, 0.25 * limit):
        print(f'no progress for {spent:.0f} s; the stacks of all threads:', file=sys.stderr)
        faulthandler.dump_traceback()
        processes.end_all_hung(f'no progress within config.watchdog.{name} = {limit:g} s', absent)
