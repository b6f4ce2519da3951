"""Metrics of a run: console, metrics.jsonl, TensorBoard, Weights & Biases, curves and throughput.

A run needs metrics.jsonl: an error there ends it. The other outputs are optional: if one fails, the run
continues without it.

In a bucket, metrics.jsonl is a sequence of parts (see `gptjax.storage.files.parts`), which are never changed.
So a process that resumes after step s does not remove later records: it writes {"void_after": s} before its
own.
"""

import collections
import json
import math
import sys
import time

import jax

from gptjax.command import bars, figures
from gptjax.kernels import cpu
from gptjax.parallel import processes
from gptjax.report.tensorboard import TensorBoard
from gptjax.report.wandb_run import WandB
from gptjax.storage.files import local, parts, paths, records
from gptjax.storage.files.paths import Url

PROCESS_START = time.monotonic()  # approximate start of the process, or of its current run if it has several
METRICS = 'metrics.jsonl'
VOID = 'void_after'  # of a record: those of later steps before it do not count
# The postfix has throughput and remaining time. tqdm's own are averages over compilation and evaluations,
# and would contradict them.
BAR = '{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]'

# Dense bfloat16 peaks, FLOP/s per device, from the vendors' data sheets; by prefix of `device_kind`.
PEAKS = {
  'NVIDIA H100 PCIe': 756e12, 'NVIDIA H100 NVL': 835e12,
  'NVIDIA H100': 989e12, 'NVIDIA H200': 989e12, 'NVIDIA A100': 312e12,
  'TPU v4': 275e12, 'TPU v5 lite': 197e12, 'TPU v5e': 197e12, 'TPU v5p': 459e12, 'TPU v5': 459e12,
  'TPU v6 lite': 918e12, 'TPU v6e': 918e12,
}


def begin_next_run():
  """Count the time from now on for another run of this process."""
  global PROCESS_START
  PROCESS_START = time.monotonic()


def peak_flops(device):
  """Return the peak bfloat16 FLOP/s of a JAX device, or None if it is unknown (as for a CPU)."""
  return next((peak for kind, peak in PEAKS.items() if device.device_kind.startswith(kind)), None)


