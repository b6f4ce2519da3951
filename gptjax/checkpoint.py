"""Checkpoints that can be trusted: Orbax writes the arrays, a manifest written last vouches for them.

A workdir's `checkpoints/STEP/` holds
  state/         what Orbax wrote
  manifest.json  step, metric, and for each array its shape, dtype and digest, for each file its size
                 and hash; written last, by an atomic rename
  saving         there from before the first byte until after the manifest
A folder with `saving` and no manifest was cut short and never counted. A folder with neither, or
whose files or arrays differ from the manifest, is damaged. Both are renamed aside, never deleted.

Of several processes each writes its shards, at the same time. Process 0 does everything else, and decides.
"""

import concurrent.futures
import errno
import hashlib
import json
import shutil
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from gptjax import atomic, hosts
from gptjax.errors import InputError

STATE, MANIFEST, SAVING = 'state', 'manifest.json', 'saving'
VERIFY_LIMIT = 3600  # seconds for process 0 to hash the files of a checkpoint


def digests(tree):
  """A 64-bit digest of each array of a tree, whatever mesh it lies on: uint32[2] an array.

  The sum over elements of a mix of their bits and their position: any single changed element changes
  it for sure, any other change but for one chance in 2**64.
  """
  shapes = jax.tree.map(lambda _: jax.P(), tree)
  return jax.sharding.auto_axes(lambda t: jax.tree.map(_digest, t), out_sharding=shapes)(tree)


def _mix(x):
  """A bijection of uint32 (xor-shifts and odd factors)."""
  for shift, factor in ((16, 0x7feb352d), (15, 0x846ca68b)):
    x = (x ^ (x >> shift)) * jnp.uint32(factor)
  return x ^ (x >> 16)


def _digest(x):
  if x.dtype == jnp.bool_:
    x = x.astype(jnp.uint8)
  unsigned = jnp.dtype(f'uint{8 * x.dtype.itemsize}')
  bits = jax.lax.bitcast_convert_type(x, unsigned).astype(jnp.uint32)
  position = jnp.zeros(x.shape, jnp.uint32)
  for axis, size in enumerate(x.shape):
    position = position * jnp.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis)
  mixed = _mix(bits ^ _mix(position + jnp.uint32(1)))
  return jnp.stack([mixed.sum(dtype=jnp.uint32), _mix(mixed + jnp.uint32(0x9e3779b9)).sum(
    dtype=jnp.uint32)])


def described(tree, tree_digests):
  """For the manifest: {name: [shape, dtype, digest]}."""
  arrays, _ = jax.tree.flatten_with_path(tree)
  values = jax.tree.leaves(tree_digests)
  return {jax.tree_util.keystr(path, simple=True, separator='/'): [
    list(x.shape), str(x.dtype), ''.join(f'{int(word):08x}' for word in np.asarray(digest))]
    for (path, x), digest in zip(arrays, values, strict=True)}


