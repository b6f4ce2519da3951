"""64-bit digests of arrays, computed on their devices and independent of the mesh."""

import hashlib
import json

import jax
import jax.numpy as jnp
import numpy as np


def digests(tree):
  """Return a 64-bit digest of each array of a tree, uint32[2] per array; it does not depend on the mesh.

  The digest is the sum over elements of a hash of their bits and their position. It changes if any single
  element changes, and with probability 1 - 2**-64 if several do.
  """
  shapes = jax.tree.map(lambda _: jax.P(), tree)
  return jax.sharding.auto_axes(lambda t: jax.tree.map(_digest, t), out_sharding=shapes)(tree)


def _mix(x):
  """A bijection of uint32 (xor-shifts and odd factors)."""
  for shift, factor in ((16, 0x7feb352d), (15, 0x846ca68b)):
    x = (x ^ (x >> shift)) * jnp.uint32(factor)
  return x ^ (x >> 16)


def _digest(x):
  if x.dtype == jnp.bool_:
    x = x.astype(jnp.uint8)
  unsigned = jnp.dtype(f'uint{8 * x.dtype.itemsize}')
  bits = jax.lax.bitcast_convert_type(x, unsigned).astype(jnp.uint32)
  position = jnp.zeros(x.shape, jnp.uint32)
  for axis, size in enumerate(x.shape):
    position = position * jnp.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis)
  mixed = _mix(bits ^ _mix(position + jnp.uint32(1)))
  return jnp.stack([mixed.sum(dtype=jnp.uint32), _mix(mixed + jnp.uint32(0x9e3779b9)).sum(
    dtype=jnp.uint32)])


def describe_arrays(tree, tree_digests):
  """Return the entry of the manifest for a tree of arrays: {name: [shape, dtype, digest]}."""
  arrays, _ = jax.tree.flatten_with_path(tree)
  values = jax.tree.leaves(tree_digests)
  return {jax.tree_util.keystr(path, simple=True, separator='/'): [
    list(x.shape), str(x.dtype), ''.join(f'{int(word):08x}' for word in np.asarray(digest))]
    for (path, x), digest in zip(arrays, values, strict=True)}


def arrays_digest(manifest):
  """Return a digest of all arrays: two checkpoints of one step differ in it after a rewind."""
  return hashlib.sha256(json.dumps(manifest['arrays'], sort_keys=True).encode()).hexdigest()
