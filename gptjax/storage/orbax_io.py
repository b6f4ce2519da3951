"""All that knows how Orbax keeps arrays: writing them, opening what was written, restoring.

A folder `state/` holds an OCDBT database of TensorStore: a tree of keys, of which small values are part and
large ones lie in data files, and for each array its metadata and its chunks under keys of their own.
"""

import contextlib
import math
import warnings
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from gptjax import errors
from gptjax.errors import InputError
from gptjax.files.literal_path import literal

# Where a save fails, Orbax leaves what it had begun, and Python would say so when it ends.
warnings.filterwarnings('ignore', "coroutine '.*' was never awaited", RuntimeWarning)


class Writer:
  """Writes trees of arrays in the background, one at a time."""

  def __init__(self):
    self._orbax = ocp.StandardCheckpointer()
    self._folder = contextlib.ExitStack()  # open from `start` until `wait` ends

  def start(self, path, state):
    """Starts to write a tree to a folder that is not there yet, in one that is."""
    path = Path(path)
    self._orbax.save(self._folder.enter_context(literal(path.parent)) / path.name, state)

  def wait(self):
    """Waits for the write; raises what went wrong in it."""
    with self._folder:
      self._orbax.wait_until_finished()

  def close(self):
    self._orbax.close()


@contextlib.contextmanager
def _reading(path):
  """Makes one line (InputError) of whatever Orbax and TensorStore raise about files that they cannot read.

  The hashes of files show that they are as they were written, not that they are a checkpoint.
  """
  try:
    yield
  except Exception as error:
    known = not isinstance(error, InputError) and errors.describe(error, '')
    if known or type(error).__name__ == 'JaxRuntimeError':
      raise
    said = ' '.join(str(error).split())[:300] or type(error).__name__
    raise InputError(f'{path} cannot be restored, take another checkpoint: {said}') from error


def restore(path, abstract_state):
  """Restores a tree onto the shardings of `abstract_state`, jax.ShapeDtypeStruct of what was saved."""
  with _reading(path), literal(path) as folder, ocp.StandardCheckpointer() as orbax:
    return _whole(orbax.restore(folder, abstract_state))


def restore_part(path, want):
  """Restores the part of a tree that `want` has, onto the shardings of its jax.ShapeDtypeStruct."""
  asked = jax.tree.map(lambda x: ocp.ArrayRestoreArgs(sharding=x.sharding, dtype=x.dtype), want)
  with _reading(path), literal(path) as folder, ocp.PyTreeCheckpointer() as orbax:
    return _whole(orbax.restore(folder, args=_part(want, asked)))


def read_part(path, want):
  """As `restore_part`, but as NumPy arrays, for this process alone, with no device involved."""
  asked = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), want)
  alone = _alone('weights')
  with (_reading(path), literal(path) as folder,
        ocp.Checkpointer(ocp.PyTreeCheckpointHandler(**alone), **alone) as orbax):
    return _whole(orbax.restore(folder, args=_part(want, asked)))


def _whole(tree):
  """The tree, as it is; InputError if Orbax has left out an array, of which its metadata says nothing."""
  for path, leaf in jax.tree.leaves_with_path(tree):
    if not isinstance(leaf, jax.Array | np.ndarray):
      raise InputError(f'its metadata names no array {name_of(path)}')
  return tree


def _part(want, asked):
  return ocp.args.PyTreeRestore(item=want, restore_args=asked, partial_restore=True)


def _alone(name):
  """Options of a checkpointer of this process, which waits for no other."""
  me = jax.process_index()
  return {'multiprocessing_options': ocp.options.MultiprocessingOptions(
    primary_host=me, active_processes={me}, barrier_sync_key_prefix=f'{name}{me}')}


def stored_arrays(path):
  """What a restore would find, {name: [shape, dtype]}: opened as it opens arrays, but nothing is read.

  Raises:
    FileNotFoundError: a chunk of an array, or the data file that it lies in, is not there.
  """
  with literal(path) as folder:
    # The handler itself: a checkpointer only logs what is wrong.
    handler = ocp.PyTreeCheckpointHandler(**_alone('opened'))
    tree = handler.metadata(epath.Path(folder)).tree
    handler.close()
    chunks = _chunks(folder)
  found = {}
  for key, array in jax.tree.leaves_with_path(tree):
    found[name_of(key)] = [list(array.shape), str(array.dtype)]
    sizes = zip(array.shape, array.storage.chunk_shape, strict=True)
    have, want = chunks.get(array.name, 0), math.prod(-(-size // chunk) for size, chunk in sizes)
    if have != want:
      raise FileNotFoundError(f'{path}: {array.name} has {have} of its {want} chunks')
  return found


def name_of(key_path):
  """The name of an array in a tree, in manifests and messages: 'params/h/ln_1/g'."""
  return jax.tree_util.keystr(key_path, simple=True, separator='/')


def _chunks(folder):
  """{name of an array as Orbax spells it: number of its chunks}, after a look at the sizes of data files."""
  import tensorstore
  store = tensorstore.KvStore.open({'driver': 'file', 'path': f'{folder}/'}).result()
  found, sizes = {}, {}
  def visit(location, prefix):
    node = tensorstore.ocdbt.dump(store, node=location).result()
    for entry in node['entries']:
      if node['height']:
        visit(entry['location'], prefix + entry['subtree_common_prefix'])
        continue
      name, _, chunk = (prefix + entry['key']).decode().rpartition('/')
      if 'indirect_value' in entry:  # FILE:OFFSET:LENGTH
        file, offset, length = entry['indirect_value'].removeprefix('value:').rsplit(':', 2)
        file = file.replace(':', '')
        if file not in sizes:
          sizes[file] = (folder / file).stat().st_size
        if sizes[file] < int(offset) + int(length):
          raise FileNotFoundError(f'{folder / file} ends before {name}')
      found[name] = found.get(name, 0) + (chunk != '.zarray')
  manifest = tensorstore.ocdbt.dump(store).result()
  visit(manifest['versions'][-1]['root']['location'], b'')
  return found
