"""Going back after a loss spike: to an older checkpoint, past the batches that led to the spike.

As PaLM was trained (Chowdhery et al. 2022, section 5.1): the same batches do no harm elsewhere, so it is
their meeting with the weights of that moment that is avoided. `WORKDIR/rewinds.json` lists, oldest first,
  {'step': of the spike, 'loss': there, 'usual_loss': before it, 'to': step gone back to,
   'passed': number of batches passed over, 'crc32': of the other fields}
and is all that a run needs to repeat itself when it is started again. It decides which batches are read, so
each checkpoint's manifest has a copy, by which a damaged or lost file is replaced.
"""

import math
from pathlib import Path

from gptjax.errors import InputError
from gptjax.files import atomic
from gptjax.storage import checkpoint
from gptjax.storage.rewind_log import batch_number, in_effect, read, write

TRIES = 3  # going back to one checkpoint so often has not helped


class Spike(Exception):
  """The loss of a step is a spike; `gptjax.pretrain.loop` goes back."""

  def __init__(self, step, loss, loss_ema):
    super().__init__(f'loss {loss:.4f} at step {step}, running mean {loss_ema:.4f}')
    self.step, self.loss, self.loss_ema = step, loss, loss_ema


def is_spike(config, metrics):
  """Whether a step's metrics ({'loss', 'loss_ema', 'skipped': floats}) call for going back.

  Either the loss is `train.rewind.threshold` nats above its running mean, or `train.max_skipped` consecutive
  steps were not finite.
  """
  threshold = config.train.rewind.threshold
  return threshold > 0 and (metrics['loss'] > metrics['loss_ema'] + threshold
                            or metrics['skipped'] >= config.train.max_skipped)


def record(config, workdir, spike):
  """Decides where to go back to, and writes that down; from then on it has happened.

  Raises:
    ValueError: going back to the same checkpoint has not helped `TRIES` times.
  """
  rewinds, back = read(workdir), config.train.rewind
  to = _checkpoint(Path(workdir) / 'checkpoints', spike.step, back.steps_back)
  if sum(rewind['to'] == to for rewind in in_effect(rewinds)) >= TRIES:
    raise InputError(f'{spike}, and going back to step {to} has not helped {TRIES} times: raise config.train.'
                     'rewind.skip_batches or .steps_back, or lower config.optimizer.learning_rate')
  earlier = [rewind for rewind in in_effect(rewinds) if rewind['to'] <= to]
  last_read, first_again = batch_number(rewinds, spike.step - 1), batch_number(earlier, to)
  losses = {name: value if math.isfinite(value) else None
            for name, value in (('loss', spike.loss), ('usual_loss', spike.loss_ema))}
  rewinds.append({'step': spike.step, **losses, 'to': to,
                  'passed': max(back.skip_batches, last_read + 1 - first_again)})
  write(workdir, rewinds)


def _checkpoint(folder, step, steps_back):
  """The newest good step at least `steps_back` before `step`, else the oldest good one; 0: there is none."""
  paths = [folder / str(n) for n in checkpoint.steps(folder) if n < step]
  good = [int(path.name) for path in paths
          if checkpoint.find_fault(path, checkpoint.read_manifest(path)) is None]
  return max((n for n in good if n <= step - steps_back), default=min(good, default=0))


def apply_rewinds(workdir):
  """Removes the checkpoints that a run has gone back from; its rewinds, oldest first.

  A checkpoint knows how many rewinds there had been when it was saved: this also ends what a kill cut short.
  A damaged `rewinds.json` is repaired.
  """
  folder, rewinds = Path(workdir) / 'checkpoints', read(workdir)
  write(workdir, rewinds)
  for step in checkpoint.steps(folder):
    manifest = checkpoint.read_manifest(folder / str(step))
    since = rewinds[manifest['facts'].get('rewinds', 0):] if manifest else []
    if any(step > rewind['to'] for rewind in since):
      atomic.sync(workdir)  # the process that wrote `FILE` may have been killed before it was synced
      atomic.remove_tree(folder / str(step))
  return rewinds
