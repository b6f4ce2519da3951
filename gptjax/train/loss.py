"""The next-token loss, computed a few positions at a time.

Letters: b batch, t time (all positions), s positions of one chunk, n = b s tokens of one chunk,
d model width, v vocabulary. Logits of a whole batch are the largest array of a training step (b t v);
here one chunk of them (n v) is alive at a time, and the forward pass computes the gradient of each chunk too,
so that the backward pass does not recompute the logits.

d loss / d logits = softmax - one-hot. Neither is materialized: multiply by exp(logits) and divide by its sum
after the matmul; a product with one-hot is an embedding lookup, or its transpose. With a soft cap c both are
multiplied by the slope of logits = c tanh(z / c), which is 1 - (logits / c)^2.
"""

import functools

import jax
import jax.numpy as jnp

from gptjax.kernels.cpu_matmul import weight_gradient
from gptjax.model.layers import lookup, soft_capped
from gptjax.parallel import sharding
from gptjax.parallel.sharding import flatten_batch


def next_token_loss(x, wte, targets, n_vocab, chunk, weights=None, soft_cap=0.0):
  """Sum over counted targets of -log softmax(x wte^T)[target], and their number.

  Args:
    x: [b, t, d] features, in the compute dtype.
    wte: [v, d] output matrix in the same dtype; rows from n_vocab on are padding.
    targets: int32[b, t]; negative: not counted.
    n_vocab: real vocabulary size.
    chunk: positions of each sequence whose logits are alive at one time; 0: all.
    weights: float32[b], factor of the losses of each sequence; None: 1.
    soft_cap: `config.model.logit_soft_cap`.

  Returns:
    (float32[], float32[]): sum in nats (divide by the global count), and count.
  """
  t = x.shape[1]
  targets = jax.reshard(targets, sharding.compute_spec('batch', None))
  chunk = min(chunk, t) if chunk > 0 else t
  padding = -t % chunk
  if padding:
    x = jnp.pad(x, ((0, 0), (0, padding), (0, 0)))
    targets = jnp.pad(targets, ((0, 0), (0, padding)), constant_values=-1)
  starts = range(0, x.shape[1], chunk)
  chunks = lambda a: jnp.stack([flatten_batch(a[:, start:start + chunk]) for start in starts])
  if weights is not None:
    weights = flatten_batch(weights[:, None] * jnp.ones((1, chunk)))
  loss = _chunked_loss(chunks(x), wte, chunks(targets), weights, n_vocab, soft_cap)
  return loss, (targets >= 0).sum(dtype=jnp.float32)


def _exponentials(x, wte, targets, n_vocab, soft_cap):
  """For one chunk: exp(logits - max) float32[n, v], its sums [n], the losses [n], and slopes of the soft cap.

  The slopes are those of the logits [n, v] and of the targets' logits [n]; None without a cap.
  """
  logits = jnp.einsum('nd,vd->nv', x, wte, preferred_element_type=jnp.float32)
  logits = soft_capped(logits, soft_cap)
  take = lambda row, target: row.at[target[None]].get(out_sharding=jax.P(None))
  target_logit = jax.vmap(take)(logits, targets)[:, 0]
  slopes = [1 - (z / soft_cap) ** 2 for z in (logits, target_logit)] if soft_cap else None
  if n_vocab < wte.shape[0]:
    column = jnp.arange(wte.shape[0], out_sharding=sharding.compute_spec('vocab'))
    logits = jnp.where(column < n_vocab, logits, -jnp.inf)
  maximum = logits.max(-1)
  exps = jnp.exp(logits - maximum[:, None])
  sums = exps.sum(-1)
  return exps, sums, jnp.where(targets >= 0, maximum - target_logit + jnp.log(sums), 0), slopes


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _chunked_loss(x, wte, targets, weights, n_vocab, soft_cap):
  """Sum of losses over chunks: x [chunks, n, d], targets [chunks, n], weights [n] or None."""
  def body(totals, chunk):
    x, targets = chunk
    return totals + _exponentials(x, wte, targets, n_vocab, soft_cap)[2], None
  return _weighted(jax.lax.scan(body, _zero_losses(targets), (x, targets))[0], weights).sum()


def _weighted(a, weights):
  """a [n] or [n, 1] times weights [n]; a where weights is None."""
  return a if weights is None else a * (weights if a.ndim == 1 else weights[:, None])


def _zero_losses(targets):
  """Initial totals [n], one per position of a chunk: one all-reduce after the scan serves all chunks."""
  return jnp.zeros(targets.shape[1:], jnp.float32, out_sharding=sharding.compute_spec('batch'))


def _chunked_loss_fwd(x, wte, targets, weights, n_vocab, soft_cap):
  """The loss and both gradients in one pass."""
  partial_sum = sharding.unreduced_spec('vocab', None)

  def body(carry, chunk):
    totals, grad_wte = carry
    x, targets = chunk
    exps, sums, losses, slopes = _exponentials(x, wte, targets, n_vocab, soft_cap)
    exps = (exps * slopes[0] if slopes else exps).astype(x.dtype)
    factor = _weighted(jnp.where(targets >= 0, 1 / sums, 0)[:, None], weights)
    grad_x = factor * jnp.einsum('nv,vd->nd', exps, wte, preferred_element_type=jnp.float32,
                                out_sharding=sharding.compute_spec('batch', None))
    x = (factor * x).astype(x.dtype)
    grad = jnp.einsum('nv,nd->vd', exps, x, preferred_element_type=jnp.float32, out_sharding=partial_sum)
    grad_wte += weight_gradient(grad, exps, x)
    return (totals + losses, grad_wte), (grad_x, slopes and slopes[1])

  start = _zero_losses(targets), jnp.zeros(wte.shape, jnp.float32, out_sharding=partial_sum)
  (totals, grad_wte), (grad_x, slopes) = jax.lax.scan(body, start, (x, targets))
  rows_of_targets = lambda table: lookup(table, jnp.maximum(targets, 0), (None, 'batch'))
  target_rows, lookup_vjp = jax.vjp(rows_of_targets, wte)
  counted = (targets >= 0)[..., None]

  def weighted(a):
    a = a if weights is None else a * weights[:, None].astype(a.dtype)
    return a if slopes is None else a * slopes[..., None].astype(a.dtype)
  grad_x -= jnp.where(counted, weighted(target_rows), 0)
  if not jax.typeof(wte).sharding.spec.reduced:
    grad_wte = jax.reshard(grad_wte, jax.typeof(wte).sharding.spec)
  grad_wte += lookup_vjp(jnp.where(counted, weighted(-x), 0))[0]
  return _weighted(totals, weights).sum(), (grad_x.astype(x.dtype), grad_wte.astype(wte.dtype))


def _chunked_loss_bwd(n_vocab, soft_cap, gradients, cotangent):
  del n_vocab, soft_cap
  scale = lambda grad: (sharding.reduced_scalar(cotangent, grad) * grad).astype(grad.dtype)
  return *map(scale, gradients), None, None


_chunked_loss.defvjp(_chunked_loss_fwd, _chunked_loss_bwd)
