"""Branches of random keys.

`jax.random.split(key, n)[i]` and `jax.random.fold_in(key, i)` are the same key, and the bits of an array
drawn from a key are those keys. So each key has one use: to draw one array, to be split, or to be folded with
numbers that all differ. A branch in addition to those of a `split` is `named`.
"""

import zlib

import jax


def named(key, name):
  """The branch of a key with this name, independent of `split(key, n)` for each n below 2**20.

  Args:
    key: JAX random key.
    name: str; names of one key's branches must differ.
  """
  number = zlib.crc32(name.encode())
  assert number >= 2**20, f'the checksum of {name!r} could be an index of split: choose another name'
  return jax.random.fold_in(key, number)
