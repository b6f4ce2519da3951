"""Reads batches ahead of the training loop: tf.data over a pure function of the step."""

import collections
import concurrent.futures
import contextlib
import functools
import importlib.util
import os
import time

EXHAUSTED = object()


def batches(make_batch, start, stop, *, prefetch, workers):
  """Batches [start, stop) in order, made ahead of time in the background.

  Args:
    make_batch: step -> dict of NumPy arrays, of the same names and dtypes at every step; it is
      called from other threads.
    start, stop: steps; starting at step 3 gives the fourth batch of a run that starts at 0.
    prefetch: batches kept ready.
    workers: batches in the making at a time.

  Returns:
    An iterator of dicts of NumPy arrays; the same as `plain_batches`, which takes its place where
    TensorFlow is not installed.

  Raises:
    What make_batch raises, at the step where it did.
  """
  if importlib.util.find_spec('tensorflow') is None:
    return synchronous_batches(make_batch, start, stop)
  return _soon_tf_batches(make_batch, start, stop, prefetch, workers)


def synchronous_batches(make_batch, start, stop):
  """The same batches without TensorFlow, each made when it is asked for."""
  yield from map(make_batch, range(start, stop))


def _soon_tf_batches(make_batch, start, stop, prefetch, workers):
  """Those of tf.data, once TensorFlow is imported, which takes seconds; plain ones until then."""
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
  # TensorFlow must be told what the arrays are before it calls for the first one.
  first = make_batch(start)
  names, dtypes = list(first), [array.dtype for array in first.values()]

  def make(step):
    # Kept for the caller: through TensorFlow an error would come as a page of its own text.
    try:
      made = make_batch(int(step))
      return [step, *(made[name] for name in names)]
    except Exception as error:
      failures[int(step)] = error
      return [step, *(array[:0] for array in first.values())]

  options = tf.data.Options()
  options.experimental_warm_start = True  # reads ahead while the caller works on the first batch
  data = tf.data.Dataset.range(start + 1, stop).with_options(options)
  data = data.map(lambda step: tf.numpy_function(make, [step], [tf.int64, *dtypes], stateful=False),
                  num_parallel_calls=workers, deterministic=True)
  made = data.prefetch(prefetch).as_numpy_iterator()
  try:
    yield first
    for step, *arrays in made:
      if int(step) in failures:
        raise failures[int(step)]
      yield dict(zip(names, arrays, strict=True))
  finally:
    # TensorFlow's threads call back into Python: they must end while there is one. Left to the end of
    # the process, say in the frames of a traceback, they hang it.
    del made, data


def prefetch_to_device(batches, place, n):
  """(`place(batch)`, seconds waited for it) of each batch in order, made up to n ahead in a thread.

  With `place` the copy to the devices, the next batch is there before the step that runs has ended. To wait
  is to stand still because a batch is not there; what the threads of a step take from the caller's is not.

  Args:
    batches: generator; it is closed with this one.
    place: function of a batch.
    n: results kept ready, at least 1.

  Raises:
    What `batches` and `place` raise, at the batch where they did.
  """
  take = lambda: EXHAUSTED if (batch := next(batches, EXHAUSTED)) is EXHAUSTED else place(batch)
  with contextlib.closing(batches), concurrent.futures.ThreadPoolExecutor(1) as thread:
    coming = collections.deque(thread.submit(take) for _ in range(n))
    try:
      while True:
        began, there = time.monotonic(), coming[0].done()
        if (placed := coming.popleft().result()) is EXHAUSTED:
          return
        waited = 0.0 if there else time.monotonic() - began
        coming.append(thread.submit(take))
        yield placed, waited
    finally:
      thread.shutdown(cancel_futures=True)


@functools.cache
def import_tensorflow():
  """The tensorflow module, loaded late, quiet, and kept away from the accelerators."""
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
  os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')  # it only announces itself here
  import tensorflow as tf
  if tf.config.list_physical_devices('GPU'):
    tf.config.set_visible_devices([], 'GPU')
  return tf
