"""Verified checkpoints: Orbax writes the arrays, then a manifest records their digests.

A workdir's `checkpoints/STEP/`, on this machine or in a bucket, contains
  state/         the arrays, written by Orbax
  manifest.json  step, metric, the shape, dtype and digest of each array, the size and checksum of each file;
                 written last, by an atomic rename or one put
The manifest is written after the arrays have been opened like in a restore, and everything is stored. A
folder without one is incomplete, if a marker says that its save has begun, and does not count; else, or if
its files or arrays differ from the manifest, it is damaged and set aside (see `step_folders`).

Each process writes its shards, concurrently. Process 0 does everything else, and decides.
`retention` says which checkpoints are kept.
"""

import collections
import concurrent.futures
import contextlib
import functools
import time

import jax
import jax.numpy as jnp

from gptjax import errors
from gptjax.errors import Denied, InputError, LostWorkdir, Unavailable
from gptjax.parallel import processes
from gptjax.storage import milestones, orbax_io, retention, step_folders
from gptjax.storage.digests import describe_arrays, digests
from gptjax.storage.files import access, local, paths, records
from gptjax.storage.files.paths import Url
from gptjax.storage.manifest import STATE, file_facts, find_fault, read_manifest, write_manifest
from gptjax.storage.retention import in_period
from gptjax.storage.step_folders import any_completed, is_incomplete, steps

STORED_NAMES = {'loss_ema': 'usual_loss'}  # fields and metrics whose name on disk is that of version 0.1
VERIFY_LIMIT = 3600  # seconds for process 0 to hash the files of a checkpoint
SLOWEST = 1 << 20    # bytes/s of an upload, below which it counts as failed


