"""Causal self-attention. Letters: b batch, t queries, s keys, h heads, k head size."""

import jax
import jax.numpy as jnp

from gptjax.errors import InputError
from gptjax.kernels import fused
from gptjax.model.layers import dropout, fold_in

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


def attention(q, k, v, *, kernel, rate, keys):
  """softmax(q k^T / sqrt(head size)) v, each position attending to itself and earlier ones.

  Args:
    q, k, v: [b, t, h, k].
    kernel: 'xla', 'cudnn', 'splash' or 'pallas', the resolved `config.attention.kernel`.
    rate: dropout rate of the attention weights.
    keys: key[b], one PRNG key per sequence, or None for no dropout.

  Returns:
    [b, t, h, k] in the dtype of v. Scores and softmax are float32.

  Raises:
    ValueError: rate > 0 and the kernel does not support dropout.
  """
  if kernel == 'pallas':
    from gptjax.kernels import flash  # imports Pallas's Triton backend, which only GPUs have
    return flash.attend(q, k, v, rate=rate, keys=keys)
  if kernel != 'xla':
    if rate and keys is not None:
      raise ValueError(f'the attention kernel {kernel} does not support dropout, but the rate is {rate}')
    return {'cudnn': fused.cudnn, 'splash': fused.splash}[kernel](q, k, v)
  return _attend_in_blocks(q, k, v, None, rate, keys)


def shared_prefix_attention(q, k, v, segments):
  """Causal attention of several texts that begin with the same tokens and are in one row, those tokens once.

  Args:
    q, k, v: [b, t, h, k].
    segments: int32[b, t]: 0 for the common beginning; for the rest of each text another number, which is the
      same in all its positions. A position attends to earlier ones of segment 0 and of its own.

  Returns:
    [b, t, h, k] in the dtype of v.
  """
  return _attend_in_blocks(q, k, v, segments, 0, None)


def _attend_in_blocks(q, k, v, segments, rate, keys):
  """The result [b, t, h, k] of `attention`, or of `shared_prefix_attention` if there are segments."""
  q, k, v = (jnp.swapaxes(x, 1, 2) for x in (q, k, v))
  size = -(-q.shape[2] // N_QUERY_BLOCKS)
  blocks = [_attend_block(q, k, v, segments, start, min(start + size, q.shape[2]), rate, keys)
            for start in range(0, q.shape[2], size)]
  return jnp.swapaxes(jnp.concatenate(blocks, axis=2), 1, 2)


def _attend_block(q, k, v, segments, start, end, rate, keys):
  """The attention output of queries start to end, [b, h, end - start, k]; later keys are not computed."""
  q, k, v = q[:, :, start:end], k[:, :, :end], v[:, :, :end]
  mask = jnp.tril(jnp.ones((end - start, end), bool), start)
  if segments is not None:
    of_keys, of_queries = segments[:, None, None, :end], segments[:, None, start:end, None]
    mask = mask & ((of_keys == 0) | (of_keys == of_queries))
  return _attend(q, k, v, mask, rate, fold_in(keys, start))


def cached_attention(q, k, v, mask):
  """Attention of new queries to cached keys and values.

  Args:
    q: [b, t, h, k].
    k, v: [b, h, s, k].
    mask: bool[b, s], True for the keys that all queries of a row attend to.

  Returns:
    [b, t, h, k] in the dtype of v.
  """
  return jnp.swapaxes(_attend(jnp.swapaxes(q, 1, 2), k, v, mask[:, None, None], 0, None), 1, 2)


def _attend(q, k, v, mask, rate, keys):
  """q [b, h, t, k] attends to k, v [b, h, s, k] where `mask` is True, which broadcasts to [b, h, t, s]."""
  scores = jnp.einsum('bhtk,bhsk->bhts', q, k, preferred_element_type=jnp.float32)
  scores = jnp.where(mask, scores * q.shape[-1] ** -0.5, -jnp.inf)
  weights = jnp.exp(scores - jax.lax.stop_gradient(scores.max(-1, keepdims=True)))
  weights_after_dropout = dropout(weights, rate, keys).astype(v.dtype)
  # Normalize the softmax after the matmul: y has fewer elements than the weights.
  y = jnp.einsum('bhts,bhsk->bhtk', weights_after_dropout, v, preferred_element_type=jnp.float32)
  return (y / weights.sum(-1, keepdims=True)).astype(v.dtype)
