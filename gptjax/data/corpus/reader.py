"""Reads a corpus: its folder, its token stream, and the windows of each batch.

Reading has no state: batch s is a pure function of (corpora, weights, seed, s), and row r of it depends only
on these and r. See `order` for the mapping of rows to windows, and `window_bounds` for the positions of
windows.
"""

import dataclasses
import functools
from typing import NamedTuple

import numpy as np

from gptjax.data.corpus import corpus_manifest, local_shards, order, remote_shards
from gptjax.data.corpus.packing import mark_documents, segment_arrays
from gptjax.errors import InputError
from gptjax.storage.files import paths
from gptjax.storage.files.paths import Url

IGNORED_TARGET = -1  # the loss ignores these targets


class MissingSplit(InputError):
  """The corpus is valid but does not have the split."""


@dataclasses.dataclass(frozen=True, eq=False)
class Corpus:
  """One split of a corpus, memory-mapped, or copied from a bucket and then memory-mapped."""
  folder: str
  split: str
  digest: str        # of the content of all splits, see `corpus_manifest`
  tokenizer: dict    # name, digest, n_vocab, end_of_text
  n_tokens: int
  n_documents: int
  n_bytes: int       # UTF-8 bytes of the documents
  shards: list       # uint16 or uint32 arrays; of a corpus in a bucket remote_shards.Shards
  shard_offsets: np.ndarray          # int64[len(shards) + 1]: first token of each shard
  document_starts: np.ndarray  # int64[n_documents]: first token of each document

  def tokens(self, start, stop):
    """Return int32[stop - start]: tokens [start, stop) of the split."""
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


def open_corpus(folder, split, *, verify, lazily=False):
  """Open a split of a corpus that `gptjax.data.prepare` wrote.

  Args:
    folder: path of the corpus, here or in a bucket.
    split: 'train' or 'validation'.
    verify: read all files: compare hashes with the manifest and check that all ids are in the vocabulary.
      If False, only the manifest and the sizes of the files are checked, and shards of this machine outside
      `folder` are verified when they are first used. Shards in a bucket are verified when they are copied to
      this machine, before they are used, and copies from earlier only if `verify`.
    lazily: verify each shard of a folder, too, when it is first read, and not before.

  Raises:
    MissingSplit: the corpus does not have the split.
    ValueError: the folder or one of its files is missing, damaged or not a corpus.
  """
  root = paths.parsed(folder)
  manifest = corpus_manifest.read_manifest(root)
  if split not in manifest['splits'] or not manifest['splits'][split]['tokens']:
    raise MissingSplit(f'corpus {folder} has no tokens in its split {split!r}, it has '
                       f'{sorted(manifest["splits"])}: prepare it with another validation_fraction or '
                       'from more documents')
  entry, dtype = manifest['splits'][split], np.dtype(manifest['dtype']).newbyteorder('<')
  tokens_folder = corpus_manifest.tokens_folder(root, manifest)
  where = remote_shards if isinstance(tokens_folder, Url) else local_shards
  shards, starts = where.open_split(root, tokens_folder, entry, dtype, manifest['tokenizer']['n_vocab'],
                                    verify, lazily)
  # As signed integers: NumPy would convert all of them to floats to compare unsigned with signed ones.
  starts = starts.view('<i8')
  offsets = np.cumsum([0, *(shard['tokens'] for shard in entry['shards'])], dtype=np.int64)
  assert offsets[-1] == entry['tokens'], (folder, split)
  if verify and (starts[0] != 0 or starts[-1] >= entry['tokens'] or not (starts[1:] >= starts[:-1]).all()):
    raise InputError(f'{root / entry["index"]["file"]} is not a sorted list of positions below '
                     f'{entry["tokens"]}: prepare the corpus again')
  return Corpus(str(folder), split, manifest['content'], manifest['tokenizer'], entry['tokens'],
                entry['documents'], entry['bytes'], shards, offsets, starts)


def n_windows(corpus, seq_len, cross_documents):
  """Return the number of windows of the split; see `window_bounds`."""
  if not cross_documents:
    return int(_windows_before(corpus, seq_len)[-1])
  return max(corpus.n_tokens - 1, 0) // seq_len


