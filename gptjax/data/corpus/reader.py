"""Reads a corpus: its folder, its token stream, and which windows of it make up each batch.

Nothing here keeps a position: batch s is a pure function of (corpora, weights, seed, s), and row r
of it depends on nothing but these and r. See `order.py` for how a row finds its window, and `windows`
for where the windows of an epoch begin.
"""

import concurrent.futures
import dataclasses
import functools
import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gptjax.command import bars
from gptjax.data.corpus import order
from gptjax.data.corpus.corpus_manifest import read_manifest
from gptjax.errors import InputError
from gptjax.files import paths

IGNORED_TARGET = -1  # a target that is not counted in the loss
HASH_CHUNK = 1 << 22  # bytes hashed at a time


class MissingSplit(InputError):
  """The corpus is sound but has no such split."""


@dataclasses.dataclass(frozen=True, eq=False)
class Corpus:
  """One split of a corpus, memory-mapped."""
  folder: str
  split: str
  digest: str        # of what all splits hold, see `corpus_manifest`
  tokenizer: dict    # name, digest, n_vocab, end_of_text
  n_tokens: int
  n_documents: int
  n_bytes: int       # UTF-8 bytes of the documents
  shards: list       # uint16 or uint32 arrays
  shard_offsets: np.ndarray          # int64[len(shards) + 1]: where each shard begins in the token stream
  document_starts: np.ndarray  # int64[n_documents]: where each document begins in the token stream

  def tokens(self, start, stop):
    """int32[stop - start]: tokens [start, stop) of the split's stream."""
    assert 0 <= start <= stop <= self.n_tokens, (start, stop, self.n_tokens)
    out = np.empty(stop - start, np.int32)
    shard = int(np.searchsorted(self.shard_offsets, start, side='right')) - 1
    done = 0
    while done < len(out):
      begin = start + done - int(self.shard_offsets[shard])
      piece = self.shards[shard][begin:begin + len(out) - done]
      out[done:done + len(piece)] = piece
      done += len(piece)
      shard += 1
    return out


def open_corpus(folder, split, *, verify):
  """Opens a split of a corpus that `gptjax.data.prepare` wrote.

  Args:
    folder: path of the corpus.
    split: 'train' or 'validation'.
    verify: read every byte: compare hashes with the manifest and check that all ids are in the
      vocabulary. Otherwise only the manifest and the sizes of the files are checked.

  Raises:
    NoSplit: the corpus has no such split.
    ValueError: the folder or one of its files is absent, damaged or not a corpus.
  """
  root = Path(folder)
  manifest = read_manifest(root)
  if split not in manifest['splits'] or not manifest['splits'][split]['tokens']:
    raise MissingSplit(f'corpus {folder} has no tokens in its split {split!r}, it has '
                       f'{sorted(manifest["splits"])}: prepare it with another validation_fraction or '
                       'from more documents')
  entry, dtype = manifest['splits'][split], np.dtype(manifest['dtype']).newbyteorder('<')
  files = [(shard, dtype, shard['tokens']) for shard in entry['shards']]
  files.append((entry['index'], np.dtype('<u8'), entry['documents']))
  for file, *_ in files:
    path = paths.below(root, file['file'])
    if not verify and not path.resolve().is_relative_to(root.resolve()):
      raise InputError(f'{path} is a link out of the corpus, and its content is not compared with the '
                       'manifest here: put the file itself there')
  *shards, starts = (_map(root / file['file'], of, count) for file, of, count in files)
  # As signed numbers: NumPy would compare unsigned with signed ones as floats, all of them.
  starts = starts.view('<i8')
  borders = np.cumsum([0, *(len(shard) for shard in shards)], dtype=np.int64)
  assert borders[-1] == entry['tokens'], (folder, split)
  if verify:
    _verify(root, files, manifest['tokenizer']['n_vocab'])
    if starts[0] != 0 or starts[-1] >= entry['tokens'] or not (starts[1:] >= starts[:-1]).all():
      raise InputError(f'{root / entry["index"]["file"]} is not a rising list of positions below '
                       f'{entry["tokens"]}: prepare the corpus again')
  return Corpus(str(folder), split, manifest['content'], manifest['tokenizer'], entry['tokens'],
                entry['documents'], entry['bytes'], shards, borders, starts)


def _map(path, dtype, count):
  """The file as a read-only array of `count` items; ValueError if absent or of another size."""
  size = count * dtype.itemsize
  try:
    found = path.stat().st_size
  except FileNotFoundError:
    raise InputError(f'{path} is missing: copy it again, or prepare the corpus again') from None
  if found != size:
    raise InputError(f'{path} has {found:,} bytes, its manifest says {size:,}: copy it again, or '
                     'prepare the corpus again')
  # A plain array over the map: slices of np.memmap itself cost ten times as much.
  return np.asarray(np.memmap(path, dtype, 'r')) if count else np.empty(0, dtype)


