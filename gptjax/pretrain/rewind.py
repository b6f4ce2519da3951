"""Rewinds after a loss spike: return to an older checkpoint and skip the batches before the spike.

This is the method of PaLM (Chowdhery et al. 2022, section 5.1): the same batches do no harm elsewhere, so
only the pairing of those batches with those weights must be avoided. `WORKDIR/rewinds.json` lists, oldest
first,
  {'step': of the spike, 'loss': at the spike, 'usual_loss': before it, 'to': step of the checkpoint,
   'passed': number of skipped batches, 'crc32': of the other fields}
which is all that a restarted run needs to repeat the rewinds. It decides which batches are read, so each
checkpoint's manifest has a copy, which replaces a damaged or lost file.
"""

import math

from gptjax.errors import InputError
from gptjax.storage import checkpoint, step_folders
from gptjax.storage.files import paths
from gptjax.storage.milestones import MILESTONES
from gptjax.storage.rewind_log import batch_number, in_effect, read, write

MAX_REWINDS = 3  # to one checkpoint, after which the run stops


class Spike(Exception):
  """The loss of a step is a spike; `gptjax.pretrain.loop` handles it by a rewind."""

  def __init__(self, step, loss, loss_ema):
    super().__init__(f'loss {loss:.4f} at step {step}, running mean {loss_ema:.4f}')
    self.step, self.loss, self.loss_ema = step, loss, loss_ema


def is_spike(config, metrics):
  """Whether a step's metrics ({'loss', 'loss_ema', 'skipped': floats}) require a rewind.

  Either the loss is `train.rewind.threshold` nats above its running mean, or `train.max_skipped` steps in a
  row were not finite.
  """
  threshold = config.train.rewind.threshold
  return threshold > 0 and (metrics['loss'] > metrics['loss_ema'] + threshold
                            or metrics['skipped'] >= config.train.max_skipped)


def record(config, workdir, spike):
  """Choose the checkpoint of a rewind and write it to `rewinds.json`, which makes the rewind permanent.

  Raises:
    ValueError: rewinding to the same checkpoint has not helped `MAX_REWINDS` times.
  """
  rewinds, limits = read(workdir), config.train.rewind
  to = _find_checkpoint(paths.location(workdir) / 'checkpoints', spike.step, limits.steps_back)
  if sum(rewind['to'] == to for rewind in in_effect(rewinds)) >= MAX_REWINDS:
    raise InputError(f'{spike}, and rewinding to step {to} has not helped {MAX_REWINDS} times: raise '
                     'config.train.rewind.skip_batches or .steps_back, or lower '
                     'config.optimizer.learning_rate')
  earlier = [rewind for rewind in in_effect(rewinds) if rewind['to'] <= to]
  last_read, first_again = batch_number(rewinds, spike.step - 1), batch_number(earlier, to)
  losses = {name: value if math.isfinite(value) else None
            for name, value in (('loss', spike.loss), ('usual_loss', spike.loss_ema))}
  rewinds.append({'step': spike.step, **losses, 'to': to,
                  'passed': max(limits.skip_batches, last_read + 1 - first_again)})
  write(workdir, rewinds)


def _find_checkpoint(folder, step, steps_back):
  """The newest valid step at least `steps_back` before `step`, else the oldest valid one, else 0."""
  paths = [folder / str(n) for n in checkpoint.steps(folder) if n < step]
  valid = [int(path.name) for path in paths
           if checkpoint.find_fault(path, checkpoint.read_manifest(path)) is None]
  return max((n for n in valid if n <= step - steps_back), default=min(valid, default=0))


def apply_rewinds(workdir):
  """Remove the checkpoints and milestones that rewinds have discarded; returns the rewinds, oldest first.

  A checkpoint records the number of rewinds before it, so that this also completes an interrupted rewind. A
  damaged `rewinds.json` is repaired.
  """
  workdir, rewinds = paths.location(workdir), read(workdir)
  write(workdir, rewinds)
  for folder in (workdir / 'checkpoints', workdir / MILESTONES):
    for step in checkpoint.steps(folder):
      manifest = checkpoint.read_manifest(folder / str(step))
      since = rewinds[manifest['facts'].get('rewinds', 0):] if manifest else []
      if any(step > rewind['to'] for rewind in since):
        step_folders.make_durable([workdir])  # a killed process may have written `FILE` without a sync
        step_folders.discard(folder / str(step))
  return rewinds
