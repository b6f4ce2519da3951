"""TensorBoard files of a run, optional: if one cannot be written, the run continues without.

In a bucket no file grows. So the files of a workdir there are written into the spool of this machine, and the
writer starts another file every `FILE_SECONDS` and at each `flush`; the closed ones are put into the bucket.
What cannot be put is tried again with the next file, and stays on this machine if that fails until the end.
"""

import concurrent.futures
import contextlib
import itertools
import os
import queue
import socket
import threading
import time

import jax
import numpy as np

from gptjax.command import streams
from gptjax.storage.files import access, local, spool
from gptjax.storage.files.paths import Url
from gptjax.text.words import plural

FILE_SECONDS = 60.0   # between files in a bucket
CLOSE_SECONDS = 30.0  # that `close` waits for the last files
FOLDER = 'tensorboard'
VERSION = 'brain.Event:2'  # the first event of each file: how TensorBoard reads the others


class TensorBoard:
  """Writes TensorBoard files in a thread, until one cannot be written.

  The thread also imports the protocol buffers of the files, which takes a second: no step waits for it.

  Args:
    workdir: Path or Url of the run.
  """

  def __init__(self, workdir):
    self.target, self.failed = workdir / FOLDER, False
    self.in_bucket = isinstance(workdir, Url)
    self.folder = spool.folder(workdir) / FOLDER if self.in_bucket else self.target
    self.thread = concurrent.futures.ThreadPoolExecutor(1, 'tensorboard')
    self.writer, self.opened = None, 0.0  # opened at the first write
    self.submitted = set()  # closed files
    self.uploads = _Uploads(self.target, self.folder) if self.in_bucket else None

  def write(self, step, metrics):
    """Append metrics {name: float} of a step."""
    self._submit(self._write, step, metrics)

  def works(self):
    """Whether all metrics so far have been written; waits for the thread."""
    with self._optional():
      self.thread.submit(lambda: None).result()
    return not self.failed

  def flush(self):
    """Start to put what has been written into the bucket."""
    if self.in_bucket:
      self._submit(self._rotate)

  def close(self):
    """Write what is left and end the files, then wait up to CLOSE_SECONDS until they are in the bucket."""
    self._submit(self._rotate)
    self.thread.shutdown()
    self.failed = True  # nothing is accepted from here on
    if self.uploads:
      self.uploads.close()

  def _submit(self, function, *args):
    """Call a function in the thread, after the calls before it, unless one of them fails."""
    def call():
      if not self.failed:
        with self._optional():
          function(*args)
    if not self.failed:
      with self._optional():  # a thread may not start
        self.thread.submit(call)

  def _optional(self):
    return streams.optional(f'TensorBoard ({self.target})', self._disable)

  def _disable(self):
    self.failed = True

  def _write(self, step, metrics):
    if self.in_bucket and time.monotonic() - self.opened > FILE_SECONDS:
      self._rotate()
    self.writer = self.writer or self._open()
    self.writer.write(step, metrics)

  def _rotate(self):
    """Close the file, and put it into the bucket in another thread; the next write opens another one."""
    writer, self.writer = self.writer, None
    if writer:
      writer.close()
    if writer and self.in_bucket:
      closed = {self.folder / name for name in access.names(self.folder)} - self.submitted
      self.submitted |= closed
      self.uploads.put(sorted(closed))

  def _open(self):
    self.opened = time.monotonic()
    return EventFile(self.folder)


