"""The folders of checkpoints, `WORKDIR/checkpoints/STEP`: begun, completed, set aside and deleted.

On this machine a folder changes its state by a rename, after a sync:
  STEP/saving         from before the first byte of the arrays until after the manifest
  STEP.partial        an incomplete checkpoint, STEP.damaged a damaged one; neither is deleted
  STEP.deleting       is being deleted
In a bucket, where nothing can be renamed, objects beside the folder record it:
  STEP.saving         as above; what an interrupted save has left is deleted when the step is saved again
  STEP.damaged        why the checkpoint is damaged; its objects stay until the step is saved again
  STEP.deleting       from before the manifest is deleted, which comes first, until all else is
"""

import re
from pathlib import Path

from gptjax.errors import InputError
from gptjax.storage import manifest as manifests
from gptjax.storage import ownership
from gptjax.storage.files import access, atomic, buckets
from gptjax.storage.files.paths import Url
from gptjax.storage.manifest import MANIFEST, STATE

SAVING, DAMAGED, DELETING = 'saving', 'damaged', 'deleting'
# TensorStore's threads may continue to write after a save has failed and its folder has been removed.
UNFINISHED = re.compile(rf'{STATE}\.orbax-checkpoint-tmp')


def steps(folder):
  """Return the steps of all checkpoints, valid or not, ascending; without those set aside or in deletion.

  Args:
    folder: `WORKDIR/checkpoints`, Path or Url; it need not exist.
  """
  names = set(access.names(folder))
  # On this machine STEP.damaged and STEP.deleting are other folders, beside a new one of that step.
  not_counted = {f'.{DAMAGED}', f'.{DELETING}'} if isinstance(folder, Url) else ()
  return sorted(int(name) for name in names if name.isdigit()
                and not any(name + marker in names for marker in not_counted))


def is_incomplete(path):
  """Return whether the save of a checkpoint is in progress, or was interrupted."""
  if access.is_file(path / MANIFEST):
    return False
  names = access.names(path)
  unfinished = STATE not in names and any(map(UNFINISHED.match, names))
  return access.is_file(_marker(path, SAVING)) or unfinished


def is_complete(path):
  """Return whether a checkpoint has a manifest, and has not been set aside."""
  damaged = isinstance(path, Url) and access.is_file(_marker(path, DAMAGED))
  return not damaged and access.is_file(path / MANIFEST)


def any_completed(folder):
  """Return whether any checkpoint of a run was ever completed, valid or damaged."""
  return any(f'.{DAMAGED}' in name for name in access.names(folder)) or not all(
    is_incomplete(folder / str(step)) for step in steps(folder))


def begin(path):
  """Create the folder of a checkpoint that is about to be written, on process 0."""
  if isinstance(path, Url):
    ownership.check(path)
    buckets.put(_marker(path, SAVING), b'')
    buckets.remove_tree(path)
    for name in (DAMAGED, DELETING):
      buckets.remove(_marker(path, name))
    return
  new = path.with_name(f'{path.name}.new')
  atomic.remove(new)
  new.mkdir()
  (new / SAVING).touch()
  atomic.sync_tree(new)
  atomic.rename(new, path)


def complete(path, manifest):
  """Write the manifest of a checkpoint, whose arrays are written, with the facts about its files.

  Args:
    path: of the checkpoint.
    manifest: with `files`, if the checkpoint is in a bucket: what was there when the arrays were opened.
  """
  if not isinstance(path, Url):
    atomic.sync_tree(path)
    manifest = {**manifest, 'files': manifests.file_facts(path)}
  elif fault := manifests.find_fault(path, manifest):
    raise InputError(f'{path} has changed while it was saved ({fault}): does another run use the workdir?')
  ownership.check(path)
  manifests.write_manifest(path, manifest)
  access.remove(_marker(path, SAVING))


def set_aside(path, fault):
  """Record that a checkpoint is not valid, so that it is used no more.

  Args:
    path: of the checkpoint.
    fault: why it is damaged; '' if it is incomplete.

  Returns:
    What was done, for a message.
  """
  if isinstance(path, Url):
    if not fault:
      discard(path)
      return 'deleted'
    access.write(_marker(path, DAMAGED), fault + '\n')
    return f'not used any more ({_marker(path, DAMAGED).name})'
  return f'moved to {atomic.move_aside(path, DAMAGED if fault else "partial").name}'


def discard(path):
  """Delete a checkpoint so that an interruption does not look like damage."""
  if isinstance(path, Url):
    ownership.check(path)
    buckets.put(_marker(path, DELETING), b'')
    buckets.remove(path / MANIFEST)
    buckets.remove_tree(path)
    for name in (SAVING, DELETING):
      buckets.remove(_marker(path, name))
  else:
    atomic.remove_tree(path)


def discard_interrupted(folder, before):
  """Delete, in a bucket, what failed or interrupted saves of steps below `before` have left."""
  if isinstance(folder, Url):
    for name in buckets.names(folder):
      step, _, marker = name.partition('.')
      if marker == SAVING and step.isdigit() and int(step) < before and not is_complete(folder / step):
        discard(folder / step)


def finish_deletions(folder):
  """Finish the deletions in `WORKDIR/checkpoints` that were interrupted."""
  for name in access.names(folder):
    if name.endswith(f'.{DELETING}'):
      if isinstance(folder, Url):
        discard(folder / name.removesuffix(f'.{DELETING}'))
      else:
        atomic.remove(folder / name)


def make_durable(paths):
  """Make the names in folders durable, before others are deleted: a killed process may not have synced."""
  for path in paths:
    if isinstance(path, Path):
      atomic.sync(path)


def _marker(path, name):
  if isinstance(path, Url):
    return path.parent / f'{path.name}.{name}'
  return path / name
