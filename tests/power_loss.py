"""A disk that keeps only what was synced: what a power loss at a moment leaves.

`Disk` watches the calls of this process that sync, rename and delete, takes a copy of each file as it is synced
and of each folder's entries, and can build the folder that would be there if the power failed at that moment.
Of what is not synced, the worst is taken: a new file or name is lost, a deletion has happened. What a native
library syncs is not seen, so it counts only once Python has synced it too.
"""

import os
import stat
from pathlib import Path


class Disk:
  """Args: folder: what lies below it is watched. before_loss: called before each rename and deletion there."""

  def __init__(self, folder, monkeypatch, before_loss=None):
    self.folder, self.files, self.entries = Path(folder), {}, {}
    self.before_loss = before_loss or (lambda call, path: None)
    self.busy = False
    for parent, _, names in os.walk(folder):  # what was there before is on disk
      for name in names:
        self._keep(os.stat(os.path.join(parent, name)), os.path.join(parent, name))
      self._keep(os.stat(parent), parent)
    own_fsync = os.fsync
    def fsync(descriptor):
      own_fsync(descriptor)
      self._keep(os.fstat(descriptor), f'/proc/self/fd/{descriptor}')
    monkeypatch.setattr(os, 'fsync', fsync)
    for name in ('replace', 'rename', 'unlink', 'rmdir', 'remove'):
      monkeypatch.setattr(os, name, self._watched(name, getattr(os, name)))

  def _watched(self, name, call):
    def watched(path, *args, **kwargs):
      descriptor = kwargs.get('dir_fd')  # as rmtree deletes
      full = os.path.join(os.readlink(f'/proc/self/fd/{descriptor}') if descriptor else '', os.fspath(path))
      if Path(full).absolute().is_relative_to(self.folder) and not self.busy:
        self.busy = True
        try:
          self.before_loss(name, Path(full))
        finally:
          self.busy = False
      return call(path, *args, **kwargs)
    return watched

  def _keep(self, status, path):
    if stat.S_ISDIR(status.st_mode):
      self.entries[status.st_ino] = {name: os.stat(os.path.join(path, name)).st_ino for name in os.listdir(path)
                                     if os.path.exists(os.path.join(path, name))}
    else:
      with open(path, 'rb') as file:
        self.files[status.st_ino] = file.read()

  def after_loss(self, into):
    """Builds in a new folder what would be left of the watched one."""
    into = Path(into)
    into.mkdir()
    self._build(self.folder, os.stat(self.folder).st_ino, into)
    return into

  def _build(self, now, number, into):
    for name, entry in self.entries.get(number, {}).items():
      if not os.path.lexists(now / name):
        continue  # deleted or renamed, and that has reached the disk first
      if entry in self.files:
        (into / name).write_bytes(self.files[entry])
      elif (now / name).is_dir():
        (into / name).mkdir()
        self._build(now / name, entry, into / name)
      else:
        (into / name).touch()  # the name was synced, the content never
