"""The file system that etils uses for `gs://` and `s3://`, through which Orbax reads and writes small files.

It is `buckets`, which repeats requests, as for all other files of a run. That of etils does not, so an outage
in the middle of a save would fail the save. It also keeps lists, and on S3 it looks for the bucket, to create
it, when a folder is made. With TensorFlow installed, etils would use its file system, which rewrites a whole
object at each flush.
"""

import fnmatch
import functools
import io
import os

from etils.epath import backend, gpath
from etils.epath.stat_utils import StatResult

from gptjax.storage.files import buckets
from gptjax.storage.files.paths import BUCKETS, Url, split_url


@functools.cache
def use():
  """Let etils use this file system for buckets, from now on in this process."""
  gpath._is_tf_installed = lambda: False
  gpath._PREFIX_TO_BACKEND.update(dict.fromkeys(BUCKETS, _Files()))


def _url(path):
  """The Url of a path of etils, or of a pattern."""
  return Url(*split_url(os.fspath(path)))


class _Object(io.BytesIO):
  """A new object, which is put when it is closed."""

  def __init__(self, url):
    super().__init__()
    self.url = url

  def close(self):
    if not self.closed:
      buckets.put(self.url, self.getvalue())
    super().close()


class _Files(backend.Backend):
  """What Orbax needs of a file system of etils. A folder exists while it contains objects."""

  def open(self, path, mode):
    if mode not in ('r', 'rb', 'w', 'wb'):
      raise io.UnsupportedOperation(f'{path}: an object cannot be opened with the mode {mode!r}')
    file = _Object(_url(path)) if 'w' in mode else io.BytesIO(buckets.read(_url(path)))
    return file if 'b' in mode else io.TextIOWrapper(file, encoding='utf-8')

  def exists(self, path):
    return buckets.entry(_url(path)) is not None or self.isdir(path)

  def isdir(self, path):
    return bool(buckets.names(_url(path)))

  def listdir(self, path):
    return buckets.names(_url(path))

  def glob(self, path):
    folder, _, pattern = os.fspath(path).rpartition('/')
    return [f'{folder}/{name}' for name in fnmatch.filter(self.listdir(folder), pattern)]

  def mkdir(self, path, *, exist_ok=False, mode=None):
    if not exist_ok and self.exists(path):
      raise FileExistsError(f'{path} exists')

  makedirs = mkdir

  def rmtree(self, path):
    buckets.remove_tree(_url(path))

  def remove(self, path):
    buckets.remove(_url(path))

  def stat(self, path):
    found = buckets.entry(_url(path))
    if found is None and not self.isdir(path):
      raise FileNotFoundError(f'{path} is missing')
    return StatResult(is_directory=found is None, length=found.size if found else 0, mtime=0)

  def _unsupported(self, path, *arguments, **named):
    raise io.UnsupportedOperation(f'{path}: not possible in a bucket')

  walk = rename = replace = copy = _unsupported
