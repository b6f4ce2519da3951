"""Writing, checking and restoring arrays with Orbax.

A folder `state/` is an OCDBT database of TensorStore: a tree of keys, whose small values are stored in the
tree and whose large values are in data files. The metadata of each array and each of its chunks have a key.
"""

import contextlib
import errno
import functools
import math
import re
import warnings

import jax
import numpy as np
from etils import epath

from gptjax import errors
from gptjax.command import background
from gptjax.errors import Denied, InputError, LostWorkdir, Unavailable
from gptjax.storage import bucket_files, literal_path, orbax_s3
from gptjax.storage.files import buckets
from gptjax.storage.files.paths import Url
from gptjax.storage.literal_path import SPECIAL, literal

# After a failed save Orbax leaves coroutines that never ran, about which Python would warn at exit.
warnings.filterwarnings('ignore', "coroutine '.*' was never awaited", RuntimeWarning)

# Codes of errors of the storage, in the messages of TensorStore.
CODES = ('UNAVAILABLE', 'DEADLINE_EXCEEDED', 'ABORTED', 'NOT_FOUND', 'DATA_LOSS', 'INTERNAL', 'CANCELLED',
         'http_response_code')  # of any other answer of a service
QUOTED = re.compile(r" \[(?!http_response_code)\w+='(?:[^'\\]|\\.)*'\]", re.DOTALL)  # in these messages


@functools.cache
def ocp():
  """Orbax; imported at the first save, or at the start if there is a checkpoint, because it takes 0.2 s."""
  import orbax.checkpoint
  return orbax.checkpoint


class Writer:
  """Writes trees of arrays in the background, one at a time.

  Args:
    folder: Path or Url below which it writes.
  """

  def __init__(self, folder):
    self._place, self._orbax, self.abandoned = folder, None, False
    self._folder = contextlib.ExitStack()  # open from `start` until `wait` ends

  def start(self, path, state):
    """Start to write a tree to a new folder; its parent must exist."""
    self._orbax = self._orbax or ocp().StandardCheckpointer(**_place_options(self._place))
    folder = self._folder.enter_context(_opened(path.parent))
    self._orbax.save(folder / path.name, state, save_args=_save_args(path, state))

  def wait(self, seconds=None):
    """Wait for the write; raises its error, or TimeoutError after `seconds`: then use another Writer."""
    with self._folder:
      if seconds is None:
        self._orbax.wait_until_finished()
        return
      # TensorStore repeats requests for longer than a run wants to wait, and cannot be stopped.
      ended = background.submit(self._orbax.wait_until_finished)
      try:
        ended.result(seconds)
      except TimeoutError:
        self.abandoned = True
        raise TimeoutError(f'the storage has not taken the arrays within {seconds:.0f} s') from None

  def close(self):
    if self._orbax and not self.abandoned:  # it would wait for the storage
      self._orbax.close()


def storage_fault(error):
  """Return the class of InputError that stands for an error of the storage; None for any other error.

  Orbax and TensorStore raise ValueError, RuntimeError or OSError with the code of the fault in the text.
  """
  text = str(error)
  if isinstance(error, LostWorkdir | errors.LostProcess) or type(error).__name__ == 'JaxRuntimeError':
    return None
  if isinstance(error, InputError):
    return type(error)
  if (fault := errors.system_fault(error)) and fault.number in (errno.ENOSPC, errno.EDQUOT):
    return None  # of a disk of this machine
  if kind := buckets.fault_of(error):
    return kind
  if 'PERMISSION_DENIED' in text or 'UNAUTHENTICATED' in text or text.startswith('Forbidden'):
    return Denied
  known = isinstance(error, OSError | TimeoutError) or any(code in text for code in CODES)
  return Unavailable if known else None


def reason(error):
  """Return the text of an error of the storage in one line, without the requests that TensorStore quotes."""
  return ' '.join(QUOTED.sub('', str(error)).split())[:300]


@contextlib.contextmanager
def _opened(folder):
  """The folder as a path for Orbax: one that no library interprets, or of a bucket."""
  if isinstance(folder, Url):
    yield _bucket_path(folder)
  else:
    with literal(folder) as path:
      yield path


def check_supported(workdir):
  """Raise InputError for a workdir that Orbax cannot write checkpoints to, Path or Url."""
  if not isinstance(workdir, Url):
    literal_path.check(workdir)
  elif SPECIAL.search(workdir.key):
    raise InputError(f'--workdir {workdir} has a character that Orbax interprets: choose a name without '
                     '* ? [ \\')
  else:
    _bucket_path(workdir)
    if _on_s3(workdir):
      orbax_s3.probe(workdir)


def _bucket_path(url):
  """The path in a bucket for Orbax, which uses TensorStore for arrays, and else `bucket_files`."""
  bucket_files.use()
  if _on_s3(url):
    orbax_s3.prepare(url)
  return epath.Path(str(url))


def _place_options(folder):
  """Options of a checkpointer for a folder, Path or Url."""
  return orbax_s3.options() if _on_s3(folder) else {}


def _save_args(folder, tree):
  return orbax_s3.save_args(tree) if _on_s3(folder) else None


def _on_s3(path):
  return isinstance(path, Url) and path.scheme == orbax_s3.SCHEME


@contextlib.contextmanager
def _reading(path):
  """Convert errors of Orbax and TensorStore about unreadable files to an InputError of one line.

  The hashes of files show that they are unchanged, not that they are a checkpoint.
  """
  try:
    yield
  except Exception as error:
    known = not isinstance(error, InputError) and errors.describe(error, '')
    if known or type(error).__name__ == 'JaxRuntimeError':
      raise
    reason = ' '.join(str(error).split())[:300] or type(error).__name__
    raise InputError(f'{path} cannot be restored, use another checkpoint: {reason}') from error