class Checkpoints:
  """The checkpoints of a run.

  Args:
    folder: `WORKDIR/checkpoints`.
    rules: retention.Rules, which checkpoints are kept.
    facts: dict that is added to each manifest (corpus digest, versions, ...).
    on_saved: called in the background with the folder of each checkpoint after it is complete, or None.
    before_manifest: called in the background before a manifest is written, or None: what belongs to the
      checkpoint is then stored.
    max_failed: saves to a bucket in a row that may fail before an error is raised.
    upload_seconds: a save to a bucket fails after this time, plus one second for each SLOWEST bytes; None:
      never.

  Attributes:
    started: `time.monotonic()` at the start of the last save, or when this object was made.
    stopping: set by a run whose process will be killed soon: in a bucket, nothing follows a save then.
  """

  def __init__(self, folder, rules, facts, on_saved=None, before_manifest=None, max_failed=1,
               upload_seconds=None):
    self.folder = paths.location(folder)
    self.rules, self.facts, self.on_saved, self.before_manifest = rules, facts, on_saved, before_manifest
    self.max_failed, self.failures, self.upload_seconds = max_failed, [], upload_seconds
    errors.quiet_libraries(*([orbax_io.storage_fault] if isinstance(self.folder, Url) else []))
    self.writer = orbax_io.Writer(self.folder)
    self.thread = concurrent.futures.ThreadPoolExecutor(1)
    self.pending, self.started, self.stopping = None, time.monotonic(), False
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
    try:
      self._start(state, step, folder, metric)
    except LostWorkdir:
      raise
    except InputError as error:
      if not isinstance(folder, Url):
        raise
      self.pending = concurrent.futures.Future()  # `poll` decides whether it ends the run
      self.pending.set_exception(error)

  def _start(self, state, step, folder, metric):
    if self.rules.weights_only:
      self.params = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state.params)
    exists, failure, code = processes.on_process_0(lambda: self._prepare(folder, state, metric))
    if failure:
      raise (Unavailable if code == errors.LOST else Denied)(failure)
    if exists:
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

  def _prepare(self, folder, state, metric):
    """(whether the checkpoint exists, why a bucket cannot take it or '', exit code of that).

    Not raised, because process 0 may continue after it, and the others would wait.
    """
    try:
      return self._finish_earlier_save(folder, metric) or self._make_folder(folder, state), '', 0
    except InputError as error:
      if isinstance(error, LostWorkdir) or not isinstance(folder, Url):
        raise
      line, code = errors.describe(error, '')
      return False, f'cannot save checkpoint {folder.name}: {line}', code

  def _finish_earlier_save(self, folder, metric):
    """Whether this checkpoint exists; if so, add a missing metric and repeat what follows a save."""
    if not step_folders.is_complete(folder):
      return False
    saved = read_manifest(folder)
    if isinstance(folder, Url) and find_fault(folder, saved):
      return False
    if saved and saved['metric'] is None and metric is not None:  # measured only after a restart
      write_manifest(folder, {**saved, 'metric': metric})
    self.pending = self.thread.submit(self._follow_up, folder)  # a kill may have prevented it
    return True

  def _make_folder(self, folder, state):
    if not isinstance(folder, Url):
      self._check_room(folder, state)
    step_folders.begin(folder)
    return False

  def _finish(self, folder, step, metric, state, state_digests, mesh, started):
    try:
      with jax.set_mesh(mesh):
        state_digests = state_digests or self._write(folder, state)
      self.writer.wait(self._upload_limit(state))
      if jax.process_index() > 0:
        return step, time.monotonic() - started
      arrays = describe_arrays(state, state_digests)
      orbax_io.check_stored(folder / STATE, arrays)
      facts = {'files': file_facts(folder)} if isinstance(folder, Url) else {}
      if self.before_manifest:
        self.before_manifest()
      step_folders.complete(folder, {'step': step, 'metric': metric, 'facts': self.facts, 'arrays': arrays,
                                     **facts})
    except Exception as error:
      self._failed(folder, error)
    seconds = time.monotonic() - started
    self._follow_up(folder)
    return step, seconds

  def _upload_limit(self, state):
    if not isinstance(self.folder, Url) or self.upload_seconds is None:
      return None
    return self.upload_seconds + sum(x.nbytes for x in jax.tree.leaves(state)) / SLOWEST

  def _follow_up(self, folder):
    """What follows a save: copy milestones, then delete what is not kept, then call `on_saved`."""
    for step in retention.milestone_steps(self.folder, self.rules):
      if self._in_a_hurry():
        break
      try:
        milestones.copy_weights(self.folder / str(step), self.params)
      except Exception as error:
        self._raise(f'milestone {step}', self.folder.parent, error)
    if not self._in_a_hurry():
      retention.prune(self.folder, self.rules)
    if self.on_saved and not self._in_a_hurry():
      self.on_saved(folder)

  def _in_a_hurry(self):
    return self.stopping and isinstance(self.folder, Url)

  def _failed(self, folder, error):
    """Remove the folder of a failed save and raise its error."""
    if not isinstance(folder, Url) and folder.exists() and not processes.is_multiprocess():
      with contextlib.suppress(OSError):  # if it cannot be removed, it counts as incomplete
        step_folders.discard(folder)
    self._raise(f'checkpoint {folder.name}', folder, error)

  def _raise(self, what, folder, error):
    """Raise the error of a failed write; one of the machine or of a bucket becomes an InputError."""
    if isinstance(folder, Url) and (kind := orbax_io.storage_fault(error)):
      raise kind(f'cannot save {what} to {folder}: {orbax_io.reason(error)}') from error
    if fault := errors.system_fault(error):
      path = fault.path or errors.disk_of(folder) if isinstance(folder, Url) else folder
      line = errors.describe_fault(fault, path, errors.checkpoint_status(self.folder))
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
    access.make_folder(self.folder)
    free = local.free_bytes(self.folder)
    if free < needed:
      raise InputError(f'no space left on the disk of {self.folder} while saving (a checkpoint takes '
                       f'{needed:,} bytes, {free:,} are left): free some and start again; '
                       + errors.checkpoint_status(self.folder))

  def poll(self):
    """Return (step, seconds) once after a save has ended, else None.

    Raises the error of a failed save; to a bucket, of `max_failed` saves in a row.
    """
    if self.pending is None or not self.pending.done():
      return None
    pending, self.pending = self.pending, None
    try:
      result, self.failures = pending.result(), []
      return result
    except LostWorkdir:
      raise
    except InputError as error:
      self.failures.append(error)
      if not isinstance(self.folder, Url) or len(self.failures) >= self.max_failed:
        raise
      records.log(f'{error}; training continues, and the next checkpoint is saved when it is due')
      self.writer = orbax_io.Writer(self.folder)  # the old one may still be waiting for the storage
      return None

  def wait(self, last=False):
    """Wait for the save in flight; returns the result of `poll`.

    Args:
      last: no save follows: raise the error of the last one if it has failed.
    """
    if self.pending is not None:
      concurrent.futures.wait([self.pending])
    result = self.poll()
    if last and self.failures:
      raise self.failures[-1]
    return result

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
    log: called with a line about each checkpoint that is set aside because it is not valid.

  Returns:
    (state, manifest), or None if no checkpoint was ever completed.

  Raises:
    ValueError: no checkpoint is valid, or they are of another model.
  """
  folder = paths.location(folder)
  processes.on_process_0(lambda: step_folders.finish_deletions(folder))
  exists = processes.on_process_0(lambda: any_completed(folder))
  while (step := processes.on_process_0(lambda: _newest_valid(folder, log), VERIFY_LIMIT)) is not None:
    path = folder / str(step)
    manifest = read_manifest(path)
    state = load(path, manifest, _under_stored_names(abstract_state))
    if describe_arrays(state, jax.jit(digests)(state)) == manifest['arrays']:
      return jax.tree.unflatten(jax.tree.structure(abstract_state), jax.tree.leaves(state)), manifest
    processes.on_process_0(lambda: _set_aside(path, 'an array differs from its digest', log))
  if exists:
    raise InputError(f'{folder} has checkpoints but none is valid: restore one from a copy, or start in '
                     'another workdir')
  return None


def _newest_valid(folder, log):
  """The newest step whose files match their manifest, or None; sets invalid checkpoints aside."""
  for step in reversed(steps(folder)):
    path = folder / str(step)
    if is_incomplete(path):
      log(f'checkpoint {step} is incomplete: {step_folders.set_aside(path, "")}')
      continue
    fault = find_fault(path, read_manifest(path))
    if fault is None:
      return step
    _set_aside(path, fault, log)
  return None


def _set_aside(path, fault, log):
  log(f'checkpoint {path.name} is damaged ({fault}): {step_folders.set_aside(path, fault)}')


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
