"""Causal self-attention.

Letters: b batch, t queries, s keys, h heads, j heads of keys and values, g = h / j, k head size. Heads 0 to
g - 1 of the queries attend to head 0 of the keys, the next g heads to head 1, and so on.
"""

import functools

import jax
import jax.numpy as jnp

from gptjax.errors import InputError
from gptjax.kernels import cpu_matmul, fused
from gptjax.model.layers import dropout, fold_in
from gptjax.parallel import sharding

KERNELS = ('auto', 'xla', 'cudnn', 'splash', 'pallas')

FUSED_KERNELS = KERNELS[2:]
N_QUERY_BLOCKS = 4  # xla: keys after the end of a block of queries are skipped


def check(config, device):
  """Raise InputError if the kernel does not support the config on this device.

  Args:
    config: the resolved config.
    device: a JAX device or a description of one.
  """
  kernel = config.attention.kernel
  if kernel in FUSED_KERNELS and (reason := fused.unsupported_reason(kernel, config, device)):
    raise InputError(f'config.attention.kernel = {kernel} {reason}')


def attention(q, k, v, *, kernel, rate, keys, window=0, segments=None):
  """softmax(q k^T / sqrt(head size)) v, each position attending to itself and earlier ones.

  Args:
    q: [b, t, h, k].
    k, v: [b, t, j, k].
    kernel: 'xla', 'cudnn', 'splash' or 'pallas', the resolved `config.attention.kernel`.
    rate: dropout rate of the attention weights.
    keys: key[b], one PRNG key per sequence, or None for no dropout.
    window: number of positions that each one attends to, itself included; 0: itself and all earlier ones.
    segments: int32[b, t], numbers of the texts of a row, from 1, each of which is contiguous; a position
      attends only to those of its own text. None: each row is one text.

  Returns:
    [b, t, h, k] in the dtype of v. Scores and softmax are float32.

  Raises:
    ValueError: rate > 0 or segments, and the kernel does not support them.
  """
  if kernel == 'pallas':
    from gptjax.kernels import flash  # imports Pallas's Triton backend, which only GPUs have
    return flash.attend(q, k, v, rate=rate, keys=keys, window=window, segments=segments)
  if kernel != 'xla':
    if rate and keys is not None:
      raise ValueError(f'the attention kernel {kernel} does not support dropout, but the rate is {rate}')
    if kernel == 'splash':
      return fused.splash(q, k, v, window, segments)
    if segments is not None:
      raise ValueError('the attention kernel cudnn does not support segments')
    return fused.cudnn(q, k, v, window)
  return _attend_in_blocks(q, k, v, window, segments, None, rate, keys)


def shared_prefix_attention(q, k, v, segments, positions, window=0):
  """Causal attention of several texts that begin with the same tokens and are in one row, those tokens once.

  Args:
    q, k, v, window: as for `attention`.
    segments: int32[b, t]: 0 for the common beginning; for the rest of each text another number, which is the
      same in all its positions. A position attends to earlier ones of segment 0 and of its own.
    positions: int32[b, t], the position of each token in its text.

  Returns:
    [b, t, h, k] in the dtype of v.
  """
  return _attend_in_blocks(q, k, v, window, segments, positions, 0, None)


