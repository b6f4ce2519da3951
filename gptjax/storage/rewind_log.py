"""The rewinds of a run: `WORKDIR/rewinds.json`, which decides what batch each step reads."""

import json
from pathlib import Path

from gptjax.errors import InputError
from gptjax.files import atomic, records
from gptjax.storage import checkpoint
from gptjax.text.words import plural

FILE = 'rewinds.json'
FIELDS = {'step', 'loss', 'usual_loss', 'to', 'passed'}


def batch_number(rewinds, step):
  """The number of the batch that update `step` (from 0) reads."""
  return step + sum(rewind['passed'] for rewind in in_effect(rewinds) if rewind['to'] <= step)


def in_effect(rewinds):
  """Those that are part of the run as it stands: not undone by going back further later."""
  found = []
  for rewind in rewinds:
    found = [earlier for earlier in found if earlier['to'] <= rewind['to']] + [rewind]
  return found


def read(workdir, say=records.log):
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
  found = records.parse(content)
  if not isinstance(found, list) or not all(isinstance(rewind, dict) for rewind in found):
    raise ValueError('it is not a list of objects')
  return _of_rewinds([records.remove_checksum(rewind) for rewind in found])


def _of_rewinds(found):
  """A list of dicts, as it is; ValueError if one is not a rewind."""
  for rewind in found:
    counts = [rewind.get(name) for name in ('step', 'to', 'passed')]
    if rewind.keys() != FIELDS or any(type(count) is not int or count < 0 for count in counts):
      raise ValueError('an entry is not a rewind')
  return found


def write(workdir, rewinds):
  content = json.dumps([records.add_checksum(rewind) for rewind in rewinds], indent=1) + '\n'
  path = Path(workdir) / FILE
  if content.encode() != (path.read_bytes() if path.exists() else b'[]\n'):
    atomic.write(path, content)
