"""The files of other projects: found by names in one folder, here or in a bucket."""

import fnmatch
from pathlib import Path
from typing import NamedTuple

from gptjax.data.corpus import corpus_manifest
from gptjax.errors import InputError
from gptjax.storage.files import access, buckets, cache, local, paths
from gptjax.storage.files.paths import Url

PATTERN = set('*?[')


class File(NamedTuple):
  """A file.

  path: Path or Url.
  size: bytes.
  """
  path: Path | Url
  size: int

  @property
  def name(self):
    return self.path.name

  def head(self, n_bytes):
    """Return the first bytes, or all of a shorter file."""
    n_bytes = min(n_bytes, self.size)
    if isinstance(self.path, Url):
      return buckets.read_ranges(self.path, [(0, n_bytes)])[0] if n_bytes else b''
    with local.opened(self.path) as file:
      return file.read(n_bytes)

  def chunks(self):
    """Yield all bytes in chunks, each but the last of a multiple of 64 bytes."""
    if isinstance(self.path, Url):
      yield from buckets.chunks(self.path, self.size)
    else:
      yield from local.chunks(self.path)

  def beside(self, name):
    """Return the File of another name in the same folder, or None."""
    path = self.path.parent / name
    size = _size(path)
    return None if size is None else File(path, size)

  def required(self, name, what):
    """Like `beside`; InputError if there is none. `what` says what it is for."""
    if (file := self.beside(name)) is None:
      raise InputError(f'{self.path.parent / name} is missing, which has {what} of {self.name}: copy it too')
    return file

  def items(self, dtype, count, offset=0):
    """Return `count` items from byte `offset` on, memory-mapped; what is in a bucket is copied first."""
    return local.mapped(cache.local_file(self.path), dtype, count, offset)


def find(where, names):
  """Return (folder, [File sorted by name]).

  Args:
    where: a folder, a file (maybe without the ending in `names`), or a pattern of file names in a folder;
      here or in a bucket.
    names: patterns of the names of files, if `where` is a folder.

  Raises:
    InputError: there are no such files; one of them is a link to a file outside the folder.
  """
  parent, slash, last = where.rstrip('/').rpartition('/')
  if PATTERN & set(parent):
    raise InputError(f'{where} is a pattern of folders, and the files of a corpus are in one folder: give a '
                     'folder, or a pattern of the names in it')
  if PATTERN & set(last):
    folder, names = paths.location(parent if parent else slash or '.'), (last,)
  else:
    folder = paths.location(where)
    others = [folder.parent / f'{folder.name}{name[1:]}' for name in names if name.startswith('*.')]
    if _size(folder) is None and not access.is_folder(folder):  # Megatron-LM's own flags omit the ending
      folder = next((path for path in others if _size(path) is not None), folder)
    if _size(folder) is not None:
      folder, names = folder.parent, (folder.name.translate({ord(c): f'[{c}]' for c in PATTERN}),)
  if not access.is_folder(folder):
    raise InputError(f'{where} does not exist: give a folder, a file, or a pattern of file names in a folder')
  found = [File(folder / name, size) for name, size in _sizes(folder, names)]
  if not found:
    raise InputError(f'{folder} has no file {" or ".join(names)}: give the files by a pattern')
  for file in found:
    if not corpus_manifest.is_plain(file.name):
      raise InputError(f'{folder} has a file whose name has a control character or is not Unicode, '
                       f'{file.name!a}: rename it')
    if isinstance(folder, Path) and not file.path.resolve().is_relative_to(folder.resolve()):
      raise InputError(f'{file.path} is a link to a file outside its folder, which may change there without '
                       'notice: replace the link by the file')
  return folder, found


def _sizes(folder, names):
  """Yield (name, size) of the files in a folder whose name matches one of the patterns, sorted."""
  matches = lambda name: any(fnmatch.fnmatchcase(name, pattern) for pattern in names)
  if isinstance(folder, Url):
    yield from ((name, entry.size) for name, entry in buckets.find(folder).items()
                if '/' not in name and matches(name))
    return
  for name in filter(matches, access.names(folder)):
    if access.is_file(folder / name):
      yield name, local.size(folder / name)


def _size(path):
  """Return the size of a file; None if there is none."""
  if isinstance(path, Url):
    entry = buckets.entry(path)
    return entry and entry.size
  return local.size(path) if access.is_file(path) else None
