"""Files and folders that are there whole or not at all, after a kill, a crash or a power loss.

A rename is atomic, but it reaches the disk when the folder is synced, and the content of a file when the file
is. So whatever replaces something older is written in this order: its files, its folders, its name; what it
replaces is deleted last.
"""

import errno
import os
import shutil
from pathlib import Path


def write(path, content):
  """Writes or replaces a file: readers see the old one or the new one, and the new one is on disk.

  Args:
    path: of the file.
    content: str, written as UTF-8, or bytes.
  """
  path = Path(path)
  fresh = path.with_name(path.name + '.new')
  with open(fresh, 'wb') as file:
    file.write(content.encode() if isinstance(content, str) else content)
    file.flush()
    os.fsync(file.fileno())
  rename(fresh, path)


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
  shutil.rmtree(doomed, ignore_errors=True)  # half deleted by a process that was killed
  rename(folder, doomed)
  shutil.rmtree(doomed)
