"""Work in a thread of its own, for which the process does not wait when it ends.

Python waits for the threads of `concurrent.futures` before it exits, and a thread in a library may take
minutes, or never end. A thread that still runs while Python exits can crash the process: where `unfinished`
is true, end it with `os._exit`.
"""

import concurrent.futures
import threading

_running = set()


def submit(function, *args, **kwargs):
  """Call the function in a new thread; returns a `concurrent.futures.Future` of its result."""
  future = concurrent.futures.Future()

  def work():
    try:
      end, value = future.set_result, function(*args, **kwargs)
    except BaseException as error:
      end, value = future.set_exception, error
    _running.discard(future)  # first: who has the result must not find the work unfinished
    end(value)

  _running.add(future)
  try:
    threading.Thread(target=work, daemon=True).start()
  except RuntimeError:  # no more threads
    _running.discard(future)
    raise
  return future


def unfinished():
  """Whether work of `submit` still runs."""
  return bool(_running)
