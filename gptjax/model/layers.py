"""Layers: layer norm, projection, embedding lookup, dropout. Letters as in `gptjax.model.gpt`."""

import functools

import jax
import jax.numpy as jnp
from flax import nnx

from gptjax.kernels import cpu_matmul
from gptjax.model.parameters import constant, gathered, weight
from gptjax.parallel import sharding
from gptjax.parallel.sharding import merge, spread


def again_when_needed(f, scanned):
  """f, of what costs little arithmetic, computed again in the backward pass from what goes in.

  What lies between would be several times as large, and memory is the slower of a GPU's ceilings. Within a
  scan nothing could merge the two; where layers are unrolled, the compiler would, and keep what lies between.
  """
  return jax.checkpoint(f, prevent_cse=not scanned)


class LayerNorm(nnx.Module):
  """g (x - mean) / sqrt(variance + epsilon) + b over the last axis, in float32."""

  def __init__(self, config):
    self.epsilon, self.scanned = config.layer_norm_epsilon, config.scan
    self.g = constant(1, (config.n_embd,), (None,), 'float32')
    self.b = constant(0, (config.n_embd,), (None,), 'float32')

  def __call__(self, x):
    def normed(x, g, b):
      y = x.astype(jnp.float32)
      y = y - y.mean(-1, keepdims=True)
      y = y * jax.lax.rsqrt((y * y).mean(-1, keepdims=True) + self.epsilon)
      return (y * spread(g, y) + spread(b, y)).astype(x.dtype)
    return again_when_needed(normed, self.scanned)(x, gathered(self.g), gathered(self.b))


class Projection(nnx.Module):
  """A weight and its bias: what OpenAI's code calls a conv1d of width one."""

  def __init__(self, key, shape, axes, bias_shape, bias_axes, std, compute_dtype=None):
    self.w = weight(key, shape, axes, std, compute_dtype)
    self.b = constant(0, bias_shape, bias_axes, compute_dtype)
    self.turned = False  # True: the weight is the matrix [out, in], see `decode.ready`

  def __call__(self, x, out_sharding=None):
    """x [n, in] times the weight, plus the bias: [n, out...], a dimension of heads being e, as exact as x.

    The factors of the product are of the weight's dtype (see `products_in`).
    """
    bias = flat(gathered(self.b), self.b.axes)
    if self.turned:
      y = jnp.einsum('ni,oi->no', x.astype(self.w.dtype), self.w[...], preferred_element_type=x.dtype)
      place = jax.P(jax.typeof(x).sharding.spec[0], *jax.typeof(bias).sharding.spec.partitions)
      y = jax.lax.reshape(y, (len(x), *bias.shape), out_sharding=place)
    else:
      y = cpu_matmul.product(x, flat(gathered(self.w), self.w.axes), out_sharding)
    return (y + spread(bias, y)).astype(x.dtype)


def flat(x, axes):
  """Merges the dimensions of heads and head size, if x has them; so is each product one of matrices."""
  heads = [dimension for dimension, axis in enumerate(axes) if axis in ('heads', 'whole_heads')]
  return merge(x, *heads) if heads else x


def dropout(x, rate, keys):
  """Zeroes elements with probability `rate` and scales the others up.

  Args:
    x: [b, ...].
    rate: between 0 and 1.
    keys: key[b], one a sequence, so that a mask depends on its sequence alone and not on how the
      batch is cut into microbatches, devices and hosts; None: no dropout.
  """
  if keys is None or rate == 0:
    return x
  spec = jax.P(*jax.typeof(x).sharding.spec[1:])
  draw = lambda key: jax.random.bernoulli(key, 1 - rate, x.shape[1:], out_sharding=spec)
  return jnp.where(jax.vmap(draw)(keys), x / (1 - rate), 0)


def fold_in(keys, index):
  """A branch of each sequence's key; None stays None."""
  return None if keys is None else jax.vmap(jax.random.fold_in, (0, None))(keys, index)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def lookup(table, ids, axes):
  """Rows of a table: [v, d] at int32[...] gives [..., d].

  Its gradient adds up in float32: a frequent token gets thousands of rows, and a sum in bfloat16 stops
  growing at 256 times what is added.

  Args:
    table: [v, d].
    ids: int32[...].
    axes: logical axes of ids, like ('batch', None).
  """
  return table.at[ids].get(out_sharding=sharding.compute(*axes, None))


def _lookup_fwd(table, ids, axes):
  return lookup(table, ids, axes), (table, ids)


def _lookup_bwd(axes, saved, cotangent):
  table, ids = saved
  place = jax.ShapeDtypeStruct(table.shape, jnp.float32, sharding=jax.typeof(table).sharding)
  transpose = jax.linear_transpose(lambda table: lookup.fun(table, ids, axes), place)
  return transpose(cotangent.astype(jnp.float32))[0].astype(table.dtype), None


lookup.defvjp(_lookup_fwd, _lookup_bwd)