def _verify(root, files, n_vocab):
  """ValueError for the first file whose hash differs, or that holds an id of n_vocab or more."""
  def check(file, dtype):
    path, seen, top = root / file['file'], hashlib.sha256(), -1
    with open(path, 'rb') as f:
      while chunk := f.read(HASH_CHUNK):
        seen.update(chunk)
        bar.update(len(chunk))
        top = max(top, int(np.frombuffer(chunk, dtype).max()))
    if seen.hexdigest() != file['sha256']:
      raise InputError(f'{path} is damaged: its SHA-256 is {seen.hexdigest()[:12]}, its manifest '
                       f'says {file["sha256"][:12]}; copy it again, or prepare the corpus again')
    if dtype != np.dtype('<u8') and top >= n_vocab:
      raise InputError(f'{path} holds the token {top}, its tokenizer has {n_vocab}: prepare the '
                       'corpus again')
  size = sum(of.itemsize * count for _, of, count in files)
  bar = bars.bar(desc=f'verifying {root}', total=size, unit='B', unit_scale=True, delay=1, leave=False)
  with bar, concurrent.futures.ThreadPoolExecutor() as pool:
    list(pool.map(lambda file: check(*file[:2]), files))


def n_windows(corpus, seq_len, cross_documents):
  """Windows in the split; see `windows`."""
  if not cross_documents:
    return int(_windows_before(corpus, seq_len)[-1])
  return max(corpus.n_tokens - 1, 0) // seq_len


def window_bounds(corpus, numbers, seq_len, cross_documents, offsets=0):
  """Where windows lie: a window of n targets is n + 1 tokens, its last one the first of the next.

  With T = seq_len, N tokens and an offset o:

  - cross_documents: window i begins at token (o + i T) mod N and has T targets, whatever documents it meets.
    The last token is followed by the first one: the windows of one offset leave out fewer than T + 1 of the
    N targets, and over all offsets each target is left out equally often.
  - Otherwise each document is cut into the fewest windows that hold its targets, of T targets but for the
    first and the last one. T k targets fit into its k windows; the first one has (o mod (s + 1)) fewer than
    T, where s is what the document lacks to T k. Every target is in one window whatever the offset.

  Args:
    corpus: Corpus.
    numbers: int64[m], windows in [0, n_windows).
    seq_len: T.
    cross_documents: see above.
    offsets: int64[m] >= 0, of each window, or one number for all; 0: windows begin where the split, or the
      document, does.

  Returns:
    (first token int64[m], targets int64[m]). With an offset, a window may reach past the last token, and
    goes on with the first.
  """
  if cross_documents:
    return (offsets % corpus.n_tokens + numbers * seq_len) % corpus.n_tokens, np.full_like(numbers, seq_len)
  before = _windows_before(corpus, seq_len)
  document = np.searchsorted(before, numbers, side='right') - 1
  nth, last = numbers - before[document], document == corpus.n_documents - 1
  begins = corpus.document_starts[document]
  ends = np.where(last, corpus.n_tokens, corpus.document_starts[np.where(last, 0, document + 1)])
  lacks = (before[document + 1] - before[document]) * seq_len - (ends - 1 - begins)
  # Of a document with one window there is nothing to shift.
  shift = np.where(before[document + 1] - before[document] > 1, offsets % (lacks + 1), 0)
  starts = begins + np.maximum(nth * seq_len - shift, 0)
  stops = np.minimum(begins + (nth + 1) * seq_len - shift, ends - 1)
  return starts, stops - starts


@functools.lru_cache(maxsize=64)
def _windows_before(corpus, seq_len):
  """int64[n_documents + 1]: windows before each document, none of which crosses a border."""
  lengths = np.diff(corpus.document_starts, append=corpus.n_tokens)
  counts = (np.maximum(lengths - 1, 0) + seq_len - 1) // seq_len
  return np.concatenate([[0], np.cumsum(counts)])


class BatchRows(NamedTuple):
  """Where rows of a batch come from; int64[n] each."""
  corpus: np.ndarray   # which of the corpora
  window: np.ndarray   # which of its windows
  start: np.ndarray    # first token of the window
  length: np.ndarray   # targets of the window


def batch(corpora, weights, seed, step, batch_size, seq_len, cross_documents, rows=slice(None), shift=False):
  """Rows of batch `step` of a training run; a pure function that costs the same at any step.

  Args:
    corpora: list of Corpus.
    weights: share of each corpus, positive numbers (any scale); `order.mixture` gives the law.
    seed: integer; with a corpus's digest and the epoch it determines the order of its windows.
    step: integer >= 0.
    batch_size: sequences in the global batch.
    seq_len: tokens a sequence, T.
    cross_documents: if False, each row is of one document (see `windows`), and what it lacks to T
      is padding: inputs of 0, targets of -1. The first token of a document is then no target.
    rows: which rows of the global batch to read, a slice.
    shift: whether windows begin elsewhere in each epoch, by an offset that the corpus's digest, the seed and
      the epoch determine (see `windows`); if False, all epochs have the same windows.

  Returns:
    {'inputs': int32[n, T], 'targets': int32[n, T]}; targets are the inputs shifted by one.

  Raises:
    ValueError: a corpus is shorter than one window; bad weights.
  """
  found = batch_windows(corpora, weights, seed, step, batch_size, seq_len, cross_documents, rows, shift)
  inputs, targets = np.empty((2, len(found.window), seq_len), np.int32)
  for c, corpus in enumerate(corpora):
    mine = np.flatnonzero(found.corpus == c)
    _read(corpus, found.start[mine], found.length[mine], mine, inputs, targets)
  return {'inputs': inputs, 'targets': targets}


