"""Reads the files of a split once: digests, ids, bytes of text, and document starts.

The memory does not grow with the files: a chunk of a file and some blocks of ids are in memory, and the
starts are written as they are found.
"""

import collections
import concurrent.futures
import contextlib
import hashlib
from typing import NamedTuple

import numpy as np

from gptjax.data.corpus import local_shards, tree
from gptjax.errors import InputError

WORKERS = 4   # threads that hash
WAITING = 8   # blocks of ids that wait to be hashed
NO_MARK_AFTER = 1 << 26  # tokens without a mark of a document after which the files are refused


class Split(NamedTuple):
  """The files of a split.

  name: 'train' or 'validation'.
  files: [files.File].
  layouts: [Layout] of each.
  begins_within: its first token is inside a document.
  """
  name: str
  files: list
  layouts: list
  begins_within: bool = False

  @property
  def n_tokens(self):
    return sum(layout.n_tokens for layout in self.layouts)


class Mark(NamedTuple):
  """The token by which documents are found.

  token: id.
  is_first: it is the first token of a document; else it is the last one.
  """
  token: int
  is_first: bool = False

  @property
  def name(self):
    return 'begin-of-text' if self.is_first else 'end-of-text'


class Vocabulary(NamedTuple):
  """What is needed of the tokenizer.

  name, n_vocab: for messages.
  mark: Mark, or None: no token marks the documents.
  n_bytes: int64[n_vocab], the bytes of the text of each id.
  per_document: bytes to add for each document.
  """
  name: str
  n_vocab: int
  mark: Mark | None
  n_bytes: np.ndarray
  per_document: int


def after_first_mark(split, mark):
  """Return a Split whose first document is whole, or which says that it begins within one.

  Args:
    split: Split of files in which a mark precedes each document.
    mark: Mark; if it ends documents, one at the very beginning is not part of the Split.

  Raises:
    InputError: the mark is the only token of the first file.
  """
  file, layout = split.files[0], split.layouts[0]
  first = file.head(layout.offset + layout.dtype.itemsize)[layout.offset:]
  if int(np.frombuffer(first, layout.dtype)[0]) != mark.token:
    return split._replace(begins_within=True)
  if mark.is_first:
    return split
  if layout.n_tokens == 1:
    raise InputError(f'{file.path} has no token but end-of-text: remove it')
  rest = layout._replace(offset=layout.offset + layout.dtype.itemsize, n_tokens=layout.n_tokens - 1)
  return split._replace(layouts=[rest, *split.layouts[1:]])


def scan(split, format_, vocabulary, index, on_bytes):
  """Read a split; returns (its entry in a manifest without `index`, SHA-256 of `index`, number of marks).

  Args:
    split: Split.
    format_: the Format of its files.
    vocabulary: Vocabulary.
    index: open binary file, to which the first token of each document is written.
    on_bytes: called with the number of bytes of each chunk.

  Raises:
    InputError: an id that is no entry of the tokenizer; an index that is not sorted.
  """
  starts, tokens, shards = _Starts(index, split.n_tokens), _Tokens(vocabulary), []
  if format_.starts is None:
    starts.add(np.zeros(1, np.int64))
  with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool, contextlib.closing(_Blocks(
      pool, vocabulary.n_vocab)) as blocks:
    for file, layout in zip(split.files, split.layouts, strict=True):
      first = tokens.count
      sha256 = _read(file, layout, tokens, blocks, pool, on_bytes,
                     starts if format_.starts is None else None)
      shards.append({'file': file.name, 'tokens': layout.n_tokens, 'sha256': sha256})
      shards[-1] |= {'offset': layout.offset} if layout.offset else {}
      for part in format_.starts(file, layout) if format_.starts else ():
        starts.add(part + first, file, first, tokens.count)
    digest = blocks.digest()
  entry = {'tokens': tokens.count, 'documents': starts.count, 'sha256': digest, 'shards': shards,
           'bytes': max(0, tokens.n_bytes() + vocabulary.per_document * starts.count)}
  entry |= {'begins_within_document': True} if split.begins_within else {}
  return entry, starts.sha256.hexdigest(), tokens.n_marks


