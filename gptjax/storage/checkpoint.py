"""Verified checkpoints: Orbax writes the arrays, then a manifest records their digests.

A workdir's `checkpoints/STEP/` contains
  state/         the arrays, written by Orbax
  manifest.json  step, metric, the shape, dtype and digest of each array, the size and hash of each file;
                 written last, by an atomic rename
  saving         exists from before the first byte until after the manifest
The manifest is written after the arrays have been opened like in a restore, and everything is on disk. A
folder with `saving` and no manifest is incomplete and does not count. A folder with neither, or whose files
or arrays differ from the manifest, is damaged. Both are renamed, never deleted.

Each process writes its shards, concurrently. Process 0 does everything else, and decides.
`retention` says which checkpoints are kept.
"""

import collections
import concurrent.futures
import contextlib
import functools
import shutil
import time
from pathlib import Path

import jax
import jax.numpy as jnp

from gptjax import errors
from gptjax.errors import InputError
from gptjax.files import atomic
from gptjax.parallel import processes
from gptjax.storage import milestones, orbax_io, retention
from gptjax.storage.digests import describe_arrays, digests
from gptjax.storage.manifest import (
  MANIFEST,
  STATE,
  file_digests,
  find_fault,
  read_manifest,
  steps,
  write_manifest,
)
from gptjax.storage.retention import in_period

SAVING = 'saving'
STORED_NAMES = {'loss_ema': 'usual_loss'}  # fields and metrics whose name on disk is that of version 0.1
VERIFY_LIMIT = 3600  # seconds for process 0 to hash the files of a checkpoint


