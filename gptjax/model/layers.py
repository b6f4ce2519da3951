"""Layers: norms, projection, embedding lookup, dropout. Letters as in `gptjax.model.gpt`."""

import functools

import jax
import jax.numpy as jnp
from flax import nnx

from gptjax.kernels import cpu_forms, cpu_matmul, int8
from gptjax.model.parameters import constant, gathered, weight
from gptjax.parallel import sharding
from gptjax.parallel.sharding import broadcast, merge_axes, split_axis


def recomputed(f, scanned):
  """f, rematerialized in the backward pass: its inputs are smaller than its intermediates, and f is cheap.

  GPUs are bandwidth-bound here. Inside a scan CSE cannot undo the recomputation; in unrolled layers it can,
  hence prevent_cse.
  """
  return jax.checkpoint(f, prevent_cse=not scanned)


class Norm(nnx.Module):
  """A norm over the last axis, in float32: `config.model.norm_type`.

      layer: g (x - mean) / sqrt(variance + epsilon) + b       Ba et al. 2016; b only with `config.model.bias`
      rms:   g x / sqrt(mean(x^2) + epsilon)                   Zhang and Sennrich 2019

  Args:
    config: `config.model`.
    size: of the axis; None: the width of the model.
    bias: False: there is no b in any case.
  """

  def __init__(self, config, size=None, bias=True):
    self.epsilon, self.scanned = config.layer_norm_epsilon, config.scan
    self.centered = config.norm_type == 'layer'
    self.g = constant(1, (size or config.n_embd,), (None,), float32=True)
    if self.centered and bias and config.bias:
      self.b = constant(0, (size or config.n_embd,), (None,), float32=True)

  def __call__(self, x):
    def normed(x, g, b):
      y = x.astype(jnp.float32)
      if self.centered:
        y = y - y.mean(-1, keepdims=True)
      y = y * jax.lax.rsqrt((y * y).mean(-1, keepdims=True) + self.epsilon)
      y = y * broadcast(g, y)
      return (y if b is None else y + broadcast(b, y)).astype(x.dtype)
    b = gathered(self.b) if hasattr(self, 'b') else None
    return recomputed(normed, self.scanned)(x, gathered(self.g), b)


class Projection(nnx.Module):
  """Affine map x W + b (OpenAI's conv1d): [b, t, inputs...] -> [b, t, outputs...] in the dtype of x.

  The operands of the multiplication have the dtype of W.

  Args:
    key: JAX random key.
    inputs, outputs: lists of (size, logical axis), the dimensions of W.
    std: standard deviation of the first weights.
    n: number of matrices fused into one W [inputs..., n, outputs...], as for query, key and value; the result
      is then a tuple of n arrays. None: one matrix.
    bias: whether there is a b.
    float32: compute in float32, see `Declaration`.
  """

  def __init__(self, key, inputs, outputs, std, *, n=None, bias=True, float32=False):
    fused = [(n, None)] if n else []
    sizes, axes = zip(*inputs, *fused, *outputs)
    first = len(inputs) + len(fused)
    self.w = weight(key, sizes, axes, std, inputs=tuple(range(len(inputs))),
                    outputs=tuple(range(first, len(sizes))), float32=float32)
    # `embed` shards stored weights only: activations and biases are not sharded over it.
    self.output_axes = tuple(None if axis == 'embed' else axis for axis in axes[len(inputs):])
    self.output_sizes = sizes[len(inputs):]
    if bias:
      self.b = constant(0, self.output_sizes, self.output_axes, float32=float32)
    self.n = n
    # For decoding, True: W is stored as a matrix [outputs, inputs]. With int8 weights there is a `scale`.
    self.transposed = False

  def __call__(self, x, activation=lambda y: y):
    rows = flatten_inputs(x, self.w.declaration.axes)
    return self.unflattened(activation(self.affine(rows)), x.shape[:2])

  def affine(self, rows):
    """x W + b for rows [n, i]: [n, outputs...] with heads and head size merged."""
    axes = self.output_axes
    spec = sharding.compute_spec('batch', *merged_axes(axes))
    if hasattr(self, 'scale'):
      w, scale = (merge_heads(gathered(param), param.declaration.axes) for param in (self.w, self.scale))
      y = int8.matmul(rows, w, scale, spec)
    elif self.transposed:
      y = cpu_matmul.matmul_by_rows(rows.astype(self.w.dtype), self.w[...])
      y = jax.lax.reshape(y, (len(rows), *merged_sizes(self.output_sizes, axes)), out_sharding=spec)
    else:
      y = cpu_matmul.matmul(rows, merge_heads(gathered(self.w), self.w.declaration.axes), spec)
    if hasattr(self, 'b'):
      y += broadcast(merge_heads(gathered(self.b), axes), y)
    return y.astype(rows.dtype)

  def unflattened(self, y, leading):
    """Reshape the result [n, outputs...] of `affine` to [b, t, outputs...], where `leading` is (b, t)."""
    y, axes, sizes = split_axis(y, 0, leading), self.output_axes, self.output_sizes
    if self.n:
      return tuple(split_heads(part, axes[1:], sizes[1:]) for part in cpu_forms.unstacked(y, 2))
    return split_heads(y, axes, sizes)