def restore(path, abstract_state):
  """Restore a tree with the shardings of `abstract_state`, a tree of jax.ShapeDtypeStruct."""
  with _reading(path), _opened(path) as folder, ocp().StandardCheckpointer(**_place_options(path)) as orbax:
    return _check_complete(orbax.restore(folder, abstract_state))


def restore_part(path, abstract):
  """Restore the part of a tree that `abstract` has, with the shardings of its jax.ShapeDtypeStruct."""
  restore_args = jax.tree.map(lambda x: ocp().ArrayRestoreArgs(sharding=x.sharding, dtype=x.dtype), abstract)
  with (_reading(path), _opened(path) as folder,
        ocp().Checkpointer(ocp().PyTreeCheckpointHandler(), **_place_options(path)) as orbax):
    return _check_complete(orbax.restore(folder, args=_partial(abstract, restore_args)))


def read_part(path, abstract):
  """Like `restore_part`, but returns NumPy arrays, in this process alone, without devices."""
  restore_args = jax.tree.map(lambda _: ocp().RestoreArgs(restore_type=np.ndarray), abstract)
  options = _single_process_options('weights')
  handler = ocp().PyTreeCheckpointHandler(**options)
  with (_reading(path), _opened(path) as folder,
        ocp().Checkpointer(handler, **options, **_place_options(path)) as orbax):
    return _check_complete(orbax.restore(folder, args=_partial(abstract, restore_args)))


def write_part(path, tree):
  """Write a tree of NumPy arrays to a new folder, in this process alone, without devices."""
  options = _single_process_options('copy')
  handler = ocp().PyTreeCheckpointHandler(**options)
  with (_opened(path.parent) as folder,
        ocp().Checkpointer(handler, **options, **_place_options(path)) as orbax):
    orbax.save(folder / path.name, args=ocp().args.PyTreeSave(tree, save_args=_save_args(path, tree)))


def _check_complete(tree):
  """Return the tree; InputError if Orbax has omitted an array because its metadata is missing."""
  for path, leaf in jax.tree.leaves_with_path(tree):
    if not isinstance(leaf, jax.Array | np.ndarray):
      raise InputError(f'its metadata has no array {name_of(path)}')
  return tree


def _partial(abstract, restore_args):
  return ocp().args.PyTreeRestore(item=abstract, restore_args=restore_args, partial_restore=True)


def _single_process_options(name):
  """Options of a checkpointer that does not wait for other processes."""
  me = jax.process_index()
  return {'multiprocessing_options': ocp().options.MultiprocessingOptions(
    primary_host=me, active_processes={me}, barrier_sync_key_prefix=f'{name}{me}')}


def stored_arrays(path):
  """Return the arrays that a restore would find, {name: [shape, dtype]}, without reading their values.

  Raises:
    FileNotFoundError: a chunk of an array, or the data file with it, is missing.
  """
  with _opened(path) as folder:
    # Use the handler directly, because a checkpointer only logs errors.
    handler = ocp().PyTreeCheckpointHandler(**_single_process_options('opened'))
    tree = handler.metadata(epath.Path(folder)).tree
    handler.close()
    chunks = _chunks(path, folder)
  arrays = {}
  for key, array in jax.tree.leaves_with_path(tree):
    arrays[name_of(key)] = [list(array.shape), str(array.dtype)]
    sizes = zip(array.shape, array.storage.chunk_shape, strict=True)
    stored, expected = chunks.get(array.name, 0), math.prod(-(-size // chunk) for size, chunk in sizes)
    if stored != expected:
      raise FileNotFoundError(f'{path}: {array.name} has {stored} of its {expected} chunks')
  return arrays


def check_stored(path, arrays):
  """Raise RuntimeError if the arrays in a folder are not those that were saved (`arrays` of the manifest)."""
  expected, stored = {name: entry[:2] for name, entry in arrays.items()}, stored_arrays(path)
  for name in sorted(expected.keys() | stored.keys()):
    if expected.get(name) != stored.get(name):
      raise RuntimeError(f'{path}: {name} was saved as {expected.get(name, "absent")}, but is '
                         f'{stored.get(name, "absent")} there')


def name_of(key_path):
  """Return the name of an array in manifests and messages, 'params/h/ln_1/g'."""
  return jax.tree_util.keystr(key_path, simple=True, separator='/')


def _chunks(path, folder):
  """{Orbax's name of an array: number of its chunks}; also checks the sizes of the data files.

  Args:
    path: Path or Url of the folder.
    folder: its path for libraries, see `_opened`.
  """
  import tensorstore
  if isinstance(path, Url):
    bucket, _, key = path.key.partition('/')
    driver = orbax_s3.driver(path) if _on_s3(path) else {'driver': 'gcs'}
    store = tensorstore.KvStore.open({**driver, 'bucket': bucket, 'path': f'{key}/'}).result()
    objects = buckets.find(path)
    size_of = lambda name: objects[name].size if name in objects else _raise_missing(path / name)
  else:
    store = tensorstore.KvStore.open({'driver': 'file', 'path': f'{folder}/'}).result()
    size_of = lambda name: (folder / name).stat().st_size
  counts, sizes = {}, {}
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
          sizes[file] = size_of(file)
        if sizes[file] < int(offset) + int(length):
          raise FileNotFoundError(f'{path / file} ends before {name}')
      counts[name] = counts.get(name, 0) + (chunk != '.zarray')
  manifest = tensorstore.ocdbt.dump(store).result()
  visit(manifest['versions'][-1]['root']['location'], b'')
  return counts


def _raise_missing(file):
  raise FileNotFoundError(f'{file} is missing')
