"""A disk that keeps only what was synced: what a power loss at a moment leaves.

`Disk` watches the calls of this process that sync, rename and delete, takes a copy of each file as it is
synced and of each folder's entries, and can build the folder that would be there if the power failed at that
moment. Of what is not synced, the worst is taken: a new file or name is lost, a deletion has happened. What a
native library syncs is not seen, so it counts only once Python has synced it too.
"""

import os
import stat
from pathlib import Path


class Disk:
  """Args: folder: what lies below it is watched. before: called before each rename and deletion there."""

  def __init__(self, folder, monkeypatch, before):
    self.folder, self.files, self.entries, self.held = Path(folder), {}, {}, []
    self.before, self.busy = before, False
    for parent, _, names in os.walk(folder):  # what was there before is on disk
      for path in (*(os.path.join(parent, name) for name in names), parent):
        self._keep(os.stat(path), path)
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
          self.before(self, Path(full))
        finally:
          self.busy = False
      return call(path, *args, **kwargs)
    return watched

  def _keep(self, status, path):
    self.held.append(os.open(path, os.O_RDONLY))  # else the number of the inode could be used again
    if stat.S_ISDIR(status.st_mode):
      with os.scandir(path) as entries:
        self.entries[status.st_ino] = {entry.name: entry.inode() for entry in entries}
    else:
      with open(path, 'rb') as file:
        self.files[status.st_ino] = file.read()

  def close(self):
    for descriptor in self.held:
      os.close(descriptor)

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
