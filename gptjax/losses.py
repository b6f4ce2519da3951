"""The next-token loss, computed a few positions at a time.

Letters: b batch, t time (all positions), s positions of one chunk, n = b s tokens of one chunk,
d model width, v vocabulary. Logits of a whole batch are the largest array of a training step (b t v);
here one chunk of them (n v) is alive at a time, and the gradient is taken on the spot, so that the
backward pass need not compute them again.
"""

import functools

import jax
import jax.numpy as jnp

from gptjax import sharding
from gptjax.sharding import rows


def next_token_loss(x, wte, targets, n_vocab, chunk):
  """Sum over counted targets of -log softmax(x wte^T)[target], and their number.

  Args:
    x: [b, t, d] features, in the compute dtype.
    wte: [v, d] tied output matrix in the same dtype; rows from n_vocab on are padding.
    targets: int32[b, t]; negative: not counted.
    n_vocab: real vocabulary size.
    chunk: positions of each sequence whose logits are alive at one time; 0: all.

  Returns:
    (float32[], float32[]): sum in nats (divide by the global count), and count.
  """
  t = x.shape[1]
  chunk = min(chunk, t) if chunk > 0 else t
  short = -t % chunk
  if short:
    x = jnp.pad(x, ((0, 0), (0, short), (0, 0)))
    targets = jnp.pad(targets, ((0, 0), (0, short)), constant_values=-1)
  starts = range(0, x.shape[1], chunk)
  cut = lambda a: jnp.stack([rows(a[:, start:start + chunk]) for start in starts])
  loss = _chunked(cut(x), wte, cut(targets), n_vocab)
  return loss, (targets >= 0).sum(dtype=jnp.float32)


def _nll(x, wte, targets, n_vocab):
  """One chunk: sum of losses, and what its gradient needs."""
  logits = jnp.einsum('nd,vd->nv', x, wte, preferred_element_type=jnp.float32)
  column = jnp.arange(wte.shape[0], out_sharding=sharding.compute('vocab'))
  logits = jnp.where(column < n_vocab, logits, -jnp.inf)
  normalizer = jax.nn.logsumexp(logits, axis=-1)
  hit = column == targets[..., None]
  counted = targets >= 0
  nll = normalizer - jnp.where(hit, logits, 0).sum(-1)
  return jnp.where(counted, nll, 0).sum(), (logits, normalizer, hit, counted)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _chunked(x, wte, targets, n_vocab):
  """Sum of losses over chunks: x [chunks, n, d], targets [chunks, n]."""
  def body(total, chunk):
    loss, _ = _nll(chunk[0], wte, chunk[1], n_vocab)
    return total + loss, None
  return jax.lax.scan(body, jnp.zeros(()), (x, targets))[0]


def _chunked_fwd(x, wte, targets, n_vocab):
  """Loss and both gradients in one pass: d loss / d logits = softmax - one-hot."""
  partial_sum = sharding.summed_later('vocab', None)

  def body(carry, chunk):
    total, grad_wte = carry
    x, targets = chunk
    loss, (logits, normalizer, hit, counted) = _nll(x, wte, targets, n_vocab)
    grad = jnp.where(counted[..., None], jnp.exp(logits - normalizer[..., None]) - hit, 0)
    grad = grad.astype(x.dtype)
    grad_x = jnp.einsum('nv,vd->nd', grad, wte,
                        out_sharding=sharding.compute('batch', None))
    grad_wte += jnp.einsum('nv,nd->vd', grad, x, preferred_element_type=jnp.float32,
                           out_sharding=partial_sum)
    return (total + loss, grad_wte), grad_x

  start = jnp.zeros((), jnp.float32), jnp.zeros(wte.shape, jnp.float32, out_sharding=partial_sum)
  (total, grad_wte), grad_x = jax.lax.scan(body, start, (x, targets))
  return total, (grad_x, jax.reshard(grad_wte, jax.typeof(wte).sharding.spec).astype(wte.dtype))


def _chunked_bwd(n_vocab, gradients, cotangent):
  del n_vocab
  grad_x, grad_wte = gradients
  scale = lambda grad: (cotangent * grad).astype(grad.dtype)
  return scale(grad_x), scale(grad_wte), None


_chunked.defvjp(_chunked_fwd, _chunked_bwd)