class Checkpoints:
  """The checkpoints of a run.

  Args:
    folder: `WORKDIR/checkpoints`.
    keep: how many of the newest to keep.
    keep_best: how many more to keep, by smallest metric.
    facts: dict that goes into each manifest (corpus digest, versions, ...).
    then: called in the background with the folder of each checkpoint once that is good, or None.
  """

  def __init__(self, folder, keep, keep_best, facts, then=None):
    self.folder = Path(folder).absolute()
    self.keep, self.keep_best, self.facts, self.then = keep, keep_best, facts, then
    self.orbax = ocp.StandardCheckpointer()
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
    folder = self.folder / str(step)
    if hosts.told(lambda: self._have(folder, metric) or self._make_folder(folder, state)):
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
    self.orbax.save(folder / STATE, state)
    return state_digests

  def _have(self, folder, metric):
    """Whether this checkpoint was saved before; adds what it lacks."""
    if not (folder / MANIFEST).exists():
      return False
    saved = read_manifest(folder)
    if saved and saved['metric'] is None and metric is not None:  # measured only after a restart
      write_manifest(folder, {**saved, 'metric': metric})
    if self.then:  # what a kill may have kept from happening
      self.pending = self.thread.submit(self.then, folder)
    return True

  def _make_folder(self, folder, state):
    self._check_room(state)
    fresh = self.folder / f'{folder.name}.new'
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    (fresh / SAVING).touch()
    fresh.rename(folder)
    return False

  def _finish(self, folder, step, metric, state, state_digests, mesh, started):
    try:
      with jax.set_mesh(mesh):
        state_digests = state_digests or self._write(folder, state)
      self.orbax.wait_until_finished()
      if jax.process_index() > 0:
        return step, time.monotonic() - started
      manifest = {'step': step, 'metric': metric, 'facts': self.facts,
                  'arrays': described(state, state_digests),
                  'files': {str(path.relative_to(folder)): _file_digest(path)
                            for path in sorted((folder / STATE).rglob('*')) if path.is_file()}}
      write_manifest(folder, manifest)
      (folder / SAVING).unlink()
    except Exception as error:
      self._failed(folder, error)
    seconds = time.monotonic() - started
    self._prune()
    if self.then:
      self.then(folder)
    return step, seconds

  def _failed(self, folder, error):
    """A save that failed leaves nothing behind; a full disk is the user's to mend."""
    doomed = folder.with_name(f'{folder.name}.deleting')
    if folder.exists() and not hosts.several():  # others may still be writing there
      folder.rename(doomed)  # first: half a deletion must not look like damage
      shutil.rmtree(doomed, ignore_errors=True)
    full = getattr(error, 'errno', None) == errno.ENOSPC or any(
      words in str(error) for words in ('No space left', 'ENOSPC', 'Disk quota'))
    if full:
      raise InputError(self._full('')) from error
    raise error

  def _check_room(self, state):
    """Refuses what will not fit before a byte of it is written (ValueError)."""
    earlier = [read_manifest(self.folder / str(step)) for step in steps(self.folder)]
    earlier = [manifest for manifest in earlier if manifest]
    needed = (sum(size for size, _ in earlier[-1]['files'].values()) if earlier else
              sum(x.nbytes for x in jax.tree.leaves(state)))
    self.folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(self.folder).free
    if free < needed:
      raise InputError(self._full(f' (a checkpoint takes {needed:,} bytes, {free:,} are left)'))

  def _full(self, detail):
    return (f'no space left on the disk of {self.folder} while saving{detail}: free some and start again; '
            'the earlier checkpoint is good')

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
    self.orbax.close()

  def _prune(self):
    good = {step: read_manifest(self.folder / str(step)) for step in steps(self.folder)}
    good = {step: manifest for step, manifest in good.items() if manifest}
    newest = sorted(good)[-self.keep:]
    measured = [step for step in good if good[step]['metric'] is not None]
    best = sorted(measured, key=lambda step: (good[step]['metric'], step))[:self.keep_best]
    for step in set(good) - set(newest) - set(best):
      # Renamed first: a kill in mid-deletion must not leave what looks like a damaged checkpoint.
      (self.folder / str(step)).rename(self.folder / f'{step}.deleting')
    for path in self.folder.glob('*.deleting'):
      shutil.rmtree(path)


def steps(folder):
  """Step numbers that have a folder, good or not, ascending."""
  folder = Path(folder)
  if not folder.is_dir():
    return []
  return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())


def read_manifest(folder):
  """The manifest of one checkpoint, or None if it is absent or not whole."""
  try:
    manifest = json.loads((folder / MANIFEST).read_text())
    return manifest if manifest == _signed(manifest) else None
  except (OSError, ValueError):
    return None


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
  found = hosts.told(lambda: completed(folder))
  while (step := hosts.told(lambda: _newest_good(folder, say), VERIFY_LIMIT)) is not None:
    path = folder / str(step)
    manifest = read_manifest(path)
    state = load(path, manifest, abstract_state)
    if described(state, jax.jit(digests)(state)) == manifest['arrays']:
      return state, manifest
    hosts.told(lambda: _damaged(path, 'an array differs from its digest', say))
  if found:
    raise InputError(f'{folder} holds checkpoints but none is good: restore one from elsewhere, or '
                     'start in another workdir')
  return None


def _newest_good(folder, say):
  """The newest step whose files verify; sets aside those above it. None: there is none."""
  for step in reversed(steps(folder)):
    path = folder / str(step)
    if cut_short(path):
      say(f'checkpoint {step} was cut short: set aside as {_aside(path, "partial").name}')
      continue
    fault = fault_of(path, read_manifest(path))
    if fault is None:
      return step
    _damaged(path, fault, say)
  return None


