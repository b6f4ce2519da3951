"""TensorBoard files of a run, optional: if one cannot be written, the run continues without.

In a bucket no file grows. So the files of a workdir there are written into the spool of this machine, and the
writer starts another file every `EVERY` seconds and at each `flush`; the closed ones are put into the bucket.
"""

import concurrent.futures
import threading
import time

import jax

from gptjax.command import streams
from gptjax.data.corpus import pipeline
from gptjax.storage.files import spool
from gptjax.storage.files.paths import Url

EVERY = 60.0  # seconds between files in a bucket
FOLDER = 'tensorboard'


class TensorBoard:
  """Writes TensorBoard files, until one cannot be written.

  Args:
    workdir: Path or Url of the run.
  """

  def __init__(self, workdir):
    self.target, self.failed = workdir / FOLDER, False
    self.in_bucket = isinstance(workdir, Url)
    self.folder = spool.folder(workdir) / FOLDER if self.in_bucket else self.target
    self.writer = None  # opened at the first write, because it needs TensorFlow, which is being imported
    self.opened, self.lock = 0.0, threading.Lock()
    self.submitted = set()  # closed files
    self.uploads = concurrent.futures.ThreadPoolExecutor(1, 'tensorboard')

  def write(self, step, metrics):
    """Append metrics {name: float} of a step."""
    if not self.failed:
      with self._optional(), self.lock:
        if self.writer and self.in_bucket and time.monotonic() - self.opened > EVERY:
          self._rotate()
        self.writer = self.writer or self._open()
        self.writer.write_scalars(step, metrics)

  def flush(self):
    """Start to put what has been written into the bucket."""
    if self.writer and self.in_bucket and not self.failed:
      with self._optional(), self.lock:
        self._rotate()

  def close(self):
    """End the files, and wait until they are in the bucket."""
    if self.writer and not self.failed:
      with self._optional(), self.lock:
        if self.in_bucket:
          self._rotate()
        else:
          self.writer.close()
    self.uploads.shutdown()

  def _rotate(self):
    """Close the file and put it into the bucket, in another thread; the next write opens another one."""
    writer, self.writer = self.writer, None
    if writer:
      writer.close()
      closed = set(self.folder.iterdir()) - self.submitted
      self.submitted |= closed
      self.uploads.submit(self._put, sorted(closed))

  def _put(self, closed):
    for path in closed if not self.failed else ():
      with self._optional():
        spool.put_file(self.target / path.name, path)
        path.unlink()

  def _open(self):
    pipeline.import_tensorflow()  # before clu, which would not silence it or hide the accelerators from it
    from clu import metric_writers
    self.opened = time.monotonic()
    return metric_writers.AsyncWriter(metric_writers.SummaryWriter(str(self.folder)))

  def _optional(self):
    def disable():
      self.failed = True
    return streams.optional(f'TensorBoard ({self.target})', disable)


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
    return streams.optional(f'the profile ({self.target})', disable)
