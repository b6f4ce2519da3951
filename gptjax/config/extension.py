"""Extending a run: `train.steps` (or `train.epochs`) and `eval.limit` may grow when it is resumed.

Further steps use the optimizer state of the newest checkpoint. If the longer run would have had the same
learning rates up to there, nothing else is needed: always with a constant schedule, with `wsd` up to the
start of its decay. Otherwise `optimizer.schedule_steps` must give the length of the schedule.
"""

import sys
from datetime import datetime

import numpy as np

from gptjax.errors import InputError
from gptjax.storage.files import access, paths, records
from gptjax.text.redacted import redacted_values
from gptjax.train.optimizer import learning_rate

LENGTHS, SCHEDULE, LIMIT = ('train.steps', 'train.epochs'), 'optimizer.schedule_steps', 'eval.limit'


def check(before, now, config, workdir, n_steps):
  """Return the fields that have grown, {field: [old value, new value]}.

  Args:
    before: {field: value} of the workdir's config.json.
    now: {field: value} of `config`, the resolved config.
    config: see `now`.
    workdir: of the run.
    n_steps: function of (train.steps, train.epochs) that returns the number of steps; None: it depends on the
      task.

  Raises:
    InputError: a field has become smaller, or the schedule does not allow more steps.
  """
  grown = {}
  for field in (LIMIT,) if config.job == 'evaluate' else LENGTHS:
    old, new = before.get(field, now[field]), now[field]
    if old == new:
      continue
    grows = old and (not new or old < new) if field == LIMIT else 0 < old < new  # limit 0: all
    if not grows:
      raise InputError(f'{workdir} has a run with config.{field} = {old}, not {new}: it can only grow; use '
                       'the same or a larger value, or another workdir')
    grown[field] = [old, new]
  if grown and config.job != 'evaluate':
    schedule = [before.get(SCHEDULE, 0), now[SCHEDULE]]
    if schedule[0] != schedule[1]:
      grown[SCHEDULE] = schedule
    else:
      _check_rates(before, now, config, workdir, n_steps)
  return grown


def _check_rates(before, now, config, workdir, n_steps):
  """Raise InputError if finished steps had other learning rates than in the longer run."""
  short, long = ([values.get(field, now[field]) for field in LENGTHS] for values in (before, now))
  name, done = config.optimizer.schedule, steps_saved(workdir)[-1]
  if name == 'constant' or config.optimizer.schedule_steps:
    return
  advice = f'set the length of the schedule by --config.{SCHEDULE}=N'
  if n_steps is None:
    raise InputError(f'{workdir} has a shorter run with the schedule {name!r}, whose rates depend on '
                     f'its length: {advice}, or use another workdir')
  short, long = n_steps(*short), n_steps(*long)
  same = np.asarray(learning_rate(config.optimizer, short, np.arange(done))
                    == learning_rate(config.optimizer, long, np.arange(done)))
  if same.all():
    return
  first = int(same.argmin())  # the first step with another rate
  back = max(step for step in steps_saved(workdir) if step <= first)
  raise InputError(
    f'{workdir} has done {done} steps of a run of {short}; in one of {long} the schedule {name!r} would have '
    f'had other rates from step {first} on: {advice} ({short}: the further steps keep its last rate; {long}: '
    'the rate rises to that of the longer schedule)'
    + (f', or move the checkpoints after step {back} elsewhere to resume from there' if back else ''))


def steps_saved(workdir):
  """Return 0 and the step of each checkpoint with a manifest, ascending."""
  from gptjax.storage import checkpoint  # here: it imports Orbax, which is slow
  folder = paths.location(workdir) / 'checkpoints'
  return [0, *(step for step in checkpoint.steps(folder) if checkpoint.read_manifest(folder / str(step)))]


def record(path, grown, versions):
  """Write new values to config.json; its `history` records the change.

  Args:
    path: of config.json, a Path or a Url.
    grown: result of `check`.
    versions: current {package: version}.
  """
  stored = records.read(path)
  for field, (_, new) in grown.items():
    section, name = field.split('.')
    stored['config'][section][name] = new
  if not isinstance(stored.setdefault('history', []), list):
    raise InputError(f'{path}: history is not a list: restore it from a copy, or use another workdir')
  stored['history'].append({
    'changed': grown, 'after_step': steps_saved(path.parent)[-1], 'versions': versions,
    'command': redacted_values(sys.orig_argv), 'at': datetime.now().astimezone().isoformat(' ', 'seconds')})
  access.write(path, records.text(stored))
