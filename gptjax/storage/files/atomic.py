"""Atomic writes of files and folders, which survive a kill, a crash or a power loss.

A rename is atomic, but it is durable only after a sync of the folder, and the content of a file only after a
sync of the file. So a replacement is synced in this order: its files, its folders, its name; the old version
is deleted last.

A folder may be untrusted, and a symbolic link in it may point anywhere, so nothing is written through links:
a replacement is written to a new file with an unpredictable name, and files that grow are opened by
`no_follow`.
"""

import contextlib
import errno
import os
import re
import secrets
import shutil
from pathlib import Path

from gptjax.errors import InputError

LEFTOVER = re.compile(r'(.+)\.[0-9a-f]{8}\.new')  # results of `new_name`


def no_follow(path, flags):
  """An `opener` for `open` that refuses symbolic links (InputError)."""
  try:
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)
  except OSError as error:
    if error.errno != errno.ELOOP:
      raise
    raise InputError(f'{path} is a symbolic link, and nothing is written through one: remove it') from None


def new_name(path):
  """Return a path in the same folder for the replacement of a file."""
  path = Path(path)
  return path.with_name(f'{path.name}.{secrets.token_hex(4)}.new')


def remove_leftovers(folder, name=None):
  """Remove files with a `new_name` that killed processes have left in a folder.

  Args:
    folder: a folder that no other process writes to.
    name: remove only replacements of this file; None: all.
  """
  for path in Path(folder).iterdir():
    match = LEFTOVER.fullmatch(path.name)
    if match and name in (None, match[1]):
      remove(path)


def remove(path):
  """Remove a file, a symbolic link or a folder; errors are ignored."""
  path = Path(path)
  with contextlib.suppress(OSError):
    if path.is_dir() and not path.is_symlink():
      shutil.rmtree(path)
    else:
      path.unlink()


def write(path, content):
  """Write or replace a file atomically and durably: readers see either the old or the new content.

  Args:
    path: of the file.
    content: str, written as UTF-8, or bytes.
  """
  with replacing(path) as file:
    file.write(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def replacing(path, sync_name=True):
  """Context manager of a new binary file that replaces `path` at the end; removed if the block raises.

  With `sync_name=False` the file is durable once its folder is synced, as by writing another file there.

  Raises:
    InputError: the path leads to a device, a pipe or a socket, whose name would become that of a file: as
      root, /dev/null of the whole machine.
  """
  if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
    raise InputError(f'{path} is a device, a pipe or a socket, which a file would replace: give another path')
  new = new_name(path)
  try:
    file = open(new, 'xb', opener=no_follow)
  except OSError as error:
    error.filename = str(path)  # the name that a user knows
    raise
  try:
    with file:
      yield file
      file.flush()
      os.fsync(file.fileno())
    os.replace(new, path)
    if sync_name:
      sync(Path(path).parent)
  except BaseException:
    remove(new)
    raise


def rename(old, new):
  """Rename a synced file or folder, replacing a file of the new name, and sync the new name."""
  os.replace(old, new)
  sync(Path(new).parent)


def sync(path):
  """Wait until the content of a file, or the entries of a folder, are on disk."""
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
  """Sync all files below a folder, then the folders from the innermost to this one."""
  for parent, _, files in os.walk(folder, topdown=False):
    for name in files:
      sync(os.path.join(parent, name))
    sync(parent)


def make_folders(path):
  """Create a folder and its missing parents, and sync their names."""
  path = Path(path).absolute()
  missing = [folder for folder in (path, *path.parents) if not folder.exists()]
  path.mkdir(parents=True, exist_ok=True)
  for folder in missing:
    sync(folder.parent)


def move_aside(path, word):
  """Rename a folder to the first free name of `NAME.word`, `NAME.word-2`, ...; returns the new path."""
  number = 1
  while (new := path.with_name(f'{path.name}.{word}' + (f'-{number}' if number > 1 else ''))).exists():
    number += 1
  return path.rename(new)


def remove_tree(folder):
  """Delete a folder under the name `NAME.deleting`, so that an interruption does not look like damage."""
  deleting = Path(f'{folder}.deleting')
  remove(deleting)  # from an interrupted deletion
  rename(folder, deleting)
  shutil.rmtree(deleting)
