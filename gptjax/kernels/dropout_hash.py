"""Which attention weights `flash` drops: a hash, so that no mask is stored.

Of a sequence's key, a head's index in the whole model and two positions: the same in each pass, for all block
sizes and on every mesh. Letters: b batch, t queries, s keys, h heads.
"""

import jax
import jax.numpy as jnp
import numpy as np


def mask(keys, rate, h, t):
  """Which weights are kept, bool[b, h, t, t] for key[b]. For tests: the kernels never materialize it."""
  return kept(*(x[..., None] for x in query_seeds(seeds(keys, h, None), t)), jnp.arange(t), rate)


def seeds(keys, h, heads_axis):
  """Two uint32[b, h] from key[b]: 64 bits per sequence and head, sharded over the mesh axis `heads_axis`."""
  words, heads = jax.random.key_data(keys), jnp.arange(h, dtype=jnp.uint32, out_sharding=jax.P(heads_axis))
  return tuple(_mixed(words[:, i, None] ^ _mixed(2 * heads + np.uint32(i))[None]) for i in range(2))


def query_seeds(seeds, t):
  """Two uint32[b, h, t] from `seeds`; () from ()."""
  return tuple(_mixed(seed[..., None] + jnp.arange(t, dtype=jnp.uint32)) for seed in seeds)


def kept(first, second, s, rate):
  """Whether a weight is kept: bool, from two seeds per query and key positions int32 s, which broadcast."""
  x = first + s.astype(jnp.uint32) * np.uint32(0x9e3779b9)
  x = ((x ^ (x >> np.uint32(16))) * np.uint32(0x7feb352d)) ^ second
  x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846ca68b)
  return x >= np.uint32(round(rate * 2**32))  # the upper bits are the best mixed


def _mixed(x):
  """Hash of uint32, a bijection in which each bit of x flips half of the output bits: Wellons's lowbias32."""
  x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7feb352d)
  x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846ca68b)
  return x ^ (x >> np.uint32(16))
