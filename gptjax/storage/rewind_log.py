"""The rewinds of a run: `WORKDIR/rewinds.json`, which decides which batch each step reads."""

import json

from gptjax.errors import InputError, Unavailable
from gptjax.storage import checkpoint
from gptjax.storage.files import access, paths, records
from gptjax.text.words import plural

FILE = 'rewinds.json'
FIELDS = {'step', 'loss', 'usual_loss', 'to', 'passed'}


def batch_number(rewinds, step):
  """Return the index of the batch that `step` (from 0) reads."""
  return step + sum(rewind['passed'] for rewind in in_effect(rewinds) if rewind['to'] <= step)


def in_effect(rewinds):
  """Return the rewinds in effect: those not undone by a later rewind to an earlier step."""
  current = []
  for rewind in rewinds:
    current = [earlier for earlier in current if earlier['to'] <= rewind['to']] + [rewind]
  return current


def read(workdir, log=records.log):
  """Return the rewinds of a run, oldest first; [] if there are none.

  Args:
    workdir: of the run.
    log: called with a line if the file is damaged or lost, and the newest checkpoint's copy is used.
  """
  workdir = paths.location(workdir)
  path, folder = workdir / FILE, workdir / 'checkpoints'
  manifests = (checkpoint.read_manifest(folder / str(step)) for step in reversed(checkpoint.steps(folder)))
  newest = next(filter(None, manifests), {'step': 0, 'facts': {}})
  count = newest['facts'].get('rewinds', 0)
  try:
    rewinds = _parse(access.read(path)) if access.is_file(path) else []
    if len(rewinds) >= count:
      return rewinds
    why = f'has {plural(len(rewinds), "rewind")}, but checkpoint {newest["step"]} records {count}'
  except Unavailable:
    raise
  except ValueError as error:
    why = f'is damaged ({error})'
  if count and 'rewind_history' not in newest['facts']:  # of version 0.1.0 or earlier
    log(f'{path} {why}, and checkpoint {newest["step"]} has no copy of it: the run continues without the '
        'rewinds, and reads other batches from here on')
    return []
  log(f'{path} {why}: the run continues with the {plural(count, "rewind")} that checkpoint {newest["step"]} '
      'records')
  try:
    return _check(newest['facts'].get('rewind_history', []))
  except ValueError as error:
    raise InputError(f'checkpoint {newest["step"]}: rewind_history of its manifest is damaged ({error}): '
                     'use another workdir') from None


def facts(rewinds):
  """Return the facts about earlier rewinds for a checkpoint's manifest."""
  return {'rewinds': len(rewinds), 'rewind_history': rewinds}


def _parse(content):
  """The rewinds in a file; ValueError if it is damaged."""
  rewinds = records.parse(content)
  if not isinstance(rewinds, list) or not all(isinstance(rewind, dict) for rewind in rewinds):
    raise ValueError('it is not a list of objects')
  return _check([records.remove_checksum(rewind) for rewind in rewinds])


def _check(rewinds):
  """Return a list of dicts unchanged; ValueError if one is not a rewind."""
  for rewind in rewinds:
    counts = [rewind.get(name) for name in ('step', 'to', 'passed')]
    if rewind.keys() != FIELDS or any(type(count) is not int or count < 0 for count in counts):
      raise ValueError('an entry is not a rewind')
  return rewinds


def write(workdir, rewinds):
  """Write `rewinds.json`, unless its content is unchanged."""
  content = json.dumps([records.add_checksum(rewind) for rewind in rewinds], indent=1) + '\n'
  path = paths.location(workdir) / FILE
  if content.encode() != (access.read(path) if access.is_file(path) else b'[]\n'):
    access.write(path, content)