def _attend_in_blocks(q, k, v, window, segments, positions, rate, keys):
  """The result [b, t, h, k] of `attention`, or of `shared_prefix_attention` if there are positions.

  Keys after the last query of a block, and keys before the window of its first one, are not computed.
  """
  # Each block casts what it multiplies, so that a CPU sums gradients of k and v over blocks in float32.
  dtype, t = v.dtype, q.shape[1]
  q, k, v = (jnp.swapaxes(x, 1, 2).astype(cpu_matmul.result_dtype(dtype)) for x in (q, k, v))
  size, blocks = -(-t // N_QUERY_BLOCKS), []
  for start in range(0, t, size):
    end = min(start + size, t)
    first = max(0, start - window + 1) if window and positions is None else 0
    mask = _mask(start, end, first, window, segments, positions)
    blocks.append(_attend(q[:, :, start:end], k[:, :, first:end], v[:, :, first:end], mask, dtype, rate,
                          fold_in(keys, start)))
  return jnp.swapaxes(jnp.concatenate(blocks, axis=2), 1, 2)


def _mask(start, end, first, window, segments, positions):
  """bool[t, s] or bool[b, 1, t, s]: which of the keys `first` to `end` the queries `start` to `end` see."""
  mask = jnp.tril(jnp.ones((end - start, end - first), bool), start - first)
  of_keys, of_queries = lambda x: x[:, None, None, first:end], lambda x: x[:, None, start:end, None]
  if window and positions is None:
    mask = mask & ~jnp.tril(mask, start - first - window)
  elif window:
    mask = mask & (of_queries(positions) - of_keys(positions) < window)
  if segments is not None:
    mask = mask & ((of_keys(segments) == 0) | (of_keys(segments) == of_queries(segments)))
  return mask


def cached_attention(q, k, v, mask):
  """Attention of new queries to cached keys and values, multiplied in the dtype of the cache.

  Args:
    q: [b, t, h, k].
    k, v: [b, j, s, k].
    mask: bool[b, s], True for the keys that all queries of a row attend to.

  Returns:
    [b, t, h, k] in the dtype of q.
  """
  y = _attend(jnp.swapaxes(q, 1, 2), k, v, mask[:, None, None], k.dtype, 0, None)
  return jnp.swapaxes(y, 1, 2).astype(q.dtype)


def _attend(q, k, v, mask, dtype, rate, keys):
  """q [b, h, t, k] attends to k, v [b, j, s, k] where `mask` is True.

  The mask is bool[t or 1, s] or bool[b, 1, t or 1, s]. The queries of a group are rows of one matmul, so
  keys and values are not repeated. Operands of matmuls are cast to `dtype`, which the result has too.
  """
  g, t = q.shape[1] // k.shape[1], q.shape[2]
  if g > 1:
    q = sharding.merge_axes(sharding.split_axis(q, 1, (k.shape[1], g)), 2)
    mask = jnp.concatenate([mask] * g, axis=-2) if mask.shape[-2] > 1 else mask
  scores = _matmul(q, k, True, dtype)
  scores = jnp.where(mask, scores * q.shape[-1] ** -0.5, -jnp.inf)
  weights = jnp.exp(scores - jax.lax.stop_gradient(scores.max(-1, keepdims=True)))
  # Normalize the softmax after the matmul: y has fewer elements than the weights.
  y = _matmul(dropout(weights, rate, keys).astype(cpu_matmul.result_dtype(dtype)), v, False, dtype)
  y = (y / weights.sum(-1, keepdims=True)).astype(dtype)
  return sharding.merge_axes(sharding.split_axis(y, 2, (g, t)), 1) if g > 1 else y


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _matmul(x, y, transposed, dtype):
  """x y, or x y^T if `transposed`, over the last two dimensions, in float32; operands are cast to `dtype`.

  The gradient of the result is cast too before it is multiplied: with a float32 operand XLA would convert
  the other one to float32, and move more bytes. Gradients have the `result_dtype` of `dtype`, as x and y must
  have where gradients are computed.
  """
  return _product(x.astype(dtype), y.astype(dtype), transposed, jnp.float32)


def _product(x, y, transposed, dtype):
  subscripts = '...mk,...nk->...mn' if transposed else '...mk,...kn->...mn'
  return jnp.einsum(subscripts, x, y, preferred_element_type=dtype)


def _fwd(x, y, transposed, dtype):
  return _matmul(x, y, transposed, dtype), (x.astype(dtype), y.astype(dtype))


def _bwd(transposed, dtype, saved, gradient):
  (x, y), gradient, result = saved, gradient.astype(dtype), cpu_matmul.result_dtype(dtype)
  of_queries = (gradient, x) if transposed else (x, gradient)
  return _product(gradient, y, not transposed, result), cpu_matmul.sum_over_rows(*of_queries, result)


_matmul.defvjp(_fwd, _bwd)
