"""Checkpoints that can be trusted: Orbax writes the arrays, a manifest written last vouches for them.

A workdir's `checkpoints/STEP/` holds
  state/         what Orbax wrote
  manifest.json  step, metric, and for each array its shape, dtype and digest, for each file its size
                 and hash; written last, by an atomic rename
  saving         there from before the first byte until after the manifest
A manifest is signed once the arrays have been opened as a restore opens them, and all of it is on disk.
A folder with `saving` and no manifest was cut short and never counted. A folder with neither, or
whose files or arrays differ from the manifest, is damaged. Both are renamed aside, never deleted.

Of several processes each writes its shards, at the same time. Process 0 does everything else, and decides.
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
from gptjax.storage import orbax_io
from gptjax.storage.digests import describe_arrays, digests
from gptjax.storage.manifest import MANIFEST, file_digest, find_fault, read_manifest, write_manifest

STATE, SAVING = 'state', 'saving'
RENAMED = {'loss_ema': 'usual_loss'}  # fields of a state whose name on disk is that of version 0.1
VERIFY_LIMIT = 3600  # seconds for process 0 to hash the files of a checkpoint


class Checkpoints:
  """The checkpoints of a run.

  Args:
    folder: `WORKDIR/checkpoints`.
    keep: how many of the newest to keep.
    keep_best: how many more to keep, by smallest metric.
    facts: dict that goes into each manifest (corpus digest, versions, ...).
    on_saved: called in the background with the folder of each checkpoint once that is good, or None.
  """

  def __init__(self, folder, keep, keep_best, facts, on_saved=None):
    self.folder = Path(folder).absolute()
    self.keep, self.keep_best, self.facts, self.on_saved = keep, keep_best, facts, on_saved
    errors.quiet_libraries()
    self.writer = orbax_io.Writer()
    self.thread = concurrent.futures.ThreadPoolExecutor(1)
    self.pending = None
    self.digests = jax.jit(digests)
    self.copy = jax.jit(lambda state, into: jax.tree.map(jnp.copy, state), donate_argnums=1, keep_unused=True)
    self.copied = None  # kept for the next copy: fresh pages would cost more than the copying

  def save(self, state, step, metric=None):
    """Starts to save; what then overwrites the state need not wait. One save is in flight.

    Args:
      state: tree of arrays.
      step: names the checkpoint.
      metric: held-out loss measured at this step, or None.
    """
    self.wait()
    state, folder = _under_stored_names(state), self.folder / str(step)
    if processes.on_process_0(lambda: self._have(folder, metric) or self._make_folder(folder, state)):
      return
    try:
      # On CPUs Orbax reads arrays where they lie; a step that overwrites them would wait for that.
      held = state
      if jax.default_backend() == 'cpu':
        self.copied = self.copied or jax.jit(lambda state: jax.tree.map(jnp.zeros_like, state))(state)
        held = self.copied = self.copy(state, self.copied)
      # What this thread starts, later steps wait for; but programs of several devices need one order.
      later = held is not state and jax.device_count() == 1
      state_digests = None if later else self._write(folder, held)
    except Exception as error:
      self._failed(folder, error)
    self.pending = self.thread.submit(self._finish, folder, step, metric, held, state_digests,
                                      jax.sharding.get_mesh(), time.monotonic())

  def _write(self, folder, state):
    """Starts to write; gives the digests."""
    state_digests = self.digests(state)
    self.writer.start(folder / STATE, state)
    return state_digests

  def _have(self, folder, metric):
    """Whether this checkpoint was saved before; adds what it lacks."""
    if not (folder / MANIFEST).exists():
      return False
    saved = read_manifest(folder)
    if saved and saved['metric'] is None and metric is not None:  # measured only after a restart
      write_manifest(folder, {**saved, 'metric': metric})
    if self.on_saved:  # what a kill may have kept from happening
      self.pending = self.thread.submit(self.on_saved, folder)
    return True

  def _make_folder(self, folder, state):
    self._check_room(state)
    fresh = self.folder / f'{folder.name}.new'
    atomic.remove(fresh)
    fresh.mkdir()
    (fresh / SAVING).touch()
    atomic.sync_tree(fresh)
    atomic.rename(fresh, folder)
    return False

  def _finish(self, folder, step, metric, state, state_digests, mesh, started):
    try:
      with jax.set_mesh(mesh):
        state_digests = state_digests or self._write(folder, state)
      self.writer.wait()
      if jax.process_index() > 0:
        return step, time.monotonic() - started
      arrays = describe_arrays(state, state_digests)
      _check_saved(folder / STATE, arrays)
      atomic.sync_tree(folder)
      manifest = {'step': step, 'metric': metric, 'facts': self.facts, 'arrays': arrays,
                  'files': {str(path.relative_to(folder)): file_digest(path)
                            for path in sorted((folder / STATE).rglob('*')) if path.is_file()}}
      write_manifest(folder, manifest)
      (folder / SAVING).unlink()
    except Exception as error:
      self._failed(folder, error)
    seconds = time.monotonic() - started
    self._prune()
    if self.on_saved:
      self.on_saved(folder)
    return step, seconds

  def _failed(self, folder, error):
    """A save that failed leaves nothing behind; what the machine refused is the user's to mend."""
    if folder.exists() and not processes.is_multiprocess():  # others may still be writing there
      with contextlib.suppress(OSError):  # where nothing can be removed: it counts as cut short
        atomic.remove_tree(folder)
    if fault := errors.system_fault(error):
      line = errors.describe_fault(fault, folder, errors.checkpoint_status(self.folder))
      raise InputError(f'cannot save checkpoint {folder.name}: {line}') from error
    raise error

  def _check_room(self, state):
    """Refuses what will not fit before a byte of it is written (ValueError)."""
    earlier = [read_manifest(self.folder / str(step)) for step in steps(self.folder)]
    earlier = [manifest for manifest in earlier if manifest]
    needed = (sum(size for size, _ in earlier[-1]['files'].values()) if earlier else
              sum(x.nbytes for x in jax.tree.leaves(state)))
    atomic.make_folders(self.folder)
    free = shutil.disk_usage(self.folder).free
    if free < needed:
      raise InputError(f'no space left on the disk of {self.folder} while saving (a checkpoint takes '
                       f'{needed:,} bytes, {free:,} are left): free some and start again; '
                       + errors.checkpoint_status(self.folder))

  def poll(self):
    """(step, seconds) once after a save has ended, else None. Raises what went wrong in it."""
    if self.pending is None or not self.pending.done():
      return None
    pending, self.pending = self.pending, None
    return pending.result()

  def wait(self):
    """Waits for the save in flight; see `poll`."""
    if self.pending is not None:
      concurrent.futures.wait([self.pending])
    return self.poll()

  def close(self):
    self.thread.shutdown()
    self.writer.close()

  def _prune(self):
    good = {step: read_manifest(self.folder / str(step)) for step in steps(self.folder)}
    good = {step: manifest for step, manifest in good.items() if manifest}
    newest = sorted(good)[-self.keep:]
    measured = [step for step in good if good[step]['metric'] is not None]
    best = sorted(measured, key=lambda step: (good[step]['metric'], step))[:self.keep_best]
    kept = {*newest, *best}
    for step in kept:  # one may be from a process that was killed between its last rename and its last sync
      atomic.sync(self.folder / str(step))
    atomic.sync(self.folder)
    for step in set(good) - kept:
      atomic.remove_tree(self.folder / str(step))
    for path in self.folder.glob('*.deleting'):
      atomic.remove(path)


