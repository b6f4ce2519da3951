"""Folders that hold programs: whoever can write to one decides what is run from it.

JAX keeps compiled programs as native code and loads them without any check of where they come from.
"""

import contextlib
import grp
import os
import pwd
import stat
from pathlib import Path

from gptjax.errors import InputError
from gptjax.files import atomic


def make(folder, name, instead):
  """Creates a folder for this user alone, or makes sure that one which is there is of that kind.

  Args:
    folder: path.
    name: how a message calls it: 'config.compilation_cache', say.
    instead: what to do without it, the end of a message.

  Raises:
    InputError: another user owns it, or can write to it.
    OSError: it cannot be created, or its state cannot be read.
  """
  folder = Path(folder)
  if not folder.exists():
    atomic.make_folders(folder.parent)
    with contextlib.suppress(FileExistsError):  # by another process of the run
      folder.mkdir(0o700)
      atomic.sync(folder.parent)
  require(folder, name, instead)


def require(folder, name, instead):
  """As `make` for a folder that is there."""
  found = os.stat(folder)
  if found.st_uid not in (0, os.geteuid()):
    raise InputError(f'{name} = {str(folder)!r} belongs to {_user(found.st_uid)}, who could put programs '
                     f'there: name a folder of your own, or {instead}')
  others = stat.S_IWOTH if _own_group(found) else stat.S_IWOTH | stat.S_IWGRP
  if found.st_mode & others:
    raise InputError(f'{name} = {str(folder)!r} can be written by others, who could put programs there: '
                     f'`chmod go-w` it if you trust what it holds, else name another folder, or {instead}')


def _user(number):
  try:
    return f'the user {pwd.getpwuid(number).pw_name}'
  except KeyError:
    return f'the user {number}'


def _own_group(found):
  """Whether the group of a folder is that of its owner alone, as Debian and Fedora give each user one."""
  try:
    user, group = pwd.getpwuid(found.st_uid), grp.getgrgid(found.st_gid)
  except KeyError:
    return False
  return group.gr_name == user.pw_name and user.pw_gid == group.gr_gid and set(group.gr_mem) <= {user.pw_name}
