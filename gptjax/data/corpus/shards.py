"""The files of a corpus while it is being written: only ever longer, and cut back after a kill.

What a process has written after its last commit is forgotten: the next one cuts each file to the
length that was committed and goes on from the position that was committed with it.
"""

import hashlib
import json
import os
from pathlib import Path

from gptjax.errors import InputError
from gptjax.files import atomic, paths, records

PARTIAL_SUFFIX = '.part'      # added to a file's name until it is complete
HASH_CHUNK = 1 << 22     # bytes hashed at a time
STATE = 'progress.json'


def load_state(folder):
  """What was last committed to the folder, a dict; None if nothing was."""
  path = folder / STATE
  try:
    return records.read(path) if path.exists() else None
  except InputError:
    raise InputError(f'{path} is damaged: remove {folder} and begin again') from None


def save_state(folder, state):
  """Commits the state (JSON): call it after the files that it speaks of are on disk."""
  atomic.write(folder / STATE, json.dumps(records.add_checksum(state), sort_keys=True))


class AppendOnlyFile:
  """A file that grows by `write`; `length` bytes of it are on disk after `sync`."""

  def __init__(self, path, length):
    """Opens it for what was not written yet, cut to its committed length (0: a new file)."""
    self.path = Path(path)
    self._part = self.path.with_name(self.path.name + PARTIAL_SUFFIX)
    if self.path.exists():  # Killed between its completion and the next commit.
      os.replace(self.path, self._part)
    self._file = open(self._part, 'r+b' if self._part.exists() else 'w+b', opener=atomic.no_follow)
    atomic.sync(self._part.parent)  # what is committed later must not be a name that is not on disk
    size = self._file.seek(0, os.SEEK_END)
    if size < length:
      raise InputError(f'{self._part} has {size:,} bytes, not the {length:,} that were written: '
                       f'remove {self.path.parent} and begin again')
    self._file.truncate(length)
    self._file.seek(length)
    self.length = length

  def write(self, data):
    self._file.write(data)
    self.length += len(data)

  def sync(self):
    self._file.flush()
    os.fsync(self._file.fileno())

  def close(self):
    self._file.close()

  def complete(self):
    """Gives the file its name, which an incomplete one never has; removes an empty one."""
    self.sync()
    self.close()
    if self.length:
      atomic.rename(self._part, self.path)
    else:
      self._part.unlink()


def hash_files(paths, tell):
  """SHA-256 (hex) of the contents of files put together, and a list of that of each.

  Args:
    paths: files of any size.
    tell: called with the number of bytes just read.
  """
  whole, each = hashlib.sha256(), []
  for path in paths:
    alone = hashlib.sha256()
    with open(path, 'rb') as file:
      while chunk := file.read(HASH_CHUNK):
        whole.update(chunk)
        alone.update(chunk)
        tell(len(chunk))
    each.append(alone.hexdigest())
  return whole.hexdigest(), each


class SplitWriter:
  """The shards and the document index of one split."""

  @staticmethod
  def empty():
    """The state of a split of which nothing is written."""
    return {'tokens': 0, 'documents': 0, 'bytes': 0, 'shards': []}

  def __init__(self, folder, name, dtype, shard_tokens, state):
    """Goes on from a committed `state`; ids are of `dtype`, `shard_tokens` of them in a shard."""
    self._folder, self._name, self._shard_tokens = folder, name, shard_tokens
    self._dtype = dtype
    self.state = state
    self._index = AppendOnlyFile(folder / f'{name}-documents.bin', 8 * state['documents'])
    self._open_shard()

  def _open_shard(self):
    number = len(self.state['shards'])
    self._tokens = self.state['tokens'] - self._shard_tokens * number
    path = self._folder / f'{self._name}-{number:05d}.bin'
    self._shard = AppendOnlyFile(path, self._tokens * self._dtype.itemsize)

  def add(self, tokens, starts, n_bytes):
    """Appends documents.

    Args:
      tokens: ids, an array of the split's dtype.
      starts: uint64 array: where in `tokens` a document begins.
      n_bytes: UTF-8 bytes of their text.
    """
    self._index.write((starts + self.state['tokens']).astype('<u8').tobytes())
    self.state['documents'] += len(starts)
    self.state['bytes'] += n_bytes
    while len(tokens):
      fits = tokens[:self._shard_tokens - self._tokens]
      self._shard.write(fits.tobytes())
      self._tokens += len(fits)
      self.state['tokens'] += len(fits)
      tokens = tokens[len(fits):]
      if self._tokens == self._shard_tokens:
        self._complete_shard()
        self._open_shard()

  def _complete_shard(self):
    self._shard.complete()
    if self._tokens:
      self.state['shards'].append({'file': self._shard.path.name, 'tokens': self._tokens})

  def sync(self):
    """Puts on disk what `state` says."""
    self._shard.sync()
    self._index.sync()

  def close(self):
    """Leaves the files as they are, to be opened again."""
    self._shard.close()
    self._index.close()

  def complete(self, tell):
    """Gives all files their names, and hashes them; `tell` as for `hashes`.

    Returns:
      The split's entry in the manifest, None if it is empty. Its `sha256` is that of the token stream,
      the shards put together, so it does not depend on where they are cut.
    """
    self._complete_shard()
    self._index.complete()
    if not self.state['documents']:
      return None
    shards, index = self.state['shards'], self._index.path
    stream, each = hash_files([paths.below(self._folder, shard['file']) for shard in shards], tell)
    return {**self.state, 'sha256': stream,
            'index': {'file': index.name, 'sha256': hash_files([index], tell)[0]},
            'shards': [{**shard, 'sha256': found} for shard, found in zip(shards, each, strict=True)]}