class EventFile:
  """A new event file, written with the parts of TensorBoard that need no TensorFlow.

  TensorFlow, which `clu.metric_writers` writes with, takes 0.5 GB of memory for as long as a process lives.

  Args:
    folder: Path; it is created if it does not exist.

  Raises:
    OSError: the file cannot be created or written; it is closed then.
  """

  numbers = itertools.count()  # of the files of this process, so that two of one second have two names

  def __init__(self, folder):
    from tensorboard.compat.proto import event_pb2, summary_pb2
    from tensorboard.plugins.scalar.summary_v2 import scalar_pb
    from tensorboard.summary.writer.record_writer import RecordWriter
    self._event, self._summary, self._scalar = event_pb2.Event, summary_pb2.Summary, scalar_pb
    access.make_folder(folder)
    name = f'{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{next(self.numbers):05d}'
    self._path = folder / f'events.out.tfevents.{name}.v2'
    self._records = RecordWriter(local.opened(self._path, 'xb'))
    self._append(file_version=VERSION)

  def write(self, step, metrics):
    """Append metrics {name: float} of a step as one event; it is in the file when this returns."""
    summary = self._summary()
    with np.errstate(over='ignore'):  # what float32 does not hold is infinite there
      for name, value in metrics.items():
        summary.MergeFrom(self._scalar(name, value))
    self._append(step=step, summary=summary)

  def close(self):
    self._records.close()

  def _append(self, **content):
    try:
      self._records.write(self._event(wall_time=time.time(), **content).SerializeToString())
      self._records.flush()
    except OSError as error:
      with contextlib.suppress(OSError):  # what is left to write fails again
        self._records.close()
      raise OSError(error.errno, error.strerror, str(self._path)) from error


class _Uploads:
  """Puts files into a folder in a bucket, in a thread, and removes them here.

  Args:
    target: Url of the folder.
    folder: Path of the folder of this machine that has the files.
  """

  def __init__(self, target, folder):
    self._target, self._folder = target, folder
    self._offered, self._waiting, self._warned = queue.SimpleQueue(), [], False
    self._thread = threading.Thread(target=self._work, name='tensorboard', daemon=True)

  def put(self, files):
    """Start to put files, after those that could not be put before."""
    if not self._thread.ident:
      self._thread.start()
    self._offered.put(files)

  def close(self):
    """Wait up to CLOSE_SECONDS for the last files; those that are left are kept, with a warning."""
    if not self._thread.ident:
      return
    self._offered.put(None)
    self._thread.join(CLOSE_SECONDS)
    if left := sum(access.is_file(self._folder / name) for name in access.names(self._folder)):
      spool.keep()
      streams.log(f'TensorBoard ({self._target}): {plural(left, "file")} could not be put there: see '
                  f'{self._folder}', warning=True)

  def _work(self):
    while (files := self._offered.get()) is not None:
      self._waiting += files
      self._put_waiting()
    self._put_waiting()

  def _put_waiting(self):
    try:
      while self._waiting:
        spool.put_file(self._target / self._waiting[0].name, self._waiting[0])
        access.remove(self._waiting.pop(0))
      self._warned = False
    except Exception as error:
      if not self._warned:
        streams.log(f'TensorBoard ({self._target}): files cannot be put there, and wait in {self._folder} '
                    f'({" ".join(str(error).split())})', warning=True)
      self._warned = True


class Profile:
  """Profiles the steps [first, end) for TensorBoard; none if first = end.

  Args:
    workdir: Path or Url of the run.
    first, end: steps.
  """

  def __init__(self, workdir, first, end):
    self.target, self.first, self.end = workdir / FOLDER, first, end
    self.in_bucket = isinstance(workdir, Url)
    self.folder = spool.folder(workdir) / 'profile' if self.in_bucket and end > first else self.target
    self.on = False

  def update(self, step, state):
    """Start or stop the profile; call it before each step, with the current state."""
    if not self.on and self.first <= step < self.end:
      with self._optional():
        jax.profiler.start_trace(str(self.folder))
        self.on = True
    elif self.on and step >= self.end:
      jax.block_until_ready(state)
      self.close()

  def close(self):
    if self.on:
      self.on = False
      with self._optional():
        jax.profiler.stop_trace()
        if self.in_bucket:
          spool.put_folder(self.target, self.folder)

  def _optional(self):
    def disable():
      self.end = self.first  # no further steps
      if self.in_bucket:
        spool.keep()
    here = f'; on this machine {self.folder}' if self.in_bucket else ''
    return streams.optional(f'the profile ({self.target}{here})', disable)
