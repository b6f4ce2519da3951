"""The process that writes metrics to Weights & Biases, which `wandb_run` starts.

Its standard input has one JSON line {"step": int, "KIND/NAME": number} per record; then it finishes the run.
"""

import json
import queue
import secrets
import signal
import sys
import threading

from gptjax.command import streams
from gptjax.errors import InputError
from gptjax.storage.files import access, cache, local, paths, records, spool
from gptjax.storage.files.paths import Url
from gptjax.text.redacted import redacted_values

SECONDS_ALONE = 60  # after the end of the input, if the process that trains was killed


class Run:
  """Writes to a project of Weights & Biases, until that fails; a missing package is such a failure.

  The run keeps its id in WORKDIR/wandb/run_id, so a resumed run continues there; the other files of the
  package are in the spool if the workdir is in a bucket. If the package is offline, these are the only
  record: they are put below WORKDIR/wandb at the end, and kept in the spool until then.

  Steps of a metric may come twice, after a resume or a rewind: metrics are plotted against the metric `step`,
  not the internal counter, which only increases.
  """

  def __init__(self, workdir, project):
    self.workdir, self.project, self.failed = workdir, project, False
    self.run = None  # started at the first write: the package takes seconds to import

  def write(self, step, metrics):
    """Append metrics {name: float} of a step."""
    if not self.failed:
      with self._optional():
        if not self.run:
          self._start()
        self.run.log({'step': step, **metrics})

  def close(self):
    if self.run and not self.failed:
      with self._optional():
        self.run.finish()
        for folder in (offline := self._offline_runs()):
          spool.put_folder(self.workdir / 'wandb' / folder.name, folder)
        if offline:
          spool.forget()

  def _start(self):
    try:
      import wandb
    except ImportError as error:
      raise InputError(f"pip install 'gptjax[wandb]' first ({error})") from None
    folder = self.workdir / 'wandb'
    access.make_folder(folder)
    access.create(folder / 'run_id', secrets.token_hex(8))
    job = job_folder(self.workdir)
    known = access.is_file(job / 'config.json')
    config = records.read(job / 'config.json').get('config', {}) if known else {}
    local = spool.folder(self.workdir) if isinstance(self.workdir, Url) else self.workdir
    try:
      self.run = wandb.init(
        project=self.project, id=access.read(folder / 'run_id').decode(), resume='allow',
        dir=str(local), group=job.name, name=str(self.workdir).removeprefix(f'{job.parent}/'),
        config=redacted_values(config),
        # The metadata have the command, which may have secrets.
        settings=wandb.Settings(console='off', silent=True, disable_git=True, save_code=False,
                                x_disable_meta=True, init_timeout=30, login_timeout=10))
    except Exception as error:
      if 'API key' in str(error):
        raise InputError(f'{error} Or set WANDB_MODE=offline, which needs no account') from None
      raise
    self.run.define_metric('*', step_metric='step')
    if offline := self._offline_runs():
      spool.keep()
      records.log(f'Weights & Biases is offline: the metrics are in {offline[-1]}, and below {folder} when '
                  'the run has ended; `wandb sync FOLDER` sends them')

  def _offline_runs(self):
    """Return the folders of the spool that the package has written because it is offline."""
    in_bucket = isinstance(self.workdir, Url)
    return local.matching(spool.folder(self.workdir), 'wandb/offline-run-*') if in_bucket else []

  def _optional(self):
    def disable():
      self.failed = True
    return streams.optional(f'Weights & Biases (project {self.project})', disable)


def job_folder(folder):
  """Return the workdir of a job, which has its config.json: the folder, or WORKDIR of WORKDIR/TASK/seed-N."""
  candidates = folder, folder.parent, folder.parent.parent
  return next((path for path in candidates if path.name and access.is_file(path / 'config.json')), folder)


def main(workdir, project, cache_folder):
  """Write the records of standard input; called in a process of its own.

  Args:
    workdir: of the run, here or in a bucket.
    project: of Weights & Biases.
    cache_folder: see `gptjax.storage.files.cache`.
  """
  streams.protect(False)
  cache.configure(cache_folder, 0)
  for number in signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1:
    signal.signal(number, signal.SIG_IGN)  # the process that trains gets them too, and ends this one
  lines = queue.SimpleQueue()
  def receive():  # so that the pipe is never full, and training never waits
    for line in sys.stdin:
      lines.put(line)
    signal.alarm(SECONDS_ALONE)
    lines.put(None)
  threading.Thread(target=receive, daemon=True).start()
  run = Run(paths.location(workdir), project)
  for line in iter(lines.get, None):
    record = json.loads(line)
    run.write(record.pop('step'), record)
  run.close()
