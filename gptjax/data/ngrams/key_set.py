"""A set of keys in memory, in which those of a stream of text are looked up.

The set is exact: it has the 64-bit keys themselves, sorted. Most keys of a stream are in no test set, so a
table of bits, indexed by the first bits of a key, rejects all but a few before the binary search.
"""

from typing import NamedTuple

import numpy as np

BITS_PER_KEY = 16  # of the table, at least


class KeySet(NamedTuple):
  """Keys and the table of their first bits, of up to 12 bytes per key."""
  keys: np.ndarray   # uint64[m], sorted, each once
  table: np.ndarray  # uint8[2^b / 8]: bit i is set if a key has the first b bits i

  @classmethod
  def of(cls, keys):
    """Return the KeySet of uint64 keys in any order, with repetitions."""
    keys = sorted_unique(keys)
    table = np.zeros(1 << max(0, (BITS_PER_KEY * len(keys)).bit_length() - 3), np.uint8)
    first = _first_bits(keys, table)
    np.bitwise_or.at(table, first >> 3, (1 << (first & 7)).astype(np.uint8))
    return cls(keys, table)

  def find(self, keys):
    """Return (int64[k]: which of `keys` are in the set, in their order; int64[k]: their index in it)."""
    first = _first_bits(keys, self.table)
    some = np.flatnonzero(self.table[first >> 3] >> (first & 7).astype(np.uint8) & 1)
    index = np.searchsorted(self.keys, keys[some])
    inside = index < len(self.keys)
    some, index = some[inside], index[inside]
    equal = self.keys[index] == keys[some]
    return some[equal], index[equal]


def sorted_unique(values):
  """Return the values sorted, each once."""
  values = np.sort(values)
  return values[np.append(True, values[1:] != values[:-1])[:len(values)]]  # np.unique takes far longer


def _first_bits(keys, table):
  """Return int64: the index of each key in the bits of a table."""
  return (keys >> np.uint64(64 - (8 * len(table)).bit_length() + 1)).view(np.int64)
