"""Maps a function over a sequence in several processes, and yields the results in order."""

import collections
import concurrent.futures
import contextlib
import multiprocessing
import queue
from multiprocessing import resource_tracker

from gptjax.command import shutdown

ITEMS_PER_WORKER = 2  # one in progress, one waiting


@contextlib.contextmanager
def pool(make, settings, workers):
  """Context manager of a function that maps items in several processes.

  Args:
    make: an importable function that returns the function to apply; each process calls it once.
    settings: its arguments, which can be pickled.
    workers: the largest number of processes, which start when there are items for them; 1: only the current
      one.

  Yields:
    A function of an iterable of (item, payload) that yields (item, make(*settings)(payload)) in order; only
    the payload is sent to a worker. It raises RuntimeError if a worker process died, and any error that the
    function raises.
  """
  if workers == 1:
    function = make(*settings)
    yield lambda items: ((item, function(payload)) for item, payload in items)
    return
  with contextlib.ExitStack() as stack:
    idle, n_started = queue.SimpleQueue(), 0
    threads = concurrent.futures.ThreadPoolExecutor(workers)
    def start(n):
      nonlocal n_started
      while n_started < min(n, workers):
        idle.put(stack.enter_context(_worker(make, settings)))
        n_started += 1
    try:
      yield lambda items: _mapped(threads, idle, start, items, ITEMS_PER_WORKER * workers)
    finally:
      threads.shutdown(cancel_futures=True)  # after an error, what waits is not needed


def _mapped(threads, idle, start, items, most_waiting):
  waiting = collections.deque()
  for number, (item, payload) in enumerate(items, 1):
    start(number)  # as many processes as there are items, at most
    waiting.append((item, threads.submit(_request, idle, payload)))
    if len(waiting) > most_waiting:
      done, future = waiting.popleft()
      yield done, future.result()
  for done, future in waiting:
    yield done, future.result()


@contextlib.contextmanager
def _worker(make, settings):
  """Yield (connection, process) of a new worker, which exits when its connection closes.

  Each worker has a pipe of its own, which one thread of this process uses: if this process is killed, each
  worker reads the end of its pipe and exits. A worker that waits on a shared queue would wait forever.
  """
  # Spawned: forking a process that has threads (tiktoken's, TensorFlow's) can hang.
  context = multiprocessing.get_context('spawn')
  connection, worker_end = context.Pipe()
  process = context.Process(target=_serve, args=(worker_end, make, settings), daemon=True)
  resource_tracker.ensure_running()  # `start` would run it and unblock signals
  with shutdown.block_signals():
    process.start()
  worker_end.close()
  try:
    yield connection, process
  finally:
    connection.close()
    process.join()


def _serve(connection, make, settings):
  try:
    function = make(*settings)
    while True:
      payload = connection.recv()
      if not multiprocessing.parent_process().is_alive():  # it was sent before the end
        return
      try:
        result = (function(payload), None)
      except Exception as error:  # raised again in the parent process
        result = (None, error)
      connection.send(result)
  except (EOFError, ConnectionError):
    pass


def _request(idle, payload):
  connection, process = worker = idle.get()
  try:
    connection.send(payload)
    result, error = connection.recv()
  except (EOFError, ConnectionError):
    process.join()
    raise RuntimeError(f'a worker process died (exit code {process.exitcode}); run the same '
                       'command again to resume') from None
  finally:
    idle.put(worker)
  if error is not None:
    raise error
  return result