def _read(file, layout, tokens, blocks, pool, on_bytes, starts):
  """Read a file; returns its SHA-256."""
  sha256, seen, first = hashlib.sha256(), 0, tokens.count
  for chunk in file.chunks():
    hashed = pool.submit(sha256.update, chunk)
    ids = np.frombuffer(chunk, np.uint8)[max(0, layout.offset - seen):]
    seen += len(chunk)
    ids = ids[:len(ids) // layout.dtype.itemsize * layout.dtype.itemsize].view(layout.dtype)
    found = tokens.add(ids, file, layout, first)
    if starts is not None:
      starts.add(found)
    blocks.add(ids)
    hashed.result()
    on_bytes(len(chunk))
  if seen != file.size or tokens.count - first != layout.n_tokens:
    raise InputError(f'{file.path} has changed while it was read, from {file.size:,} to {seen:,} bytes: run '
                     'the same command again when nothing writes to it')
  return sha256.hexdigest()


class _Tokens:
  """Counts ids, and checks them."""

  def __init__(self, vocabulary):
    self._vocabulary, self.count, self.n_marks = vocabulary, 0, 0
    self._of_id = np.zeros(vocabulary.n_vocab, np.int64)

  def add(self, ids, file, layout, first):
    """Add ids of a file, which begins at token `first` of the split; returns the starts of documents."""
    vocabulary, mark = self._vocabulary, self._vocabulary.mark
    limit = min(vocabulary.n_vocab, layout.limit or vocabulary.n_vocab)
    if len(ids) and ids.max() >= limit:
      at = int(np.argmax(ids >= limit))
      raise InputError(f'{file.path} has the id {ids[at]} at token {self.count - first + at:,}, but the '
                       f'tokenizer {vocabulary.name} has {limit:,} entries: give the tokenizer, and the '
                       'dtype, with which the file was written')
    marks = np.flatnonzero(ids == mark.token) if mark else np.empty(0, np.int64)
    starts = marks + (self.count if mark and mark.is_first else self.count + 1)
    self._of_id += np.bincount(ids, minlength=vocabulary.n_vocab)
    self.n_marks, self.count = self.n_marks + len(marks), self.count + len(ids)
    if mark and not self.n_marks and self.count >= NO_MARK_AFTER:
      raise InputError(no_mark(file.path, self.count, mark))
    return starts

  def n_bytes(self):
    return int(self._of_id @ self._vocabulary.n_bytes)


def no_mark(path, n_tokens, mark):
  """Return the message about tokens among which there is no mark of a document."""
  other = ('a special token by which each document begins as --begin_of_text' if mark.is_first else
           '--begin_of_text=TOKEN if each document begins with a token, or --no_end_of_text if nothing '
           'separates them')
  return (f'{path}: no {mark.name} token ({mark.token}) among the first {n_tokens:,} tokens: give the '
          f'tokenizer with which it was written, or {other}')


class _Starts:
  """Writes the first token of each document."""

  def __init__(self, index, n_tokens):
    self._index, self._n_tokens, self._last = index, n_tokens, -1
    self.count, self.sha256 = 0, hashlib.sha256()

  def add(self, starts, file=None, first=0, stop=None):
    """Write sorted positions; documents without tokens are omitted.

    Args:
      starts: int64[n].
      file, first, stop: if they come from an index, its File, and the tokens of the split that it lists.
    """
    if file and len(starts) and (starts.min() < max(first, self._last) or starts.max() > stop
                                 or (np.diff(starts) < 0).any()
                                 or (self._last < first and starts[0] != first)):
      raise InputError(f'the index of {file.path} is not a sorted list of positions from 0 to its '
                       f'{stop - first:,} tokens: copy it again')
    after = np.append(starts[1:], np.int64(-1))
    starts = starts[(starts != after) & (starts < self._n_tokens)]
    starts = starts[starts != self._last]
    if len(starts):
      content = starts.astype(local_shards.STARTS).tobytes()
      self._index.write(content)
      self.sha256.update(content)
      self.count, self._last = self.count + len(starts), int(starts[-1])


class _Blocks:
  """Hashes the blocks of a stream (see `tree`) in threads."""

  def __init__(self, pool, n_vocab):
    self._pool, self._n_vocab = pool, n_vocab
    self._parts, self._length = [], 0
    self._waiting, self._leaves = collections.deque(), []

  def add(self, ids):
    while len(ids):
      part = ids[:tree.BLOCK_TOKENS - self._length]
      self._parts.append(part)
      self._length += len(part)
      ids = ids[len(part):]
      if self._length == tree.BLOCK_TOKENS:
        self._complete()

  def _complete(self):
    block = np.concatenate(self._parts)
    self._parts, self._length = [], 0
    if len(self._waiting) == WAITING:
      self._leaves.append(self._waiting.popleft().result())
    self._waiting.append(self._pool.submit(tree.leaf, block, self._n_vocab))

  def digest(self):
    """Return the digest of all ids."""
    if self._parts:
      self._complete()
    return tree.root([*self._leaves, *(leaf.result() for leaf in self._waiting)])

  def close(self):
    """Drop what waits, after an error."""
    for leaf in self._waiting:
      leaf.cancel()
