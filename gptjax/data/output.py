"""The files that `prepare` writes, and the commits of its progress."""

import collections
import time

import numpy as np

from gptjax.data import blocks, encode
from gptjax.data import progress as progress_bar
from gptjax.data.corpus import shards
from gptjax.data.sources import documents
from gptjax.errors import InputError
from gptjax.storage.files import local

SKIPPED = 'skipped.txt'  # lists the documents that were skipped because of a problem


def token_dtype(state):
  """Return the NumPy dtype of the token ids in the shards."""
  return np.dtype('<u2' if state['tokenizer']['n_vocab'] <= 1 << 16 else '<u4')


class Output:
  """The files of a corpus, and the part of the state that describes them."""

  def __init__(self, job, state):
    self._state, self._stop = state, job.reading.stop_on_error
    self._splits = [shards.SplitWriter(job.out, name, token_dtype(state), job.shard_tokens,
                                       state['splits'][name]) for name in encode.SPLITS]
    self._skipped = local.AppendOnlyFile(job.out / SKIPPED, state['skipped_bytes'])

  def add(self, block, encoded, n_empty, failures):
    """Append an encoded block (see `encode.make_encoder`) and count its documents that were skipped."""
    for location, problem in failures[:self._stop]:
      raise InputError(blocks.unusable_document_message(location, problem))
    for split, part in zip(self._splits, encoded, strict=True):
      split.add(*part)
    messages = [*block.messages, *(f'{location}: {problem}\n' for location, problem in failures)]
    self._skipped.write(''.join(messages).encode(errors='backslashreplace'))
    counts = collections.Counter(self._state['skipped']) + block.skipped
    failed = len({location for location, _ in failures})
    counts += collections.Counter({'no tokens': n_empty, encode.ENCODE_FAILED: failed})
    self._state.update(position=block.position, skipped=dict(counts),
                       skipped_bytes=self._skipped.length)

  def sync(self):
    for file in (*self._splits, self._skipped):
      file.sync()

  def close(self):
    for file in (*self._splits, self._skipped):
      file.close()

  def complete(self, on_bytes):
    self._skipped.complete()
    entries = {name: split.complete(on_bytes)
               for name, split in zip(encode.SPLITS, self._splits, strict=True)}
    return {name: entry for name, entry in entries.items() if entry}


class Progress:
  """A progress bar and periodic commits.

  Args:
    job: prepare.Job.
    state: of the corpus, which a commit saves.
    files: an Output or duplicates.FeatureColumns, which a commit syncs first.
    name: of the bar.
    position: blocks.Position at which the work starts.
  """

  def __init__(self, job, state, files, name, position):
    self._job, self._state, self._files = job, state, files
    units = job.reading.units
    sizes = [unit.size or 0 for unit in units]
    expected = sum(sizes) if all(map(documents.is_uncompressed, units)) else 0
    self._bar = progress_bar.ProgressBar(name, sizes, expected, position.unit,
                                         sum(split['bytes'] for split in self._splits()), job.progress)
    self._committed = time.monotonic()

  def _splits(self):
    return self._state.get('splits', {}).values()

  def __enter__(self):
    return self

  def __exit__(self, *error):
    self._bar.close()

  def update(self, n_bytes, position):
    """Add a block of `n_bytes` of text; commit if the last commit is old enough."""
    tokens = sum(split['tokens'] for split in self._splits())
    self._bar.update(n_bytes, position.unit,
                     f'{tokens / 1e6:.1f} M tokens' if tokens else f'{position.documents:,} documents')
    if time.monotonic() - self._committed >= self._job.commit_seconds:
      self._files.sync()
      shards.save_state(self._job.out, self._state)
      if self._job.uploader:
        self._job.uploader.offer(self._state.get('splits', {}))
      self._committed = time.monotonic()
