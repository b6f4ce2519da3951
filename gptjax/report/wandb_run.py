"""Metrics of a run in a project of Weights & Biases, beside TensorBoard.

The package runs in a process of its own (`wandb_process`), because it can wait without end for a server: when
it starts a run, when it finishes it, and when Python exits. There it delays neither training nor the end of a
stopped job, which a scheduler kills soon after the signal.
"""

import json
import subprocess
import sys

from gptjax.command import streams
from gptjax.errors import InputError
from gptjax.storage.files import cache

FINISH_SECONDS = 10  # that `close` waits for the last metrics to be sent


class WandB:
  """Writes to a project of Weights & Biases, until that fails.

  Args:
    workdir: Path or Url of the run's folder.
    project: name of the project.
  """

  def __init__(self, workdir, project):
    self.workdir, self.project, self.failed = workdir, project, False
    self.process = None  # started at the first write

  def write(self, step, metrics):
    """Append metrics {name: float} of a step."""
    if not self.failed:
      with self._optional():
        self.process = self.process or subprocess.Popen(
          [sys.executable, '-c', 'import sys; from gptjax.report import wandb_process; '
           'wandb_process.main(*sys.argv[1:])', str(self.workdir), self.project, str(cache.root())],
          stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, start_new_session=True)
        self.process.stdin.write(json.dumps({'step': step, **metrics}) + '\n')
        self.process.stdin.flush()

  def flush(self):
    """The package sends the metrics by itself."""

  def close(self):
    """Wait until the metrics are sent, but at most FINISH_SECONDS."""
    if not self.process:
      return
    with self._optional():
      try:
        self.process.stdin.close()
        if code := self.process.wait(FINISH_SECONDS):
          raise InputError(f'the process that writes the metrics ended with {code}')
      except subprocess.TimeoutExpired:
        raise InputError(f'the last metrics were not sent within {FINISH_SECONDS} s; '
                         f"{self.workdir / 'metrics.jsonl'} has them") from None
      finally:
        self.process.kill()  # the service that it has started ends with it
        self.process.wait()
        self.process = None

  def _optional(self):
    def disable():
      self.failed = True
    return streams.optional(f'Weights & Biases (project {self.project})', disable)
