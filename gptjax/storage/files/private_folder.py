"""Folders of compiled programs, which no other user may write to.

JAX caches compiled programs as native code and loads them without checking their origin.
"""

import contextlib
import grp
import os
import pwd
import stat
from pathlib import Path

from gptjax.errors import InputError
from gptjax.storage.files import atomic


def make(folder, name, instead):
  """Create a folder for this user alone, or check an existing folder.

  Args:
    folder: path.
    name: its name in messages, 'config.compilation_cache' for example.
    instead: end of a message: how to do without the folder.

  Raises:
    InputError: another user owns it, or can write to it.
    OSError: it cannot be created or inspected.
  """
  folder = Path(folder)
  if not folder.exists():
    atomic.make_folders(folder.parent)
    with contextlib.suppress(FileExistsError):  # by another process of the run
      folder.mkdir(0o700)
      atomic.sync(folder.parent)
  require(folder, name, instead)


def require(folder, name, instead):
  """Like `make` for an existing folder."""
  status = os.stat(folder)
  if status.st_uid not in (0, os.geteuid()):
    raise InputError(f'{name} = {str(folder)!r} belongs to {_user(status.st_uid)}, who could put programs '
                     f'there: use a folder of your own, or {instead}')
  others = stat.S_IWOTH if _own_group(status) else stat.S_IWOTH | stat.S_IWGRP
  if status.st_mode & others:
    raise InputError(f'{name} = {str(folder)!r} can be written by others, who could put programs there: '
                     f'`chmod go-w` it if you trust its content, else use another folder, or {instead}')


def _user(number):
  try:
    return f'the user {pwd.getpwuid(number).pw_name}'
  except KeyError:
    return f'the user {number}'


def _own_group(status):
  """Whether the group of a folder has only its owner, the default of Debian and Fedora."""
  try:
    user, group = pwd.getpwuid(status.st_uid), grp.getgrgid(status.st_gid)
  except KeyError:
    return False
  return group.gr_name == user.pw_name and user.pw_gid == group.gr_gid and set(group.gr_mem) <= {user.pw_name}