def batch_windows(corpora, weights, seed, step, batch_size, seq_len, cross_documents, rows=slice(None),
                  shift=False):
  """Where the rows of `batch` come from: Rows; same arguments and errors."""
  sizes = [_at_least_one(corpus, seq_len, cross_documents) for corpus in corpora]
  digests = [corpus.digest for corpus in corpora]
  numbers = step * batch_size + np.arange(batch_size, dtype=np.int64)[rows]
  which, window, epoch = order.sample_windows(sizes, digests, weights, seed, numbers)
  found = BatchRows(which, window, np.empty_like(window), np.empty_like(window))
  for c, corpus in enumerate(corpora):
    mine = found.corpus == c
    offsets = order.epoch_offsets(corpus.digest, seed, epoch[mine]) if shift else 0
    found.start[mine], found.length[mine] = window_bounds(
      corpus, found.window[mine], seq_len, cross_documents, offsets)
  return found


def _at_least_one(corpus, seq_len, cross_documents):
  size = n_windows(corpus, seq_len, cross_documents)
  if size < 1:
    raise InputError(f'split {corpus.split!r} of corpus {corpus.folder} has {corpus.n_tokens} '
                     f'tokens, a window of seq_len {seq_len} needs {seq_len + 1}: shorten seq_len '
                     'or prepare more text')
  return size


def _read(corpus, starts, lengths, rows, inputs, targets):
  """Fills the given rows with the windows that begin at `starts` and have `lengths` targets."""
  shard = np.searchsorted(corpus.shard_offsets, starts, side='right') - 1
  local = starts - corpus.shard_offsets[shard]
  whole = local + lengths < np.diff(corpus.shard_offsets)[shard]
  assert (lengths < corpus.n_tokens).all(), (corpus.folder, lengths.max())
  for row, start, n, s, at, fits in zip(rows.tolist(), starts.tolist(), lengths.tolist(), shard.tolist(),
                                        local.tolist(), whole.tolist(), strict=True):
    tokens = corpus.shards[s][at:at + n + 1] if fits else _around(corpus, start, start + n + 1)
    inputs[row, :n], inputs[row, n:] = tokens[:-1], 0
    targets[row, :n], targets[row, n:] = tokens[1:], IGNORED_TARGET


def _around(corpus, start, stop):
  """Tokens [start, stop), where the first token follows the last one."""
  end = min(stop, corpus.n_tokens)
  return np.concatenate([corpus.tokens(start, end), corpus.tokens(0, stop - end)])


def n_eval_batches(corpus, batch_size, seq_len):
  """Batches that `eval_batch` has; the last one may be padded."""
  return -(-_n_eval_windows(corpus, seq_len) // batch_size)


def _n_eval_windows(corpus, seq_len):
  if corpus.n_tokens < 2:
    raise InputError(f'split {corpus.split!r} of corpus {corpus.folder} has {corpus.n_tokens} tokens, '
                     'and of fewer than two nothing can be predicted: prepare more text')
  return max(n_windows(corpus, seq_len, True), 1)


def eval_batch(corpus, step, batch_size, seq_len, rows=slice(None)):
  """Rows of batch `step` of the split's windows, which cross documents, in plain order.

  A split shorter than a window is one window of all its tokens; what it lacks to T is padding.

  Args:
    corpus: the Corpus, usually of the validation split.
    step: integer in [0, n_eval_batches).
    batch_size, seq_len, rows: as for `batch`.

  Returns:
    {'inputs': int32[n, T], 'targets': int32[n, T]}; rows past the last window are inputs of 0 and
    targets of -1.

  Raises:
    ValueError: the split has fewer than two tokens.
  """
  size = _n_eval_windows(corpus, seq_len)
  window = step * batch_size + np.arange(batch_size, dtype=np.int64)[rows]
  inputs = np.zeros((len(window), seq_len), np.int32)
  targets = np.full_like(inputs, IGNORED_TARGET)
  real = np.flatnonzero(window < size)
  starts, lengths = window_bounds(corpus, window[real], seq_len, True)
  _read(corpus, starts, np.minimum(lengths, corpus.n_tokens - 1), real, inputs, targets)
  return {'inputs': inputs, 'targets': targets}