class Checkpoints:
  """The checkpoints of a run.

  Args:
    folder: `WORKDIR/checkpoints`.
    rules: retention.Rules, which checkpoints are kept.
    facts: dict that is added to each manifest (corpus digest, versions, ...).
    on_saved: called in the background with the folder of each checkpoint after it is complete, or None.

  Attributes:
    started: `time.monotonic()` at the start of the last save, or when this object was made.
  """

  def __init__(self, folder, rules, facts, on_saved=None):
    self.folder = Path(folder).absolute()
    self.rules, self.facts, self.on_saved = rules, facts, on_saved
    errors.quiet_libraries()
    self.writer = orbax_io.Writer()
    self.thread = concurrent.futures.ThreadPoolExecutor(1)
    self.pending, self.started = None, time.monotonic()
    self.digests = jax.jit(digests)
    self.copy = jax.jit(lambda state, into: jax.tree.map(jnp.copy, state), donate_argnums=1, keep_unused=True)
    self.buffers = None  # reused for each copy: new memory pages would cost more than the copy itself

  def save(self, state, step, metric=None):
    """Start an asynchronous save; the state may be donated at once. At most one save runs.

    Args:
      state: tree of arrays.
      step: name of the checkpoint.
      metric: held-out loss at this step, or None.
    """
    self.wait()
    self.started = time.monotonic()
    state, folder = _under_stored_names(state), self.folder / str(step)
    if self.rules.weights_only:
      self.params = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state.params)
    prepare = lambda: self._finish_earlier_save(folder, metric) or self._make_folder(folder, state)
    if processes.on_process_0(prepare):
      return
    try:
      # On CPUs Orbax reads the arrays in place; a step that overwrites them would wait for that.
      saved = state
      if jax.default_backend() == 'cpu':
        self.buffers = self.buffers or jax.jit(lambda state: jax.tree.map(jnp.zeros_like, state))(state)
        saved = self.buffers = self.copy(state, self.buffers)
      # Later steps wait for a program that this thread dispatches, so the background thread dispatches it;
      # but with several devices all programs must be dispatched in one order.
      in_background = saved is not state and jax.device_count() == 1
      state_digests = None if in_background else self._write(folder, saved)
    except Exception as error:
      self._failed(folder, error)
    self.pending = self.thread.submit(self._finish, folder, step, metric, saved, state_digests,
                                      jax.sharding.get_mesh(), self.started)

  def _write(self, folder, state):
    """Start to write; returns the digests."""
    state_digests = self.digests(state)
    self.writer.start(folder / STATE, state)
    return state_digests

  def _finish_earlier_save(self, folder, metric):
    """Whether this checkpoint exists; if so, add a missing metric and repeat what follows a save."""
    if not (folder / MANIFEST).exists():
      return False
    saved = read_manifest(folder)
    if saved and saved['metric'] is None and metric is not None:  # measured only after a restart
      write_manifest(folder, {**saved, 'metric': metric})
    self.pending = self.thread.submit(self._follow_up, folder)  # a kill may have prevented it
    return True

  def _make_folder(self, folder, state):
    self._check_room(folder, state)
    new = self.folder / f'{folder.name}.new'
    atomic.remove(new)
    new.mkdir()
    (new / SAVING).touch()
    atomic.sync_tree(new)
    atomic.rename(new, folder)
    return False

  def _finish(self, folder, step, metric, state, state_digests, mesh, started):
    try:
      with jax.set_mesh(mesh):
        state_digests = state_digests or self._write(folder, state)
      self.writer.wait()
      if jax.process_index() > 0:
        return step, time.monotonic() - started
      arrays = describe_arrays(state, state_digests)
      orbax_io.check_stored(folder / STATE, arrays)
      atomic.sync_tree(folder)
      write_manifest(folder, {'step': step, 'metric': metric, 'facts': self.facts, 'arrays': arrays,
                              'files': file_digests(folder)})
      (folder / SAVING).unlink()
    except Exception as error:
      self._failed(folder, error)
    seconds = time.monotonic() - started
    self._follow_up(folder)
    return step, seconds

  def _follow_up(self, folder):
    """What follows a save: copy milestones, then delete what is not kept, then call `on_saved`."""
    for step in retention.milestone_steps(self.folder, self.rules):
      try:
        milestones.copy_weights(self.folder / str(step), self.params)
      except Exception as error:
        self._raise(f'milestone {step}', self.folder.parent, error)
    retention.prune(self.folder, self.rules)
    if self.on_saved:
      self.on_saved(folder)

  def _failed(self, folder, error):
    """Remove the folder of a failed save and raise its error."""
    if folder.exists() and not processes.is_multiprocess():  # others may still be writing there
      with contextlib.suppress(OSError):  # if it cannot be removed, it counts as incomplete
        atomic.remove_tree(folder)
    self._raise(f'checkpoint {folder.name}', folder, error)

  def _raise(self, what, folder, error):
    """Raise the error of a failed write; one of the machine becomes an InputError."""
    if fault := errors.system_fault(error):
      line = errors.describe_fault(fault, folder, errors.checkpoint_status(self.folder))
      raise InputError(f'cannot save {what}: {line}') from error
    raise error

  def _check_room(self, folder, state):
    """Raise ValueError before writing if the checkpoint does not fit on the disk, with its milestone."""
    earlier = [read_manifest(self.folder / str(step)) for step in steps(self.folder)]
    earlier = [manifest for manifest in earlier if manifest]
    needed = (sum(size for size, _ in earlier[-1]['files'].values()) if earlier else
              sum(x.nbytes for x in jax.tree.leaves(state)))
    if self.rules.weights_only and in_period(int(folder.name), self.rules.keep_period):
      needed += sum(x.nbytes for x in jax.tree.leaves(state.params))
    atomic.make_folders(self.folder)
    free = shutil.disk_usage(self.folder).free
    if free < needed:
      raise InputError(f'no space left on the disk of {self.folder} while saving (a checkpoint takes '
                       f'{needed:,} bytes, {free:,} are left): free some and start again; '
                       + errors.checkpoint_status(self.folder))

  def poll(self):
    """Return (step, seconds) once after a save has ended, else None. Raises the error of a failed save."""
    if self.pending is None or not self.pending.done():
      return None
    pending, self.pending = self.pending, None
    return pending.result()

  def wait(self):
    """Wait for the save in flight; returns the result of `poll`."""
    if self.pending is not None:
      concurrent.futures.wait([self.pending])
    return self.poll()

  def close(self):
    self.thread.shutdown()
    self.writer.close()


@functools.cache
def _stored_type(state_type):
  names = [STORED_NAMES.get(name, name) for name in state_type._fields]
  return collections.namedtuple(state_type.__name__, names)


def _under_stored_names(state):
  """A state with the names of its fields on disk; any other tree as it is."""
  return _stored_type(type(state))(*state) if hasattr(state, '_fields') else state