def _damaged(path, fault, say):
  say(f'checkpoint {path.name} is damaged ({fault}): set aside as {_aside(path, "damaged").name}')


def cut_short(path):
  """Whether a checkpoint is still being saved, or never was to the end."""
  return (path / SAVING).exists() and not (path / MANIFEST).exists()


def completed(folder):
  """Whether any checkpoint of a run was ever completed, be it good or damaged."""
  folder = Path(folder)
  return bool(list(folder.glob('*.damaged*'))) or not all(
    cut_short(folder / str(step)) for step in steps(folder))


def load(path, manifest, abstract_state):
  """Restores one checkpoint onto the shardings of `abstract_state`.

  Raises:
    ValueError: names the first array that is missing, extra, or of another shape or dtype.
  """
  _check_arrays(path, manifest['arrays'], abstract_state)
  with ocp.StandardCheckpointer() as orbax:
    return orbax.restore(path / STATE, abstract_state)


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
  asked = jax.tree.map(lambda x: ocp.ArrayRestoreArgs(sharding=x.sharding, dtype=x.dtype), want)
  with ocp.PyTreeCheckpointer() as orbax:
    found = _restore_part(orbax, path, want, asked)
  for name, entry in described(found, jax.jit(digests)(found)).items():
    if entry != arrays[name]:
      raise InputError(f'{path}: {name} differs from its digest: take another checkpoint')
  return found['params']


def read_weights(path, abstract_params):
  """The weights of one checkpoint as NumPy arrays, for this process alone, with no device involved."""
  want = {'params': abstract_params}
  asked = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), want)
  me = jax.process_index()
  alone = ocp.options.MultiprocessingOptions(primary_host=me, active_processes={me},
                                             barrier_sync_key_prefix=f'weights{me}')
  handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=alone)
  with ocp.Checkpointer(handler, multiprocessing_options=alone) as orbax:
    return _restore_part(orbax, path, want, asked)['params']


def _restore_part(orbax, path, want, asked):
  return orbax.restore(Path(path).absolute() / STATE, args=ocp.args.PyTreeRestore(
    item=want, restore_args=asked, partial_restore=True))


def _check_arrays(path, arrays, abstract):
  flat, _ = jax.tree.flatten_with_path(abstract)
  want = {jax.tree_util.keystr(key, simple=True, separator='/'): [list(x.shape), str(x.dtype)]
          for key, x in flat}
  have = {name: entry[:2] for name, entry in arrays.items()}
  for name in sorted(want.keys() | have.keys()):
    if want.get(name) != have.get(name):
      raise InputError(f'{path}: {name} is {have.get(name, "absent")} in the checkpoint and '
                       f'{want.get(name, "absent")} in the config')


def fault_of(path, manifest):
  """What is wrong with the files of a checkpoint, in words; None: nothing."""
  if manifest is None:
    return 'no readable manifest'
  for name, (size, digest) in manifest['files'].items():
    file = path / name
    if not file.is_file():
      return f'{name} is missing'
    if [size, digest] != _file_digest(file):
      return f'{name} differs from its hash'
  return None


def _aside(path, word):
  """Renames a folder to the first free `NAME.word`, `NAME.word-2`, ..."""
  number = 1
  while (new := path.with_name(f'{path.name}.{word}' + (f'-{number}' if number > 1 else ''))).exists():
    number += 1
  return path.rename(new)


def _file_digest(path):
  with open(path, 'rb') as file:
    return [path.stat().st_size, hashlib.file_digest(file, 'sha256').hexdigest()]


def arrays_digest(manifest):
  """Tells checkpoints apart by their arrays: two of one step differ if a run went back in between."""
  return hashlib.sha256(json.dumps(manifest['arrays'], sort_keys=True).encode()).hexdigest()


def _signed(manifest):
  body = {key: value for key, value in manifest.items() if key != 'signature'}
  text = json.dumps(body, sort_keys=True)
  return {**body, 'signature': hashlib.sha256(text.encode()).hexdigest()}


def write_manifest(folder, manifest):
  """Writes the signed manifest of a checkpoint, by which it counts as one."""
  atomic.write(folder / MANIFEST, json.dumps(_signed(manifest), indent=1, sort_keys=True))
