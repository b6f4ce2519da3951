"""Work on a sequence in several processes, with the results in the order of the sequence."""

import collections
import concurrent.futures
import contextlib
import multiprocessing
import queue
from multiprocessing import resource_tracker

from gptjax.command import shutdown

ITEMS_PER_WORKER = 2  # items in hand for each worker: one at work, one waiting


def map_in_order(make, settings, items, workers):
  """Yields (item, make(*settings)(payload)) for each (item, payload), in their order.

  Args:
    make: a function that can be imported; each process calls it once for its function.
    settings: its arguments, which can be pickled.
    items: iterable of (item, payload); the payload alone goes to the worker.
    workers: processes; 1: this one, with no other.

  Raises:
    RuntimeError: a worker process died.
    What the function raises.
  """
  if workers == 1:
    function = make(*settings)
    for item, payload in items:
      yield item, function(payload)
    return
  with contextlib.ExitStack() as stack:
    idle = queue.SimpleQueue()
    for _ in range(workers):
      idle.put(stack.enter_context(_worker(make, settings)))
    pool = stack.enter_context(concurrent.futures.ThreadPoolExecutor(workers))
    waiting = collections.deque()
    for item, payload in items:
      waiting.append((item, pool.submit(_ask, idle, payload)))
      if len(waiting) > ITEMS_PER_WORKER * workers:
        first, result = waiting.popleft()
        yield first, result.result()
    for first, result in waiting:
      yield first, result.result()


@contextlib.contextmanager
def _worker(make, settings):
  """(connection, process) of a new worker, which ends when its connection does.

  A pipe for each worker, and a thread here that speaks through it: if this process is killed, each
  worker reads the end of its pipe and ends. One that waits at a shared queue would stay for ever.
  """
  # Spawned: forking a process that has threads (tiktoken's, TensorFlow's) can hang.
  context = multiprocessing.get_context('spawn')
  ours, theirs = context.Pipe()
  process = context.Process(target=_serve, args=(theirs, make, settings), daemon=True)
  resource_tracker.ensure_running()  # `start` would do it, and unblock signals
  with shutdown.block_signals():
    process.start()
  theirs.close()
  try:
    yield ours, process
  finally:
    ours.close()
    process.join()


def _serve(connection, make, settings):
  try:
    function = make(*settings)
    while True:
      payload = connection.recv()
      try:
        answer = (function(payload), None)
      except Exception as error:  # It is raised again, in the process that asked.
        answer = (None, error)
      connection.send(answer)
  except (EOFError, ConnectionError):
    pass


def _ask(idle, payload):
  connection, process = worker = idle.get()
  try:
    connection.send(payload)
    answer, error = connection.recv()
  except (EOFError, ConnectionError):
    process.join()
    raise RuntimeError(f'a worker process died (exit code {process.exitcode}); the same command '
                       'goes on where this one was') from None
  finally:
    idle.put(worker)
  if error is not None:
    raise error
  return answer
