"""Metrics of a run in a project of Weights & Biases, beside TensorBoard."""

import secrets

from gptjax.command import streams
from gptjax.errors import InputError
from gptjax.storage.files import access, records, spool
from gptjax.storage.files.paths import Url
from gptjax.text.redacted import redacted_values


class WandB:
  """Writes to a project of Weights & Biases, until that fails; a missing package is such a failure.

  The run keeps its id in WORKDIR/wandb/run_id, so a resumed run continues there; the other files of the
  package are in the spool if the workdir is in a bucket. Steps of a metric may come twice, after a resume or
  a rewind: metrics are plotted against the metric `step`, not the internal counter, which only increases.
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

  def flush(self):
    """The package sends the metrics by itself."""

  def close(self):
    if self.run and not self.failed:
      with self._optional():
        self.run.finish()

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
    self.run = wandb.init(
      project=self.project, id=access.read(folder / 'run_id').decode(), resume='allow',
      dir=str(local), group=job.name, name=str(self.workdir).removeprefix(f'{job.parent}/'),
      config=redacted_values(config),
      # The metadata have the command, which may have secrets. Training waits for a login and for the start.
      settings=wandb.Settings(console='off', silent=True, disable_git=True, save_code=False,
                              x_disable_meta=True, init_timeout=30, login_timeout=10))
    self.run.define_metric('*', step_metric='step')

  def _optional(self):
    def disable():
      self.failed = True
    return streams.optional(f'Weights & Biases (project {self.project})', disable)


def job_folder(folder):
  """Return the workdir of a job, which has its config.json: the folder, or WORKDIR of WORKDIR/TASK/seed-N."""
  above = folder, folder.parent, folder.parent.parent
  return next((one for one in above if one.name and access.is_file(one / 'config.json')), folder)