def flatten_inputs(x, axes):
  """[b, t, inputs...] -> [n, i], for a plain matmul with a weight of these logical axes.

  With [n, i] [i, o] the gradient of a weight is one matmul on every backend; for [b, t, i] [i, o] XLA:CPU
  inserts transposes, at less than half the speed.
  """
  return merge_heads(merge_axes(x, 0), (None, *axes[:x.ndim - 2]))


def merge_heads(x, axes):
  """Merges the dimensions (heads, head size) of x into one, if its logical axes have them."""
  heads = heads_dimension(axes)
  return x if heads is None else merge_axes(x, heads)


def split_heads(y, axes, sizes):
  """The inverse of `merge_heads` for y [b, t, ...], whose last dimensions have these axes and sizes."""
  heads = heads_dimension(axes)
  return y if heads is None else split_axis(y, 2 + heads, sizes[heads:heads + 2])


def merged_axes(axes):
  """The logical axes of `merge_heads(x, axes)`."""
  heads = heads_dimension(axes)
  return axes if heads is None else (*axes[:heads + 1], *axes[heads + 2:])


def merged_sizes(sizes, axes):
  """The sizes of `merge_heads(x, axes)` for those of x."""
  heads = heads_dimension(axes)
  return sizes if heads is None else (*sizes[:heads], sizes[heads] * sizes[heads + 1], *sizes[heads + 2:])


def heads_dimension(axes):
  """Index of the dimension of heads; None if there is none."""
  return next((d for d, axis in enumerate(axes) if axis in sharding.HEADS), None)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def lookup(table, ids, axes):
  """Rows of a table: [v, d] at int32[...] gives [..., d].

  The gradient is accumulated in float32: a frequent token sums thousands of rows, and a bfloat16 sum stops
  growing at 256 times the addend.

  Args:
    table: [v, d].
    ids: int32[...].
    axes: logical axes of ids, like ('batch', None).
  """
  return table.at[ids].get(out_sharding=sharding.compute_spec(*axes, None))


def lookup_int8(table, scale, ids, axes, dtype):
  """`lookup` without a gradient in the int8 matrix [d, v] with a scale [v]: [..., d] in `dtype`."""
  rows = table.at[:, ids].get(out_sharding=sharding.compute_spec(None, *axes))
  scales = scale.at[ids].get(out_sharding=sharding.compute_spec(*axes))
  return jnp.moveaxis(rows * scales, 0, -1).astype(dtype)


def _lookup_fwd(table, ids, axes):
  return lookup(table, ids, axes), (table, ids)


def _lookup_bwd(axes, saved, cotangent):
  table, ids = saved
  like_table = jax.ShapeDtypeStruct(table.shape, jnp.float32, sharding=jax.typeof(table).sharding)
  transpose = jax.linear_transpose(lambda table: lookup.fun(table, ids, axes), like_table)
  return transpose(cotangent.astype(jnp.float32))[0].astype(table.dtype), None


lookup.defvjp(_lookup_fwd, _lookup_bwd)


def soft_capped(logits, cap):
  """cap tanh(logits / cap), which bounds logits (Gemma 2, section 2); the logits if cap is 0."""
  return cap * jnp.tanh(logits / cap) if cap else logits


def dropout(x, rate, keys):
  """Zeroes elements with probability `rate` and scales the others by 1 / (1 - rate).

  Args:
    x: [b, ...].
    rate: between 0 and 1.
    keys: key[b], one PRNG key per sequence, so that a mask depends on its sequence only and not on
      microbatches, devices and hosts; None: no dropout.
  """
  if keys is None or rate == 0:
    return x
  spec = jax.P(*jax.typeof(x).sharding.spec[1:])
  draw = lambda key: jax.random.bernoulli(key, 1 - rate, x.shape[1:], out_sharding=spec)
  return jnp.where(jax.vmap(draw)(keys), x / (1 - rate), 0)


def fold_in(keys, index):
  """fold_in for the key of each sequence; None for None."""
  return None if keys is None else jax.vmap(jax.random.fold_in, (0, None))(keys, index)


def split_keys(keys, n):
  """Split the key of each sequence: n arrays key[b] from key[b]; Nones for None."""
  if keys is None:
    return (None,) * n
  return jax.vmap(lambda key: jax.random.split(key, n), out_axes=1)(keys)
