"""The digest of a token stream: a tree, so that its parts can be hashed by many machines.

    b_i     tokens [i B, (i + 1) B) of the stream, B = BLOCK_TOKENS; little-endian, of `id_dtype`
    digest  SHA-256(SHA-256(b_0), SHA-256(b_1), ..., SHA-256(b_n))

The blocks belong to the stream, not to its files: the digest does not depend on how shards are cut, nor on
the dtype of the ids in them. The digest of no tokens is SHA-256 of nothing.
"""

import hashlib

import numpy as np

BLOCK_TOKENS = 1 << 20


def id_dtype(n_vocab):
  """Return the dtype of ids in shards that gptjax writes, and in digests."""
  return np.dtype('<u2' if n_vocab <= 1 << 16 else '<u4')


def leaf(tokens, n_vocab):
  """Return the digest, 32 bytes, of the tokens of a block."""
  return hashlib.sha256(np.ascontiguousarray(tokens, id_dtype(n_vocab))).digest()


def root(leaves):
  """Return the digest (hex) of a stream from the digests of its blocks, in order, one or more at a time."""
  return hashlib.sha256(b''.join(leaves)).hexdigest()
