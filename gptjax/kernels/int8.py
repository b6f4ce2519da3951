"""Weights as int8 with one float32 scale per output, for inference: w[i, o] is about q[i, o] s[o].

Decoding one token reads every weight once. On a CPU that is most of the time, and int8 is a quarter of the
bytes. Activations are not rounded: the weights are converted where they are multiplied, and each sum is
scaled once.

XLA:CPU multiplies no int8 matrix with a float one: it writes the converted matrix to memory, which takes ten
times as long as a float32 matmul. Two forms avoid that on one CPU device:

  few rows   a loop fusion that reads each weight once, in which sums of GROUP terms are unrolled: a sum that
             is not unrolled is neither vectorized nor split over threads
  more rows  a float32 matmul with BLOCK weights at a time, which stay in a core's cache

Letters: n rows, i inputs, o outputs.
"""

import functools
import operator

import jax
import jax.numpy as jnp
from jax.experimental.xla_metadata import set_xla_metadata

from gptjax.kernels import cpu_matmul
from gptjax.parallel.sharding import broadcast

LARGEST = 127
FEW_ROWS = 4      # above, `_few_rows` is slower than `_in_blocks`
GROUP = 32        # XLA does not fuse a sum of 64 terms
BLOCK = 256 << 10
WIDTH = 64        # of blocks, or a multiple: other matmuls are slower


def rounded(w, axes):
  """Round w to int8, symmetrically, with the scale that the largest absolute value over `axes` needs.

      s = max |w| / 127,   q = round(w / s),   so that |w - q s| <= s / 2

  Args:
    w: float32[...].
    axes: tuple, the dimensions over which a matmul sums.

  Returns:
    (int8 q of the shape of w, float32 s without `axes`); s is 0 where all w are.
  """
  scale = jnp.abs(w).max(axes, keepdims=True) / LARGEST
  q = jnp.round(w / jnp.where(scale > 0, scale, 1)).astype(jnp.int8)
  return q, scale.squeeze(axes)


def matmul(x, q, scale, out_sharding=None):
  """float32[n, o...]: x [n, i] times the weights int8[i, o...] with the scale float32[o...]."""
  if cpu_matmul.on_one_cpu():
    multiply = _few_rows if len(x) <= FEW_ROWS else _in_blocks
    x, q = jax.reshard((x.astype(jnp.float32), q), jax.P())
    # Without this, XLA would inline the function, and compute x again for each output.
    with set_xla_metadata(inlineable='false'):
      y = multiply(x, q.reshape(len(q), -1))
    y = jax.lax.reshape(y, (len(x), *scale.shape), out_sharding=out_sharding)
  else:
    y = jnp.einsum('ni,i...->n...', x, q.astype(x.dtype), preferred_element_type=jnp.float32,
                   out_sharding=out_sharding)
  return y * broadcast(scale, y)


@jax.jit
def _few_rows(x, q):
  """x [n, i] q [i, o], by sums of GROUP products and the sum of these."""
  groups = len(q) // GROUP
  end = groups * GROUP
  products = lambda x, q: (x[..., j, None] * q[..., j, :].astype(x.dtype) for j in range(q.shape[-2]))
  sums = []
  if groups:
    of_groups = _sum(products(x[:, :end].reshape(-1, groups, GROUP), q[:end].reshape(groups, GROUP, -1)))
    sums = [of_groups[:, group] for group in range(groups)]
  return _sum([*sums, *products(x[:, end:], q[end:])])


def _sum(terms):
  return functools.reduce(operator.add, terms)


@jax.jit
def _in_blocks(x, q):
  """x [n, i] q [i, o], by blocks of columns; the last block may begin in the one before it."""
  columns = min(max(BLOCK // len(q) // WIDTH, 1) * WIDTH, q.shape[1])

  def multiply(block, y):
    at = jnp.minimum(block * columns, q.shape[1] - columns)
    w = jax.lax.dynamic_slice_in_dim(q, at, columns, 1).astype(x.dtype)
    return jax.lax.dynamic_update_slice_in_dim(y, x @ w, at, 1)

  return jax.lax.fori_loop(0, -(-q.shape[1] // columns), multiply, jnp.zeros((len(x), q.shape[1]), x.dtype))
