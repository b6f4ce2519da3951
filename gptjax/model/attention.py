"""Causal self-attention. Letters: b batch, t queries, s keys, h heads, k head size."""

import jax
import jax.numpy as jnp

from gptjax.errors import InputError
from gptjax.kernels import fused
from gptjax.model.layers import dropout, fold_in

KERNELS = ('auto', 'xla', 'cudnn', 'splash', 'pallas')

QUERY_BLOCKS = 4  # keys after the end of a block are skipped


def check(config, device):
  """Refuses a kernel that cannot do what the config asks of it (ValueError).

  Args:
    config: resolved.
    device: a JAX device, which need not be here.
  """
  kernel = config.attention.kernel
  if kernel in KERNELS[2:] and (why := fused.obstacle(kernel, config, device)):
    raise InputError(f'config.attention.kernel = {kernel} {why}')






def attention(q, k, v, *, kernel, rate, keys):
  """softmax(q k^T / sqrt(head size)) v, each position seeing itself and the past.

  Args:
    q, k, v: [b, t, h, k].
    kernel: 'xla', 'cudnn', 'splash' or 'pallas', as `config.attention.kernel` is once it is resolved.
    rate: dropout of the attention weights.
    keys: key[b] or None, see `dropout`.

  Returns:
    [b, t, h, k] in the dtype of v. Scores and softmax are float32.

  Raises:
    ValueError: dropout is asked of a kernel that has none.
  """
  if kernel == 'pallas':
    from gptjax.kernels import flash  # of which no other device needs anything
    return flash.attend(q, k, v, rate=rate, keys=keys)
  if kernel != 'xla':
    if rate and keys is not None:
      raise ValueError(f'the attention kernel {kernel} has no dropout, and {rate} is asked: use another')
    return {'cudnn': fused.cudnn, 'splash': fused.splash}[kernel](q, k, v)
  q, k, v = (jnp.swapaxes(x, 1, 2) for x in (q, k, v))
  size = -(-q.shape[2] // QUERY_BLOCKS)
  blocks = [_block(q, k, v, start, min(start + size, q.shape[2]), rate, keys)
            for start in range(0, q.shape[2], size)]
  return jnp.swapaxes(jnp.concatenate(blocks, axis=2), 1, 2)


def _block(q, k, v, start, end, rate, keys):
  """The queries from `start` to `end`, [b, h, end - start, k]; later keys are never touched."""
  q, k, v = q[:, :, start:end], k[:, :, :end], v[:, :, :end]
  past = jnp.tril(jnp.ones((end - start, end), bool), start)
  return _attend(q, k, v, past, rate, fold_in(keys, start))


def attention_to(q, k, v, visible):
  """Attention of new queries to keys and values that were kept.

  Args:
    q: [b, t, h, k].
    k, v: [b, h, s, k].
    visible: bool[b, s], the keys that all queries of a row see.

  Returns:
    [b, t, h, k] in the dtype of v.
  """
  return jnp.swapaxes(_attend(jnp.swapaxes(q, 1, 2), k, v, visible[:, None, None], 0, None), 1, 2)


def _attend(q, k, v, visible, rate, keys):
  """The equation: q [b, h, t, k] sees k, v [b, h, s, k] where `visible` (to broadcast to [b, h, t, s])."""
  scores = jnp.einsum('bhtk,bhsk->bhts', q, k, preferred_element_type=jnp.float32)
  scores = jnp.where(visible, scores * q.shape[-1] ** -0.5, -jnp.inf)
  weights = jnp.exp(scores - jax.lax.stop_gradient(scores.max(-1, keepdims=True)))
  kept = dropout(weights, rate, keys).astype(v.dtype)
  # The softmax is normalised after the product, where there is less to divide.
  y = jnp.einsum('bhts,bhsk->bhtk', kept, v, preferred_element_type=jnp.float32)
  return (y / weights.sum(-1, keepdims=True)).astype(v.dtype)
