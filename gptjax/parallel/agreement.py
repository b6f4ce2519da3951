"""Decisions that all processes of a run take after the same step: to stop, and to save because of the time.

The main thread of each process asks about a decision equally often: at every step, and wherever else the
run can stop. The answer becomes yes at the same call in all processes. To agree on that call, the listening
thread of each (see `processes`) blocks the next call, publishes the number of calls so far, and takes the
largest number of all processes plus one. So nobody waits before there is a request, and then for about
`control.POLL` seconds at most.
"""

import math
import threading
import time

from gptjax.command import shutdown
from gptjax.parallel import control
from gptjax.parallel.control import client, process_index


class Decision:
  """A decision that can be requested several times, one after the other.

  If a process has already made its last call, no process gets a yes, because all of them are finishing.

  Attributes:
    agreed: number of requests about which the processes have agreed.
  """
  name = ''

  def __init__(self):
    self.lock = threading.Lock()  # the listening thread holds it from its publication to the agreement
    self.calls, self.last = 0, math.inf  # so far, and the first with the answer yes
    self.begun = self.agreed = 0

  def _count_call(self):
    """Count a call, and return whether its answer is yes; called with the lock."""
    self.calls += 1
    return self.calls >= self.last

  def advance(self, requests):
    """Take part in the agreement without waiting; the listening thread calls it repeatedly.

    Args:
      requests: number of requests that have been published so far.
    """
    if self.begun == self.agreed and requests > self.agreed:
      self.lock.acquire()
      self.begun += 1
      client().key_value_set(f'{self._folder()}{process_index()}', str(self.calls))
    if self.begun > self.agreed and (last := self._last()):
      self.last, self.agreed = int(last), self.begun
      self.lock.release()

  def _last(self):
    """The call that the processes have agreed on, as text; None: some have not published their number.

    Process 0 reads all numbers and publishes the call.
    """
    key = f'gptjax/{self.name}-last/{self.begun}'
    if process_index() > 0:
      return control.wait_for_key(key, control.POLL)
    if control.absent_processes(self._folder(), 0):
      return None
    last = 1 + max(int(calls) for _, calls in client().key_value_dir_get(self._folder()))
    client().key_value_set(key, str(last))
    return str(last)

  def _folder(self):
    """The folder of the store with the number of calls in each process."""
    return f'gptjax/{self.name}/{self.begun}/'


class Stop(Decision):
  """Whether the run should stop, because any of its processes has received a signal (see `shutdown`)."""
  name = 'stop'

  def requested(self):
    """Whether to stop now."""
    with self.lock:
      if shutdown.signalled() and not control.hosts:
        self.last = min(self.last, self.calls + 1)
      return self._count_call()


class SaveTimer(Decision):
  """Whether to save because too much time has passed by the clock of process 0.

  Attributes:
    seconds: after which a save is due; 0: never.
    requests: number of requests so far, in process 0.
  """
  name = 'save'

  def __init__(self):
    super().__init__()
    self.seconds = self.requests = 0

  def due(self, since):
    """Whether to save now.

    Args:
      since: `time.monotonic()` at the start of the last save; that of process 0 counts.
    """
    late = self.seconds > 0 and time.monotonic() - since >= self.seconds
    if not control.hosts:
      return late
    with self.lock:
      if self._count_call():
        self.last = math.inf
        return True
      if late and process_index() == 0 and self.requests == self.agreed and self.last == math.inf:
        self.requests += 1  # the listening thread publishes it
      return False
