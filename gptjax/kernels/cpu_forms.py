"""Forms of operations beside matmuls that are fast on XLA:CPU; other devices compute the plain ones.

On GPUs and TPUs these forms move more bytes: the plain ones are fused into the matmuls before and after them.
"""

import jax
import jax.numpy as jnp

from gptjax.kernels.cpu_matmul import on_one_cpu


def elementwise(f):
  """f of one array; on one CPU device it is computed in float32 and rounded once, to the dtype of the array.

  In bfloat16 XLA:CPU rounds after each operation, which takes four times as long.
  """
  def in_float32(x):
    return f(x.astype(jnp.float32)).astype(x.dtype)
  return lambda x: in_float32(x) if on_one_cpu() else f(x)


def as_bits(x):
  """x, on one CPU device as integers of the same bits if it is bfloat16; `from_bits` is the inverse.

  For an array of which a loop takes slices: XLA:CPU would convert all of a bfloat16 one to float32.
  """
  if on_one_cpu() and x.dtype == jnp.bfloat16:
    return jax.lax.bitcast_convert_type(jax.reshard(x, jax.P()), jnp.uint16)
  return x


def from_bits(x, dtype):
  """x, or the numbers of `dtype` whose bits are the integers x."""
  return x if x.dtype == dtype else jax.lax.bitcast_convert_type(x, dtype)


def unstacked(x, axis):
  """List of the parts of x along an axis, without that axis.

  The gradient of slices is a sum of padded arrays. XLA:CPU computes it with what made each of them, element
  by element; the gradient of `jnp.unstack` is a concatenation.
  """
  if on_one_cpu():
    return list(jnp.unstack(x, axis=axis))
  return [jax.lax.index_in_dim(x, i, axis, keepdims=False) for i in range(x.shape[axis])]