def window_bounds(corpus, numbers, seq_len, cross_documents, offsets=0):
  """Return the positions of windows.

  A window of n targets has n + 1 tokens; its last token is the first one of the next window.

  With T = seq_len, N tokens and an offset o:

  - cross_documents: window i starts at token (o + i T) mod N and has T targets, across document boundaries.
    The first token follows the last one: the windows of one offset omit fewer than T + 1 of the N targets,
    and over all offsets each target is omitted equally often.
  - Otherwise each document is divided into the smallest number k of windows for its targets; all but the
    first and the last have T targets. The first one has (o mod (s + 1)) fewer than T, where s is T k minus
    the number of targets. Every target is in exactly one window, whatever the offset.

  Args:
    corpus: Corpus.
    numbers: int64[m], indices of windows in [0, n_windows).
    seq_len: T.
    cross_documents: see above.
    offsets: int64[m] >= 0, one per window, or one number for all; 0: the first window starts with the split
      or document.

  Returns:
    (first token int64[m], number of targets int64[m]). With an offset, a window may wrap around from the last
    token to the first.
  """
  if cross_documents:
    return (offsets % corpus.n_tokens + numbers * seq_len) % corpus.n_tokens, np.full_like(numbers, seq_len)
  before = _windows_before(corpus, seq_len)
  document = np.searchsorted(before, numbers, side='right') - 1
  nth, last = numbers - before[document], document == corpus.n_documents - 1
  first = corpus.document_starts[document]
  ends = np.where(last, corpus.n_tokens, corpus.document_starts[np.where(last, 0, document + 1)])
  slack = (before[document + 1] - before[document]) * seq_len - (ends - 1 - first)
  # The only window of a document is not shifted.
  shift = np.where(before[document + 1] - before[document] > 1, offsets % (slack + 1), 0)
  starts = first + np.maximum(nth * seq_len - shift, 0)
  stops = np.minimum(first + (nth + 1) * seq_len - shift, ends - 1)
  return starts, stops - starts


@functools.lru_cache(maxsize=64)
def _windows_before(corpus, seq_len):
  """Return int64[n_documents + 1]: the number of windows before each document, if none crosses documents."""
  lengths = np.diff(corpus.document_starts, append=corpus.n_tokens)
  counts = (np.maximum(lengths - 1, 0) + seq_len - 1) // seq_len
  return np.concatenate([[0], np.cumsum(counts)])


class BatchRows(NamedTuple):
  """Positions of the rows of a batch; int64[n] each."""
  corpus: np.ndarray   # index of the corpus
  window: np.ndarray   # index of the window in it
  start: np.ndarray    # first token of the window
  length: np.ndarray   # number of targets of the window


def batch(corpora, weights, seed, step, batch_size, seq_len, cross_documents, rows=slice(None), shift=False,
          *, packing=False, restart_positions=False):
  """Return rows of batch `step` of a training run: a pure function with the same cost at any step.

  Args:
    corpora: list of Corpus.
    weights: share of each corpus, positive numbers (any scale), see `order.mixture_period`.
    seed: integer; together with the corpus's digest and the epoch it determines the order of its windows.
    step: integer >= 0.
    batch_size: sequences in the global batch.
    seq_len: tokens per sequence, T.
    cross_documents: if False, each row is from one document (see `window_bounds`) and padded to T with inputs
      of 0 and targets of -1. The first token of a document is then not a target.
    rows: slice of the rows of the global batch to read.
    shift: whether window offsets differ between epochs; the corpus's digest, the seed and the epoch determine
      the offset (see `window_bounds`). If False, all epochs have the same windows.
    packing: whether to keep the documents of a row apart, see `gptjax.data.corpus.packing`; the windows are
      the same as without.
    restart_positions: with packing, whether positions are counted from the start of each document.

  Returns:
    {'inputs': int32[n, T], 'targets': int32[n, T]}; targets are the inputs shifted by one. With packing also
    'segments' and, if positions restart, 'positions', int32[n, T] each.

  Raises:
    ValueError: a corpus is shorter than one window; bad weights.
  """
  windows = batch_windows(corpora, weights, seed, step, batch_size, seq_len, cross_documents, rows, shift)
  inputs, targets = np.empty((2, len(windows.window), seq_len), np.int32)
  parts = []
  for c, corpus in enumerate(corpora):
    of_corpus = np.flatnonzero(windows.corpus == c)
    parts.append((corpus, of_corpus, windows.start[of_corpus], windows.length[of_corpus]))
  return _read(parts, inputs, targets, packing, restart_positions)


def batch_windows(corpora, weights, seed, step, batch_size, seq_len, cross_documents, rows=slice(None),
                  shift=False):
  """Return the BatchRows of `batch`; same arguments and errors."""
  sizes = [_checked_n_windows(corpus, seq_len, cross_documents) for corpus in corpora]
  digests = [corpus.digest for corpus in corpora]
  numbers = step * batch_size + np.arange(batch_size, dtype=np.int64)[rows]
  corpus_index, window, epoch = order.sample_windows(sizes, digests, weights, seed, numbers)
  bounds = BatchRows(corpus_index, window, np.empty_like(window), np.empty_like(window))
  for c, corpus in enumerate(corpora):
    of_corpus = bounds.corpus == c
    offsets = order.epoch_offsets(corpus.digest, seed, epoch[of_corpus]) if shift else 0
    bounds.start[of_corpus], bounds.length[of_corpus] = window_bounds(
      corpus, bounds.window[of_corpus], seq_len, cross_documents, offsets)
  return bounds