def restore(folder, abstract_state, log):
  """Restore the newest valid checkpoint.

  Args:
    folder: `WORKDIR/checkpoints`.
    abstract_state: tree of jax.ShapeDtypeStruct with concrete shardings, on any mesh.
    log: called with a line about each checkpoint that is renamed because it is not valid.

  Returns:
    (state, manifest), or None if no checkpoint was ever completed.

  Raises:
    ValueError: no checkpoint is valid, or they are of another model.
  """
  folder = Path(folder).absolute()
  exists = processes.on_process_0(lambda: any_completed(folder))
  while (step := processes.on_process_0(lambda: _newest_valid(folder, log), VERIFY_LIMIT)) is not None:
    path = folder / str(step)
    manifest = read_manifest(path)
    state = load(path, manifest, _under_stored_names(abstract_state))
    if describe_arrays(state, jax.jit(digests)(state)) == manifest['arrays']:
      return jax.tree.unflatten(jax.tree.structure(abstract_state), jax.tree.leaves(state)), manifest
    processes.on_process_0(lambda: _rename_damaged(path, 'an array differs from its digest', log))
  if exists:
    raise InputError(f'{folder} has checkpoints but none is valid: restore one from a copy, or start in '
                     'another workdir')
  return None


def _newest_valid(folder, log):
  """The newest step whose files match their manifest, or None; renames invalid checkpoints."""
  for step in reversed(steps(folder)):
    path = folder / str(step)
    if is_incomplete(path):
      log(f'checkpoint {step} is incomplete: moved to {atomic.move_aside(path, "partial").name}')
      continue
    fault = find_fault(path, read_manifest(path))
    if fault is None:
      return step
    _rename_damaged(path, fault, log)
  return None


def _rename_damaged(path, fault, log):
  log(f'checkpoint {path.name} is damaged ({fault}): moved to {atomic.move_aside(path, "damaged").name}')


def is_incomplete(path):
  """Whether the save of a checkpoint is in progress, or was interrupted."""
  if (path / MANIFEST).exists():
    return False
  # TensorStore's threads may continue to write after a save has failed and its folder has been removed.
  unfinished = not (path / STATE).exists() and any(path.glob(f'{STATE}.orbax-checkpoint-tmp*'))
  return (path / SAVING).exists() or unfinished


def any_completed(folder):
  """Whether any checkpoint of a run was ever completed, valid or damaged."""
  folder = Path(folder)
  return bool(list(folder.glob('*.damaged*'))) or not all(
    is_incomplete(folder / str(step)) for step in steps(folder))


def load(path, manifest, abstract_state):
  """Restore one checkpoint with the shardings of `abstract_state`.

  Raises:
    ValueError: an array is missing, extra, or of another shape or dtype; the message has the first one.
  """
  _check_arrays(path, manifest['arrays'], abstract_state)
  return orbax_io.restore(path / STATE, abstract_state)


def load_weights(path, manifest, abstract_params):
  """Restore the weights of one checkpoint without the optimizer state, and verify their digests.

  Args:
    path: folder of the checkpoint.
    manifest: result of `read_manifest` for it.
    abstract_params: tree of jax.ShapeDtypeStruct with concrete shardings, on any mesh.

  Raises:
    ValueError: a weight is missing, extra, misshapen or differs from its digest; the message has the first.
  """
  expected = {'params': abstract_params}
  arrays = {name: entry for name, entry in manifest['arrays'].items() if name.startswith('params/')}
  _check_arrays(path, arrays, expected)
  restored = orbax_io.restore_part(path / STATE, expected)
  for name, entry in describe_arrays(restored, jax.jit(digests)(restored)).items():
    if entry != arrays[name]:
      raise InputError(f'{path}: {name} differs from its digest: use another checkpoint')
  return restored['params']


def read_weights(path, abstract_params):
  """Return the weights of one checkpoint as NumPy arrays, in this process alone, without devices."""
  return orbax_io.read_part(path / STATE, {'params': abstract_params})['params']


def _check_arrays(path, arrays, abstract):
  expected = {orbax_io.name_of(key): [list(x.shape), str(x.dtype)]
              for key, x in jax.tree.leaves_with_path(abstract)}
  stored = {name: entry[:2] for name, entry in arrays.items()}
  for name in sorted(expected.keys() | stored.keys()):
    if expected.get(name) != stored.get(name):
      raise InputError(f'{path}: {name} is {stored.get(name, "absent")} in the checkpoint and '
                       f'{expected.get(name, "absent")} in the config')