@functools.cache
def _stored_type(state_type):
  return collections.namedtuple(state_type.__name__, [RENAMED.get(name, name) for name in state_type._fields])


def _under_stored_names(state):
  """A state with the names of its fields on disk; any other tree as it is."""
  return _stored_type(type(state))(*state) if hasattr(state, '_fields') else state


def steps(folder):
  """Step numbers that have a folder, good or not, ascending."""
  folder = Path(folder)
  if not folder.is_dir():
    return []
  return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())


def restore(folder, abstract_state, say):
  """The newest checkpoint that verifies.

  Args:
    folder: `WORKDIR/checkpoints`.
    abstract_state: tree of jax.ShapeDtypeStruct with concrete shardings, on any mesh.
    say: called with a line about each checkpoint that is set aside.

  Returns:
    (state, manifest), or None if no checkpoint was ever completed.

  Raises:
    ValueError: there are checkpoints and none is good, or the model is another one.
  """
  folder = Path(folder).absolute()
  found = processes.on_process_0(lambda: any_completed(folder))
  while (step := processes.on_process_0(lambda: _newest_good(folder, say), VERIFY_LIMIT)) is not None:
    path = folder / str(step)
    manifest = read_manifest(path)
    state = load(path, manifest, _under_stored_names(abstract_state))
    if describe_arrays(state, jax.jit(digests)(state)) == manifest['arrays']:
      return jax.tree.unflatten(jax.tree.structure(abstract_state), jax.tree.leaves(state)), manifest
    processes.on_process_0(lambda: _damaged(path, 'an array differs from its digest', say))
  if found:
    raise InputError(f'{folder} holds checkpoints but none is good: restore one from elsewhere, or '
                     'start in another workdir')
  return None