def _checked_n_windows(corpus, seq_len, cross_documents):
  size = n_windows(corpus, seq_len, cross_documents)
  if size < 1:
    raise InputError(f'split {corpus.split!r} of corpus {corpus.folder} has {corpus.n_tokens} '
                     f'tokens, but a window of seq_len {seq_len} needs {seq_len + 1}: shorten seq_len '
                     'or prepare more text')
  return size


def _read(parts, inputs, targets, packing, restart_positions):
  """Return a batch of inputs and targets [n, T], after filling in its windows.

  Args:
    parts: (Corpus, rows, starts, lengths) of each corpus: the rows that have its windows, their first tokens
      and numbers of targets.
    inputs, targets, packing, restart_positions: as for `batch`; what no window covers stays as it is.
  """
  for part in parts:
    _read_windows(*part, inputs, targets)
  arrays = {'inputs': inputs, 'targets': targets}
  if packing:
    begins = np.zeros(inputs.shape, bool)
    for part in parts:
      targets[mark_documents(*part, inputs, targets, begins)] = IGNORED_TARGET
    arrays |= segment_arrays(begins, restart_positions)
  return arrays


def _read_windows(corpus, rows, starts, lengths, inputs, targets):
  """Fill `rows` of inputs and targets with the windows at `starts` of `lengths` targets."""
  shard = np.searchsorted(corpus.shard_offsets, starts, side='right') - 1
  local = starts - corpus.shard_offsets[shard]
  whole = local + lengths < np.diff(corpus.shard_offsets)[shard]
  assert (lengths < corpus.n_tokens).all(), (corpus.folder, lengths.max())
  if isinstance(corpus.shards, remote_shards.Shards):
    here = corpus.shards.for_windows(corpus, starts, starts + lengths + 1)
    corpus = dataclasses.replace(corpus, shards=here)
  for row, start, n, s, at, fits in zip(rows.tolist(), starts.tolist(), lengths.tolist(), shard.tolist(),
                                        local.tolist(), whole.tolist(), strict=True):
    tokens = corpus.shards[s][at:at + n + 1] if fits else _wrapped_tokens(corpus, start, start + n + 1)
    inputs[row, :n], inputs[row, n:] = tokens[:-1], 0
    targets[row, :n], targets[row, n:] = tokens[1:], IGNORED_TARGET


def _wrapped_tokens(corpus, start, stop):
  """Return tokens [start, stop), wrapping around from the last token to the first."""
  end = min(stop, corpus.n_tokens)
  return np.concatenate([corpus.tokens(start, end), corpus.tokens(0, stop - end)])


def n_eval_batches(corpus, batch_size, seq_len):
  """Return the number of batches of `eval_batch`; the last one may be padded."""
  return -(-_n_eval_windows(corpus, seq_len) // batch_size)


def _n_eval_windows(corpus, seq_len):
  if corpus.n_tokens < 2:
    raise InputError(f'split {corpus.split!r} of corpus {corpus.folder} has {corpus.n_tokens} tokens, '
                     'but evaluation needs at least two: prepare more text')
  return max(n_windows(corpus, seq_len, True), 1)


def eval_batch(corpus, step, batch_size, seq_len, rows=slice(None), packing=False, restart_positions=False):
  """Return rows of batch `step` of the windows of a split, in sequential order, across documents.

  A split shorter than a window is one window of all its tokens, padded to T.

  Args:
    corpus: the Corpus, usually of the validation split.
    step: integer in [0, n_eval_batches).
    batch_size, seq_len, rows, packing, restart_positions: as for `batch`.

  Returns:
    As `batch`; rows past the last window are inputs of 0 and targets of -1.

  Raises:
    ValueError: the split has fewer than two tokens.
  """
  size = _n_eval_windows(corpus, seq_len)
  window = step * batch_size + np.arange(batch_size, dtype=np.int64)[rows]
  inputs = np.zeros((len(window), seq_len), np.int32)
  targets = np.full_like(inputs, IGNORED_TARGET)
  real = np.flatnonzero(window < size)
  starts, lengths = window_bounds(corpus, window[real], seq_len, True)
  part = corpus, real, starts, np.minimum(lengths, corpus.n_tokens - 1)
  return _read([part], inputs, targets, packing, restart_positions)
