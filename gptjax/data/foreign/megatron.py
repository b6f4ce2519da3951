"""Megatron-LM's indexed data sets: ids in `.bin`, sequences and documents in `.idx`.

https://github.com/NVIDIA/Megatron-LM, megatron/core/datasets/indexed_dataset.py. The index is

    MMIDIDX\\0\\0, uint64 1, uint8 code of the dtype, uint64 S sequences, uint64 D document bounds
    int32[S] tokens of each sequence, int64[S] its first byte in `.bin`
    int64[D] first sequence of each document, and S; maybe int8[S] modes

End-of-text follows each document only with `--append-eod`.
"""

import struct
from typing import NamedTuple

import numpy as np

from gptjax.data.foreign import layout
from gptjax.errors import InputError

MAGIC = b'MMIDIDX\0\0'
HEADER = struct.Struct('<9sQBQQ')
LENGTH, POINTER = np.dtype('<i4'), np.dtype('<i8')
# By code: signed ids are never negative, so they are read as unsigned ones.
DTYPES = {3: (layout.UINT16, 1 << 15), 4: (layout.UINT32, 1 << 31), 8: (layout.UINT16, None)}
NAMES = {1: 'uint8', 2: 'int8', 3: 'int16', 4: 'int32', 5: 'int64', 6: 'float64', 7: 'float32', 8: 'uint16'}
CHUNK = 1 << 20  # sequences or documents


class _Index(NamedTuple):
  """The arrays of an index, memory-mapped."""
  path: object
  code: int
  lengths: np.ndarray
  pointers: np.ndarray
  bounds: np.ndarray


def _indices(file):
  return [file.required(f'{file.name.removesuffix(".bin")}.idx', 'the documents')]


def _index(file):
  index, = _indices(file)
  head = index.head(HEADER.size)
  if len(head) < HEADER.size or not head.startswith(MAGIC):
    raise InputError(f'{index.path} does not begin with MMIDIDX and the sizes of an index of Megatron-LM: '
                     'copy it again')
  _, version, code, n_sequences, n_bounds = HEADER.unpack(head)
  if version != 1 or code not in DTYPES:
    raise InputError(f'{index.path} has version {version} and ids of {NAMES.get(code, f"code {code}")}, but '
                     'a corpus needs version 1 and int16, uint16 or int32: preprocess the data again')
  size = HEADER.size + n_sequences * (LENGTH.itemsize + POINTER.itemsize) + n_bounds * POINTER.itemsize
  if index.size not in (size, size + n_sequences):
    raise InputError(f'{index.path} has {index.size:,} bytes, not the {size:,} of {n_sequences:,} sequences '
                     f'and {n_bounds:,} document bounds: it is damaged; copy it again')
  if not n_sequences or n_bounds < 2:
    raise InputError(f'{index.path} has no documents: remove it and {file.name}')
  at = HEADER.size + n_sequences * LENGTH.itemsize
  return _Index(index.path, code, index.items(LENGTH, n_sequences, HEADER.size),
                index.items(POINTER, n_sequences, at),
                index.items(POINTER, n_bounds, at + n_sequences * POINTER.itemsize))


def _layout(file, options):
  del options
  index = _index(file)
  dtype, limit = DTYPES[index.code]
  n_tokens = 0
  for at in range(0, len(index.lengths), CHUNK):
    lengths = index.lengths[at:at + CHUNK].astype(np.int64)
    ends = n_tokens + np.cumsum(lengths)
    if lengths.min() < 0 or ((ends - lengths) * dtype.itemsize != index.pointers[at:at + CHUNK]).any():
      raise InputError(f'{index.path}: the sequences from {at:,} on do not follow each other in '
                       f'{file.name}: merge or preprocess the data again')
    n_tokens = int(ends[-1])
  if index.bounds[0] != 0 or index.bounds[-1] != len(index.lengths):
    raise InputError(f'{index.path}: its documents are sequences {index.bounds[0]} to {index.bounds[-1]}, '
                     f'not 0 to {len(index.lengths):,}: preprocess the data again')
  found = layout.Layout(dtype, 0, n_tokens, limit)
  layout.require_size(file, found)
  return found


def _starts(file, found):
  index = _index(file)
  n_sequences = len(index.lengths)
  for at in range(0, len(index.bounds) - 1, CHUNK):
    first = index.bounds[at:min(at + CHUNK, len(index.bounds) - 1)]
    if first.min() < 0 or first.max() > n_sequences:
      raise InputError(f'{index.path}: a document begins with sequence {first.max():,} of {n_sequences:,}: '
                       'preprocess the data again')
    # A document without sequences, at the end, begins where the tokens end.
    inside = np.minimum(first, n_sequences - 1)
    yield np.where(first < n_sequences, index.pointers[inside] // found.dtype.itemsize, found.n_tokens)


FORMAT = layout.Format(('*.bin',), _layout, indices=_indices, starts=_starts)