class Telemetry:
  """Writes the metrics of a run, on process 0. Call `begin` first.

  Args:
    workdir: the run's folder, here or in a bucket.
    steps: number of steps of the run, for the progress bar.
    tensorboard: whether to write TensorBoard files too.
    wandb: project of Weights & Biases to write to, too; '': none.
  """

  def __init__(self, workdir, steps, tensorboard, wandb=''):
    workdir = paths.location(workdir)
    self.path = workdir / METRICS
    self.written_to = parts.folder_of(self.path) if isinstance(workdir, Url) else self.path
    self.active = jax.process_index() == 0
    self.records = read_metrics(self.path) if self.active else []
    # The total time includes steps that are repeated; the time of steps only those that are not.
    self.seconds_before = max((record.get('time/run') or 0.0 for record in self.records), default=0.0)
    self.step_seconds = 0.0
    self.file = None
    self.optional_writers = [writer(workdir) for writer, wanted in (
      (TensorBoard, tensorboard), (lambda workdir: WandB(workdir, wandb), wandb))
      if wanted and self.active]
    # Without a terminal, `progress` prints a line for each step that is logged.
    self.bar = bars.bar(shown=self.active and sys.stderr.isatty(), total=steps, bar_format=BAR, leave=False)

  def begin(self, start):
    """Start after step `start`: drop later records of an earlier process, or of before a rewind."""
    self.records, dropped = ([record for record in self.records if (record['step'] <= start) == keep]
                             for keep in (True, False))
    spent = lambda records: max((record.get('time/run') or 0.0 for record in records), default=0.0)
    added = [{'step': start, 'time/run': spent(dropped)}] if spent(dropped) > spent(self.records) else []
    self.records += added  # else the time would be lost if this process ends now
    self.step_seconds = max((record.get('time/steps') or 0.0 for record in self.records), default=0.0)
    of_start = processes.on_process_0(lambda: [record for record in self.records if record['step'] == start])
    self.records = self.records or of_start  # so that all processes skip the same evaluations
    if self.active:
      self._open([{VOID: start}, *added])
    self.bar.initial = self.bar.n = start

  def _open(self, changes):
    """Write the records that are left; in a bucket, only the changes to those that are there."""
    if isinstance(self.path, Url):
      self.file = self.file or parts.Writer(self.path, records.log)
      self.file.write(''.join(map(_line, changes)))
      return
    if self.file:
      self.file.close()
    parts.replace(self.path, ''.join(map(_line, self.records)))
    self.file = local.lines_at_end(self.path)

  def value(self, step, name):
    """Return a recorded metric of a step, from this or an earlier process of the run, or None."""
    return next((record[name] for record in reversed(self.records)
                 if record['step'] == step and name in record), None)

  def goodput(self, seconds):
    """Add `seconds` to the productive step time, and return the goodput metrics.

    Returns:
      'time/run': seconds of all processes of the run, from their start (for a killed process, until its last
      record); 'time/steps': seconds in productive steps; 'time/goodput': their ratio.
    """
    self.step_seconds += seconds
    run = self.seconds_before + time.monotonic() - PROCESS_START
    return {'time/run': run, 'time/steps': self.step_seconds, 'time/goodput': self.step_seconds / run}

  def write(self, step, metrics):
    """Append {'step': step, **metrics} (floats; null if not finite) to all outputs."""
    record = {'step': step, **{name: value if math.isfinite(value) else None
                               for name, value in metrics.items()}}
    self.records.append(record)
    if self.active:
      self.file.write(_line(record))
      for writer in self.optional_writers:
        writer.write(step, metrics)

  def writes_tensorboard(self):
    """Whether this process has written all metrics so far to TensorBoard files, too."""
    return any(isinstance(writer, TensorBoard) and writer.works() for writer in self.optional_writers)

  def flush(self):
    """Return when all records so far are in the bucket; without one there is nothing to do.

    A checkpoint calls it before its manifest, from any thread: so metrics reach at least the step that a
    restart resumes from.

    Raises:
      InputError: they could not be put there.
    """
    if isinstance(self.file, parts.Writer):
      self.file.flush()
      for writer in self.optional_writers:
        writer.flush()

  def show_activity(self, what):
    """Show the current activity in the progress bar; without a terminal, print it."""
    self.bar.set_postfix_str(what)
    if self.bar.disable:
      self.log(what)

  def progress(self, step, line):
    """Update the progress bar, or remove it at the last step; without a bar, print a line."""
    if step == self.bar.total:
      self.close_bar()
    self.bar.n = step
    self.bar.set_postfix_str(line)
    if self.bar.disable:
      self.log(f'step {step}/{self.bar.total}  {line}')

  def log_resume(self, start, ended):
    """Log that a run continues after step `start`, or has ended there; nothing for a new run."""
    if ended:
      self.log(f'training ended after step {start}, which is saved: no step is left, the results follow')
    elif start:
      self.log(f'resuming after step {start}')

  def log(self, line):
    """Print a line on stderr, on process 0."""
    if self.active:
      self.bar.write(line, file=sys.stderr)

  def close_bar(self):
    """Remove the progress bar, which would be redrawn after each printed line."""
    self.bar.close()

  def close(self):
    self.close_bar()
    for writer in self.optional_writers:
      writer.close()
    if self.file:
      self.file.close()


def _line(record):
  return json.dumps(records.add_checksum(record)) + '\n'


def read_metrics(path, log=records.log):
  """Return the records of a metrics.jsonl: [{'step': int, 'KIND/NAME': number or None, ...}].

  Damaged or truncated lines are omitted and reported. A line without a checksum is from version 0.1.0 or
  earlier, and is valid only before the first line with a checksum.

  Args:
    path: of the file, or of what its parts make up, here or in a bucket; it need not exist.
    log: called with the report.
  """
  checked, found = [], []
  def read(line):
    record = records.parse(line)
    if not isinstance(record, dict):
      raise ValueError('it is not an object')
    if checked and records.CHECKSUM not in record:
      raise ValueError('it has no checksum')
    body = records.remove_checksum(record)
    _check_void(body) if VOID in body else _check_record(body)
    checked.extend([True] * (body != record))
    return body
  for record in records.read_lines(path, read, log):
    if VOID in record:
      found = [earlier for earlier in found if earlier['step'] <= record[VOID]]
    else:
      found.append(record)
  return found


