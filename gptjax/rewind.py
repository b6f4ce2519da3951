"""Going back after a loss spike: to an older checkpoint, past the batches that led to the spike.

As PaLM was trained (Chowdhery et al. 2022, section 5.1): the same batches do no harm elsewhere, so it is
their meeting with the weights of that moment that is avoided. `WORKDIR/rewinds.json` lists, oldest first,
  {'step': of the spike, 'loss': there, 'usual_loss': before it, 'to': step gone back to,
   'passed': number of batches passed over, 'crc32': of the other fields}
and is all that a run needs to repeat itself when it is started again. It decides which batches are read, so
each checkpoint's manifest has a copy, by which a damaged or lost file is replaced.
"""

import json
import math
from pathlib import Path

from gptjax import atomic, checkpoint, records
from gptjax.errors import InputError
from gptjax.words import plural

FILE = 'rewinds.json'
FIELDS = {'step', 'loss', 'usual_loss', 'to', 'passed'}
TRIES = 3  # going back to one checkpoint so often has not helped


class Spike(Exception):
  """The loss of a step is a spike; `gptjax.pretrain` goes back."""

  def __init__(self, step, loss, usual_loss):
    super().__init__(f'loss {loss:.4f} at step {step}, usually {usual_loss:.4f}')
    self.step, self.loss, self.usual_loss = step, loss, usual_loss


def is_spike(config, metrics):
  """Whether a step's metrics ({'loss', 'usual_loss', 'skipped': floats}) call for going back.

  Either the loss is `train.rewind.threshold` nats above the usual, or `train.max_skipped` steps in a row were
  not finite.
  """
  threshold = config.train.rewind.threshold
  return threshold > 0 and (metrics['loss'] > metrics['usual_loss'] + threshold
                            or metrics['skipped'] >= config.train.max_skipped)


def batch_number(rewinds, step):
  """The number of the batch that update `step` (from 0) reads."""
  return step + sum(rewind['passed'] for rewind in standing(rewinds) if rewind['to'] <= step)


def standing(rewinds):
  """Those that are part of the run as it stands: not undone by going back further later."""
  found = []
  for rewind in rewinds:
    found = [earlier for earlier in found if earlier['to'] <= rewind['to']] + [rewind]
  return found


def read(workdir, say=records.say):
  """The rewinds of a run, oldest first; [] if there are none.

  Args:
    workdir: of the run.
    say: called with a line if the file is damaged or lost, and the newest checkpoint's copy is used.
  """
  path, folder = Path(workdir) / FILE, Path(workdir) / 'checkpoints'
  manifests = (checkpoint.read_manifest(folder / str(step)) for step in reversed(checkpoint.steps(folder)))
  newest = next(filter(None, manifests), {'step': 0, 'facts': {}})
  count = newest['facts'].get('rewinds', 0)
  try:
    found = _checked(path.read_bytes()) if path.exists() else []
    if len(found) >= count:
      return found
    why = f'holds {plural(len(found), "rewind")}, {count} had happened at checkpoint {newest["step"]}'
  except ValueError as error:
    why = f'is damaged ({error})'
  if count and 'rewind_history' not in newest['facts']:  # of version 0.1.0 or earlier
    say(f'{path} {why}, and checkpoint {newest["step"]} has no copy of it: the run goes on without, and '
        'reads other batches from here on than it would have')
    return []
  say(f'{path} {why}: the run goes on with the {plural(count, "rewind")} that checkpoint {newest["step"]} '
      'records')
  try:
    return _of_rewinds(newest['facts'].get('rewind_history', []))
  except ValueError as error:
    raise InputError(f'checkpoint {newest["step"]}: rewind_history of its manifest is damaged ({error}): '
                     'use another workdir') from None


def facts(rewinds):
  """What a checkpoint's manifest says of the rewinds before it."""
  return {'rewinds': len(rewinds), 'rewind_history': rewinds}


def _checked(content):
  """The rewinds of a file; ValueError if it is damaged."""
  found = records.parsed(content)
  if not isinstance(found, list) or not all(isinstance(rewind, dict) for rewind in found):
    raise ValueError('it is not a list of objects')
  return _of_rewinds([records.unsealed(rewind) for rewind in found])


def _of_rewinds(found):
  """A list of dicts, as it is; ValueError if one is not a rewind."""
  for rewind in found:
    counts = [rewind.get(name) for name in ('step', 'to', 'passed')]
    if rewind.keys() != FIELDS or any(type(count) is not int or count < 0 for count in counts):
      raise ValueError('an entry is not a rewind')
  return found


def _write(workdir, rewinds):
  content = json.dumps([records.sealed(rewind) for rewind in rewinds], indent=1) + '\n'
  path = Path(workdir) / FILE
  if content.encode() != (path.read_bytes() if path.exists() else b'[]\n'):
    atomic.write(path, content)


def record(config, workdir, spike):
  """Decides where to go back to, and writes that down; from then on it has happened.

  Raises:
    ValueError: going back to the same checkpoint has not helped `TRIES` times.
  """
  rewinds, back = read(workdir), config.train.rewind
  to = _checkpoint(Path(workdir) / 'checkpoints', spike.step, back.steps_back)
  if sum(rewind['to'] == to for rewind in standing(rewinds)) >= TRIES:
    raise InputError(f'{spike}, and going back to step {to} has not helped {TRIES} times: raise config.train.'
                     'rewind.skip_batches or .steps_back, or lower config.optimizer.learning_rate')
  earlier = [rewind for rewind in standing(rewinds) if rewind['to'] <= to]
  last_read, first_again = batch_number(rewinds, spike.step - 1), batch_number(earlier, to)
  losses = {name: value if math.isfinite(value) else None
            for name, value in (('loss', spike.loss), ('usual_loss', spike.usual_loss))}
  rewinds.append({'step': spike.step, **losses, 'to': to,
                  'passed': max(back.skip_batches, last_read + 1 - first_again)})
  _write(workdir, rewinds)


def _checkpoint(folder, step, steps_back):
  """The newest good step at least `steps_back` before `step`, else the oldest good one; 0: there is none."""
  paths = [folder / str(n) for n in checkpoint.steps(folder) if n < step]
  good = [int(path.name) for path in paths
          if checkpoint.fault_of(path, checkpoint.read_manifest(path)) is None]
  return max((n for n in good if n <= step - steps_back), default=min(good, default=0))


def settle(workdir):
  """Removes the checkpoints that a run has gone back from; its rewinds, oldest first.

  A checkpoint knows how many rewinds there had been when it was saved: this also ends what a kill cut short.
  A damaged `rewinds.json` is repaired.
  """
  folder, rewinds = Path(workdir) / 'checkpoints', read(workdir)
  _write(workdir, rewinds)
  for step in checkpoint.steps(folder):
    manifest = checkpoint.read_manifest(folder / str(step))
    since = rewinds[manifest['facts'].get('rewinds', 0):] if manifest else []
    if any(step > rewind['to'] for rewind in since):
      atomic.sync(workdir)  # the process that wrote `FILE` may have been killed before it was synced
      atomic.remove_tree(folder / str(step))
  return rewinds
