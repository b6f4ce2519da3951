"""Causal self-attention.

Letters: b batch, t queries, s keys, h heads, j heads of keys and values, g = h / j, k head size. Heads 0 to
g - 1 of the queries attend to head 0 of the keys, the next g heads to head 1, and so on.
"""

import functools
import re

import jax
import jax.numpy as jnp

from gptjax.errors import InputError
from gptjax.kernels import fused
from gptjax.kernels.cpu_matmul import result_dtype
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
  """The result [b, t, h, k] of `attention`, or of `shared_prefix_attention` if there are positions."""
  q, k, v = (jnp.swapaxes(x, 1, 2) for x in (q, k, v))
  size = -(-q.shape[2] // N_QUERY_BLOCKS)
  bounds = [(start, min(start + size, q.shape[2])) for start in range(0, q.shape[2], size)]
  blocks = [_attend_block(q, k, v, window, segments, positions, *block, rate, keys) for block in bounds]
  return jnp.swapaxes(jnp.concatenate(blocks, axis=2), 1, 2)


def _attend_block(q, k, v, window, segments, positions, start, end, rate, keys):
  """The attention output of queries start to end, [b, h, end - start, k].

  Keys after the last query, and keys before the window of the first one, are not computed.
  """
  first = max(0, start - window + 1) if window and positions is None else 0
  q, k, v = q[:, :, start:end], k[:, :, first:end], v[:, :, first:end]
  mask = jnp.tril(jnp.ones((end - start, end - first), bool), start - first)
  of_keys, of_queries = lambda x: x[:, None, None, first:end], lambda x: x[:, None, start:end, None]
  if window and positions is None:
    mask = mask & ~jnp.tril(mask, start - first - window)
  elif window:
    mask = mask & (of_queries(positions) - of_keys(positions) < window)
  if segments is not None:
    mask = mask & ((of_keys(segments) == 0) | (of_keys(segments) == of_queries(segments)))
  return _attend(q, k, v, mask, rate, fold_in(keys, start))


def cached_attention(q, k, v, mask):
  """Attention of new queries to cached keys and values.

  Args:
    q: [b, t, h, k].
    k, v: [b, j, s, k].
    mask: bool[b, s], True for the keys that all queries of a row attend to.

  Returns:
    [b, t, h, k] in the dtype of v.
  """
  return jnp.swapaxes(_attend(jnp.swapaxes(q, 1, 2), k, v, mask[:, None, None], 0, None), 1, 2)


def _attend(q, k, v, mask, rate, keys):
  """q [b, h, t, k] attends to k, v [b, j, s, k] where `mask` is True.

  The mask is bool[t or 1, s] or bool[b, 1, t or 1, s]. The queries of a group are rows of one matmul, so
  keys and values are not repeated.
  """
  g, t = q.shape[1] // k.shape[1], q.shape[2]
  if g > 1:
    q = sharding.merge_axes(sharding.split_axis(q, 1, (k.shape[1], g)), 2)
    mask = jnp.concatenate([mask] * g, axis=-2) if mask.shape[-2] > 1 else mask
  scores = _matmul('bhtk,bhsk->bhts', q, k)
  scores = jnp.where(mask, scores * q.shape[-1] ** -0.5, -jnp.inf)
  weights = jnp.exp(scores - jax.lax.stop_gradient(scores.max(-1, keepdims=True)))
  weights_after_dropout = dropout(weights, rate, keys).astype(v.dtype)
  # Normalize the softmax after the matmul: y has fewer elements than the weights.
  y = _matmul('bhts,bhsk->bhtk', weights_after_dropout, v)
  y = (y / weights.sum(-1, keepdims=True)).astype(v.dtype)
  return sharding.merge_axes(sharding.split_axis(y, 2, (g, t)), 1) if g > 1 else y


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _matmul(subscripts, x, y):
  """jnp.einsum of x and y, which have the same dtype, with a float32 result.

  The gradient of the result is cast to the dtype of x and y before it is multiplied by them: with a float32
  operand XLA would convert the other one to float32, and move more bytes.
  """
  return jnp.einsum(subscripts, x, y, preferred_element_type=jnp.float32)


def _fwd(subscripts, x, y):
  return _matmul(subscripts, x, y), (x, y)


def _bwd(subscripts, saved, gradient):
  (x, y), gradient = saved, gradient.astype(saved[0].dtype)
  of_x, of_y, of_result = re.split(',|->', subscripts)
  multiply = functools.partial(jnp.einsum, preferred_element_type=result_dtype(x.dtype))
  grad_x = multiply(f'{of_result},{of_y}->{of_x}', gradient, y)
  grad_y = multiply(f'{of_result},{of_x}->{of_y}', gradient, x)
  return grad_x.astype(x.dtype), grad_y.astype(y.dtype)


_matmul.defvjp(_fwd, _bwd)