def _check_void(record):
  if record.keys() != {VOID} or type(record[VOID]) is not int:
    raise ValueError(f'{VOID} is not a step')


def _check_record(record):
  """Raise ValueError unless a record has a step, and numbers whose names are KIND/NAME."""
  step = record.get('step')
  if type(step) is not int or not 0 <= step < 1 << 53:
    raise ValueError('it has no step')
  for name, value in record.items():
    number = (type(value) is int and abs(value) < 1 << 53) or (type(value) is float and math.isfinite(value))
    if name != 'step' and not ('/' in name and (number or value is None)):
      raise ValueError(f'{name} is not a metric')


class Stopwatch:
  """Measures the time per step and the fraction spent waiting for input; other work can be excluded."""

  def __init__(self):
    self.restart()

  def restart(self):
    self.start, self.input, self.excluded, self.steps = time.monotonic(), 0.0, 0.0, 0

  def report(self):
    """Return (seconds per step, fraction spent waiting for input) since the last report."""
    seconds = max(time.monotonic() - self.start - self.excluded, 1e-9)
    result = seconds / max(self.steps, 1), self.input / seconds
    self.restart()
    return result


class UnreadMetrics:
  """Metrics of steps that have been called; they are read in order, a step late.

  So the next step runs while they are read, and the device never waits for the host. Where a call returns
  after its step (see `cpu.computes_in_calling_thread`), the metrics of the step are read at once.

  Args:
    read: function of the number of a step and its metrics; it waits until the step is complete.
  """

  def __init__(self, read):
    self._read, self._steps = read, collections.deque()
    # All processes read at the same points: `read` may raise.
    self._n_unread = processes.on_process_0(lambda: 0 if cpu.computes_in_calling_thread() else 1)

  def add(self, step, metrics):
    """Add a step, and read those before it."""
    self._steps.append((step, metrics))
    self._read_until(self._n_unread)

  def read_all(self):
    self._read_until(0)

  def _read_until(self, n):
    while len(self._steps) > n:
      self._read(*self._steps.popleft())


def duration(seconds):
  """Return a duration as '1:02:03' or '4:05'."""
  minutes, seconds = divmod(int(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f'{hours}:{minutes:02}:{seconds:02}' if hours else f'{minutes}:{seconds:02}'


def plot_curves(workdir, baselines):
  """Plot loss and throughput of metrics.jsonl to `curves.png`.

  Args:
    workdir: of the run, here or in a bucket.
    baselines: {name: loss} drawn as horizontal lines.

  Returns:
    The path of the image.
  """
  workdir = paths.location(workdir)
  records = read_metrics(workdir / METRICS)
  figure, (loss, speed) = figures.figure(1, 2, (10, 4))
  for axes, name, label in ((loss, 'train/loss', 'training'), (loss, 'eval/loss', 'held out'),
                            (speed, 'train/tokens_per_second', None)):
    points = [(r['step'], r[name]) for r in records if r.get(name) is not None]
    axes.plot(*zip(*points, strict=True) if points else ([], []), label=label,
              marker='o' if name == 'eval/loss' else None)
  for name, value in baselines.items():
    loss.axhline(value, linestyle='--', linewidth=1, color='gray')
    loss.text(0.01, value, figures.literal(name), va='bottom', fontsize=8, color='gray',
              transform=loss.get_yaxis_transform())
  loss.set(xlabel='step', ylabel='loss, nats per token')
  loss.legend()
  speed.set(xlabel='step', ylabel='tokens per second', ylim=(0, None))
  path = workdir / 'curves.png'
  figures.save(figure, path)
  return path
