"""Prefetches batches for the training loop, with tf.data or a thread, over a pure function of the step."""

import collections
import concurrent.futures
import contextlib
import functools
import importlib.util
import os
import sys
import time

EXHAUSTED = object()
N_FIRST = 4  # batches before TensorFlow is imported, which would slow down the start of the first step


def batches(make_batch, start, stop, *, prefetch, workers):
  """Return batches [start, stop) in order, prefetched in the background.

  Args:
    make_batch: step -> dict of NumPy arrays, with the same names and dtypes at every step; it is called from
      other threads.
    start, stop: steps; the first batch from start = 3 is the fourth batch of a run that starts at 0.
    prefetch: number of batches to keep ready.
    workers: number of batches to compute in parallel.

  Returns:
    An iterator of dicts of NumPy arrays, the same as from `synchronous_batches`, which is used if TensorFlow
    is not installed.

  Raises:
    Exception: any error of `make_batch`, at its step.
  """
  if importlib.util.find_spec('tensorflow') is None:
    return synchronous_batches(make_batch, start, stop)
  return _soon_tf_batches(make_batch, start, stop, prefetch, workers)


def synchronous_batches(make_batch, start, stop):
  """Yield the same batches without TensorFlow, each computed on demand."""
  yield from map(make_batch, range(start, stop))


def _soon_tf_batches(make_batch, start, stop, prefetch, workers):
  """Yield synchronous batches until TensorFlow is imported, which takes seconds, then those of tf.data.

  The import competes with tracing and compilation of the step, so it begins after N_FIRST batches.
  """
  if 'tensorflow' not in sys.modules:
    first = range(start, min(start + N_FIRST, stop))
    yield from map(make_batch, first)
    start += len(first)
  if start >= stop:
    return
  with concurrent.futures.ThreadPoolExecutor(1) as thread:
    importing = thread.submit(import_tensorflow)
    while start < stop and not importing.done():
      yield make_batch(start)
      start += 1
  yield from _tf_batches(importing.result(), make_batch, start, stop, prefetch, workers)


def _tf_batches(tf, make_batch, start, stop, prefetch, workers):
  if start >= stop:
    return
  failures = {}
  # TensorFlow needs the names and dtypes of the arrays before it requests the first one.
  first = make_batch(start)
  names, dtypes = list(first), [array.dtype for array in first.values()]

  def make(step):
    # Store the error for the caller: TensorFlow would replace it with a long message of its own.
    try:
      batch = make_batch(int(step))
      return [step, *(batch[name] for name in names)]
    except Exception as error:
      failures[int(step)] = error
      return [step, *(array[:0] for array in first.values())]

  options = tf.data.Options()
  options.experimental_warm_start = True  # prefetches while the caller processes the first batch
  data = tf.data.Dataset.range(start + 1, stop).with_options(options)
  data = data.map(lambda step: tf.numpy_function(make, [step], [tf.int64, *dtypes], stateful=False),
                  num_parallel_calls=workers, deterministic=True)
  iterator = data.prefetch(prefetch).as_numpy_iterator()
  try:
    yield first
    for step, *arrays in iterator:
      if int(step) in failures:
        raise failures[int(step)]
      yield dict(zip(names, arrays, strict=True))
  finally:
    # TensorFlow's threads call back into Python, so they must end before the interpreter does. If they
    # survive until then, for example in the frames of a traceback, the process hangs.
    del iterator, data


def prefetch_to_device(batches, place, n):
  """Yield (`place(batch)`, seconds waited for it) for each batch in order; a thread prefetches n of them.

  If `place` copies to the devices, the next batch is on them before the current step ends. The seconds count
  only the time for which the caller is blocked because no batch is ready.

  Args:
    batches: generator; it is closed with this one.
    place: function of a batch.
    n: number of results to keep ready, at least 1.

  Raises:
    Exception: any error of `batches` and `place`, at its batch.
  """
  take = lambda: EXHAUSTED if (batch := next(batches, EXHAUSTED)) is EXHAUSTED else place(batch)
  with contextlib.closing(batches), concurrent.futures.ThreadPoolExecutor(1) as thread:
    pending = collections.deque(thread.submit(take) for _ in range(n))
    try:
      while True:
        start, ready = time.monotonic(), pending[0].done()
        if (placed := pending.popleft().result()) is EXHAUSTED:
          return
        waited = 0.0 if ready else time.monotonic() - start
        pending.append(thread.submit(take))
        yield placed, waited
    finally:
      thread.shutdown(cancel_futures=True)


@functools.cache
def import_tensorflow():
  """Import TensorFlow lazily, with little logging and without access to accelerators."""
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
  os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')  # it would only log a message
  import tensorflow as tf
  if tf.config.list_physical_devices('GPU'):
    tf.config.set_visible_devices([], 'GPU')
  return tf