def _newest_good(folder, say):
  """The newest step whose files verify; sets aside those above it. None: there is none."""
  for step in reversed(steps(folder)):
    path = folder / str(step)
    if is_incomplete(path):
      say(f'checkpoint {step} was cut short: set aside as {_aside(path, "partial").name}')
      continue
    fault = find_fault(path, read_manifest(path))
    if fault is None:
      return step
    _damaged(path, fault, say)
  return None


def _damaged(path, fault, say):
  say(f'checkpoint {path.name} is damaged ({fault}): set aside as {_aside(path, "damaged").name}')


def is_incomplete(path):
  """Whether a checkpoint is still being saved, or never was to the end."""
  if (path / MANIFEST).exists():
    return False
  # TensorStore's threads may write on after a save has failed and its folder has been removed.
  unfinished = not (path / STATE).exists() and any(path.glob(f'{STATE}.orbax-checkpoint-tmp*'))
  return (path / SAVING).exists() or unfinished


def any_completed(folder):
  """Whether any checkpoint of a run was ever completed, be it good or damaged."""
  folder = Path(folder)
  return bool(list(folder.glob('*.damaged*'))) or not all(
    is_incomplete(folder / str(step)) for step in steps(folder))


def load(path, manifest, abstract_state):
  """Restores one checkpoint onto the shardings of `abstract_state`.

  Raises:
    ValueError: names the first array that is missing, extra, or of another shape or dtype.
  """
  _check_arrays(path, manifest['arrays'], abstract_state)
  return orbax_io.restore(path / STATE, abstract_state)


def load_weights(path, manifest, abstract_params):
  """Restores the weights of one checkpoint, verifies their digests, and leaves the rest where it is.

  Args:
    path: folder of the checkpoint.
    manifest: what `read_manifest` gives for it.
    abstract_params: tree of jax.ShapeDtypeStruct with concrete shardings, on any mesh.

  Raises:
    ValueError: names the first weight that is missing, extra, misshapen or not what was saved.
  """
  want = {'params': abstract_params}
  arrays = {name: entry for name, entry in manifest['arrays'].items() if name.startswith('params/')}
  _check_arrays(path, arrays, want)
  found = orbax_io.restore_part(path / STATE, want)
  for name, entry in describe_arrays(found, jax.jit(digests)(found)).items():
    if entry != arrays[name]:
      raise InputError(f'{path}: {name} differs from its digest: take another checkpoint')
  return found['params']


def read_weights(path, abstract_params):
  """The weights of one checkpoint as NumPy arrays, for this process alone, with no device involved."""
  return orbax_io.read_part(path / STATE, {'params': abstract_params})['params']


def _check_saved(path, arrays):
  """Compares what a restore would find in a folder with what has been saved (`arrays`, of the manifest)."""
  want, have = {name: entry[:2] for name, entry in arrays.items()}, orbax_io.stored_arrays(path)
  for name in sorted(want.keys() | have.keys()):
    if want.get(name) != have.get(name):
      raise RuntimeError(f'{path}: {name} was saved as {want.get(name, "absent")}, but is '
                         f'{have.get(name, "absent")} there')


def _check_arrays(path, arrays, abstract):
  want = {orbax_io.name_of(key): [list(x.shape), str(x.dtype)]
          for key, x in jax.tree.leaves_with_path(abstract)}
  have = {name: entry[:2] for name, entry in arrays.items()}
  for name in sorted(want.keys() | have.keys()):
    if want.get(name) != have.get(name):
      raise InputError(f'{path}: {name} is {have.get(name, "absent")} in the checkpoint and '
                       f'{want.get(name, "absent")} in the config')


def _aside(path, word):
  """Renames a folder to the first free `NAME.word`, `NAME.word-2`, ..."""
  number = 1
  while (new := path.with_name(f'{path.name}.{word}' + (f'-{number}' if number > 1 else ''))).exists():
    number += 1
  return path.rename(new)
