"""Writes the files of a corpus: append-only, and truncated to the last commit after a kill.

Data after the last commit is discarded: the next process truncates each file to its committed length and
resumes from the committed position.
"""

import hashlib
import json

from gptjax.errors import InputError
from gptjax.storage.files import access, atomic, local, paths, records

STATE = 'progress.json'


def load_state(folder):
  """Return the last committed state, a dict; None if there is none."""
  path = folder / STATE
  try:
    return records.read(path) if access.is_file(path) else None
  except InputError:
    raise InputError(f'{path} is damaged: remove {folder} and start again') from None


def save_state(folder, state):
  """Commit the state (JSON); call it after the files that it describes are synced."""
  atomic.write(folder / STATE, json.dumps(records.add_checksum(state), sort_keys=True))


def hash_files(paths, on_bytes):
  """Return the SHA-256 (hex) of the concatenated files, and a list of the SHA-256 of each file.

  Args:
    paths: files of any size.
    on_bytes: called with the number of bytes of each chunk.
  """
  total, digests = hashlib.sha256(), []
  for path in paths:
    digest = hashlib.sha256()
    for chunk in local.chunks(path):
      total.update(chunk)
      digest.update(chunk)
      on_bytes(len(chunk))
    digests.append(digest.hexdigest())
  return total.hexdigest(), digests


class SplitWriter:
  """Writes the shards and the document index of one split."""

  @staticmethod
  def empty():
    """Return the state of an empty split."""
    return {'tokens': 0, 'documents': 0, 'bytes': 0, 'shards': []}

  def __init__(self, folder, name, dtype, shard_tokens, state):
    """Resume from a committed `state`; a shard has `shard_tokens` ids of `dtype`."""
    self._folder, self._name, self._shard_tokens = folder, name, shard_tokens
    self._dtype = dtype
    self.state = state
    self._index = local.AppendOnlyFile(folder / f'{name}-documents.bin', 8 * state['documents'])
    self._open_shard()

  def _open_shard(self):
    number = len(self.state['shards'])
    self._tokens = self.state['tokens'] - self._shard_tokens * number
    path = self._folder / f'{self._name}-{number:05d}.bin'
    self._shard = local.AppendOnlyFile(path, self._tokens * self._dtype.itemsize)

  def add(self, tokens, starts, n_bytes):
    """Append documents.

    Args:
      tokens: ids, an array of the split's dtype.
      starts: uint64 array: positions in `tokens` at which documents start.
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
    """Sync the files to disk, so that `state` can be committed."""
    self._shard.sync()
    self._index.sync()

  def close(self):
    """Close the files without completing them."""
    self._shard.close()
    self._index.close()

  def complete(self, on_bytes):
    """Rename all files to their final names and hash them; `on_bytes` as for `hash_files`.

    Returns:
      The split's entry in the manifest, None if it is empty. Its `sha256` is that of the token stream, the
      concatenated shards, so it does not depend on the shard size.
    """
    self._complete_shard()
    self._index.complete()
    if not self.state['documents']:
      return None
    shards, index = self.state['shards'], self._index.path
    stream, digests = hash_files([paths.below(self._folder, shard['file']) for shard in shards], on_bytes)
    return {**self.state, 'sha256': stream,
            'index': {'file': index.name, 'sha256': hash_files([index], on_bytes)[0]},
            'shards': [{**shard, 'sha256': digest} for shard, digest in zip(shards, digests, strict=True)]}
