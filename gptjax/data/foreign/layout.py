"""What a format declares: the names of its files, and where their ids and documents begin."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from gptjax.errors import InputError

SAMPLE = 1 << 12  # bytes that show whether ids of 16 bits are halves of longer ones
RAW = 'adopt them by raw: with --validation and --dtype=uint32, or --dtype=uint16 if they are'
UINT16, UINT32 = np.dtype('<u2'), np.dtype('<u4')  # the dtypes of ids that a corpus can have


class Layout(NamedTuple):
  """Where the ids of a file are: from byte `offset` on, to its end.

  limit: ids are below it, whatever the tokenizer is; None: no such limit.
  """
  dtype: np.dtype
  offset: int
  n_tokens: int
  limit: int | None = None


class Options(NamedTuple):
  """What a format may need to know to read a file.

  dtype: 'uint16', 'uint32', or '' if the user has not chosen one.
  n_vocab: entries of the tokenizer.
  """
  dtype: str
  n_vocab: int


class Format(NamedTuple):
  """A layout of files.

  names: patterns of the names of its files in a folder.
  layout: function (files.File, Options) -> Layout; InputError for a file that is not in this format.
  validation: pattern of the names of the validation split; '': none.
  indices: function (files.File) -> [files.File] beside it from which its layout or documents are read; None:
    there are none.
  starts: function (files.File, Layout) -> iterator of int64 arrays, the first token of each document of the
    file in order; None: a document begins after each end-of-text token.
  end_first: end-of-text tokens precede the documents, so the first one of a split is not part of it, unless
    documents begin with the token.
  has_dtype: whether the format needs `Options.dtype`.
  """
  names: tuple
  layout: Callable
  validation: str = ''
  indices: Callable | None = None
  starts: Callable | None = None
  end_first: bool = False
  has_dtype: bool = False


def headerless(file, dtype, advice=RAW):
  """Return the Layout of a file that has only ids.

  Args:
    file: files.File.
    dtype: of its ids.
    advice: what to do if ids of 16 bits seem to be halves of longer ones; '': the user has chosen the dtype.

  Raises:
    InputError: the size is no multiple of that of an id; every second one of 16 bits is 0.
  """
  dtype = np.dtype(dtype).newbyteorder('<')
  if dtype == UINT16 and advice:
    head = file.head(SAMPLE)
    high = np.frombuffer(head[:len(head) // 4 * 4], UINT16)[1::2]
    if len(high) > 8 and not high.any():
      raise InputError(f'{file.path}: every second id is 0 if they are uint16: {advice}')
  return Layout(dtype, 0, count(file, dtype, file.size))


def count(file, dtype, n_bytes):
  """Return the number of ids in `n_bytes` of a file; InputError if there are none, or a part of one."""
  if n_bytes <= 0:
    raise InputError(f'{file.path} has no tokens: remove it, or copy it again')
  if n_bytes % dtype.itemsize:
    raise InputError(f'{file.path} has {n_bytes:,} bytes of ids, not a multiple of the {dtype.itemsize} of '
                     f'{dtype.name}: it is truncated, or its ids have another dtype; copy it again')
  return n_bytes // dtype.itemsize


def require_size(file, layout):
  """Raise InputError unless a file ends with the last of the tokens that its header counts."""
  size = layout.offset + layout.n_tokens * layout.dtype.itemsize
  if file.size != size:
    state = 'it is truncated' if file.size < size else 'something follows its tokens'
    raise InputError(f'{file.path} has {file.size:,} bytes, not the {size:,} of a file with '
                     f'{layout.n_tokens:,} tokens: {state}; copy it again')
