"""Files and folders that are there whole or not at all, after a kill, a crash or a power loss.

A rename is atomic, but it reaches the disk when the folder is synced, and the content of a file when the file
is. So whatever replaces something older is written in this order: its files, its folders, its name; what it
replaces is deleted last.

A folder may come from a stranger, and a symbolic link in it may lead anywhere: nothing is written through
one. What is to replace a file is a new one with a name that nobody can foresee, and files that grow are
opened by `no_follow`.
"""

import contextlib
import errno
import os
import re
import secrets
import shutil
from pathlib import Path

from gptjax.errors import InputError

LEFTOVER = re.compile(r'(.+)\.[0-9a-f]{8}\.new')  # what `new_name` gives


def no_follow(path, flags):
  """An `opener` for `open`, which refuses a symbolic link (InputError)."""
  try:
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)
  except OSError as error:
    if error.errno != errno.ELOOP:
      raise
    raise InputError(f'{path} is a symbolic link, and nothing is written through one: remove it') from None


def new_name(path):
  """A path beside this one for what is to replace it."""
  path = Path(path)
  return path.with_name(f'{path.name}.{secrets.token_hex(4)}.new')


def remove_leftovers(folder, name=None):
  """Removes what processes that were killed have left in a folder under a `new_name`.

  Args:
    folder: one that no other process writes to.
    name: only what was to replace this; None: all.
  """
  for path in Path(folder).iterdir():
    found = LEFTOVER.fullmatch(path.name)
    if found and name in (None, found[1]):
      remove(path)


def remove(path):
  """Removes a file, a symbolic link or a folder, as far as it is there and that can be done."""
  path = Path(path)
  with contextlib.suppress(OSError):
    if path.is_dir() and not path.is_symlink():
      shutil.rmtree(path)
    else:
      path.unlink()


def write(path, content):
  """Writes or replaces a file: readers see the old one or the new one, and the new one is on disk.

  Args:
    path: of the file.
    content: str, written as UTF-8, or bytes.
  """
  with replacing(path) as file:
    file.write(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def replacing(path):
  """A new binary file, which becomes `path` at the end of the block, or is removed if that raises."""
  fresh = new_name(path)
  try:
    file = open(fresh, 'xb', opener=no_follow)
  except OSError as error:
    error.filename = str(path)  # the name that a user knows
    raise
  try:
    with file:
      yield file
      file.flush()
      os.fsync(file.fileno())
    rename(fresh, path)
  except BaseException:
    remove(fresh)
    raise


def rename(old, new):
  """Renames a synced file or folder, and syncs the new name; replaces a file of that name."""
  os.replace(old, new)
  sync(Path(new).parent)


def sync(path):
  """Waits until the content of a file, or the entries of a folder, are on disk."""
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  except OSError as error:
    # SMB and some FUSE mounts have no sync for folders; their servers keep the order of renames.
    if error.errno not in (errno.EINVAL, errno.ENOTSUP) or not os.path.isdir(path):
      raise
  finally:
    os.close(descriptor)


def sync_tree(folder):
  """Syncs all files below a folder, then the folders from the innermost to this one."""
  for parent, _, files in os.walk(folder, topdown=False):
    for name in files:
      sync(os.path.join(parent, name))
    sync(parent)


def make_folders(path):
  """Makes a folder and its parents, where they are missing, and syncs their names."""
  path = Path(path).absolute()
  missing = [folder for folder in (path, *path.parents) if not folder.exists()]
  path.mkdir(parents=True, exist_ok=True)
  for folder in missing:
    sync(folder.parent)


def remove_tree(folder):
  """Deletes a folder that others vouch for, as `NAME.deleting`: half a deletion must not look like damage."""
  doomed = Path(f'{folder}.deleting')
  remove(doomed)  # half deleted by a process that was killed
  rename(folder, doomed)
  shutil.rmtree(doomed)
