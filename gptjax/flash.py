"""Causal attention that may drop weights, in kernels of our own for NVIDIA GPUs: no array of scores exists.

With z the scores q k^T / sqrt(head size) of the past, and m 0 where a weight is dropped, else 1 / (1 - rate):

    p_ts = exp(z_ts - lse_t)                   lse_t  = log(sum_s exp(z_ts))
    y_t  = sum_s m_ts p_ts v_s                 dv_s   = sum_t m_ts p_ts dy_t
    dq_t = sum_s dz_ts k_s / sqrt(k)           dz_ts  = p_ts (m_ts dy_t . v_s - dy_t . y_t)
    dk_s = sum_t dz_ts q_t / sqrt(k)

after FlashAttention-2 (Dao 2023, algorithms 1 and 2). Letters: b batch, t queries, s keys, h heads, k head size.

Forward, a program has a block of queries and goes through the keys of their past, block by block; y and lse are
all that it leaves. Backward, scores, weights and mask are computed again from those, for it takes less time to do
so than to read them from memory: once by blocks of queries for dq, once by blocks of keys for dk and dv, so that
no two programs add to one sum and the gradients are the same each time.

Whether a weight is dropped is a hash of its sequence's key, its head's number in the whole model, and its two
positions: the same in each pass, whatever the blocks are, and wherever on a mesh it is computed.

Pallas's Triton backend makes the kernels. JAX 0.11 deprecates it (its successor asks for a GPU from Hopper on).
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

HEAD_SIZES = (16, 32, 64, 128)  # Triton's blocks are powers of two, and its products no narrower than 16
LOG2E = np.float32(np.log2(np.e))  # weights are powers of two inside: a GPU has that instruction


class Cut(NamedTuple):
  """How a kernel is cut up: rows that a program has, and rows, a divisor, of what it goes through at a time."""
  own: int
  other: int
  warps: int
  stages: int


FORWARD, DQ, DKV = Cut(128, 64, 4, 3), Cut(64, 64, 4, 3), Cut(64, 64, 4, 3)  # docs/speed.md: why so


class How(NamedTuple):
  """What is known when a kernel is compiled; rate 0: it has no dropout."""
  rate: float
  cuts: tuple
  interpret: bool


def attend(q, k, v, *, rate=0.0, keys=None, cuts=None, interpret=False):
  """softmax(q k^T / sqrt(head size)) v with a causal mask and dropped weights.

  Args:
    q, k, v: [b, t, h, k], float32 or bfloat16; any t (it is padded to whole blocks, which nothing before them
      sees), k of HEAD_SIZES.
    rate: dropout of the weights.
    keys: key[b], one a sequence; None: no dropout.
    cuts: three Cut, for y, dq, and dk and dv; None: those above, less where t is short.
    interpret: compute as JAX would on this CPU, to test the kernels where there is no GPU.

  Returns:
    [b, t, h, k] in the dtype of v. Scores, softmax and sums are float32.
  """
  t, spec = q.shape[1], jax.typeof(q).sharding.spec
  seeds = _seeds(keys, q.shape[2], spec[2]) if rate and keys is not None else None
  least = max(16, pl.next_power_of_2(t))
  cuts = cuts or tuple(cut._replace(own=min(cut.own, least), other=min(cut.other, least))
                       for cut in (FORWARD, DQ, DKV))
  padding = (0, 0), (0, -t % max(cut.own for cut in cuts)), (0, 0), (0, 0)
  q, k, v = (jnp.pad(x, padding) for x in (q, k, v))
  return _on_shards(How(rate if seeds is not None else 0.0, cuts, interpret), q, k, v, seeds)[:, :t]


def mask(keys, rate, h, t):
  """Which weights stay: bool[b, h, t, t] for key[b]. What the kernels compute in blocks, as an array to test."""
  seeds = jnp.moveaxis(_seeds(keys, h, None), -1, 0)[..., None, None]
  positions = jnp.arange(t, dtype=jnp.uint32)
  return _kept(seeds, positions[:, None], positions, rate)


def _seeds(keys, h, place):
  """uint32[b, h, 2] from key[b], for heads that lie on the mesh axis `place`."""
  words, heads = jax.random.key_data(keys), jnp.arange(h, dtype=jnp.uint32, out_sharding=jax.P(place))
  return _mixed(words[:, None] ^ _mixed(heads + np.uint32(1))[None, :, None])


def _kept(seeds, t, s, rate):
  """bool for positions uint32 t and s, that broadcast: t, the fewer in a block's row, takes more of the work."""
  first, second = (_mixed(seeds[i] + t) for i in range(2))  # 64 bits for each query
  x = first + s * np.uint32(0x9e3779b9)
  x = ((x ^ (x >> np.uint32(16))) * np.uint32(0x7feb352d)) ^ second
  x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846ca68b)
  return x >= np.uint32(round(rate * 2**32))  # by its upper bits, which are mixed best


def _mixed(x):
  """A bijection of uint32 in which each bit of x turns about half of those that come out."""
  x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7feb352d)
  x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846ca68b)
  return x ^ (x >> np.uint32(16))


# On each device's share, [b, t, h, k], nothing is sent. `kernels._on_shards` says why the backward pass is mapped
# over devices, too, and not derived.


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _on_shards(how, q, k, v, seeds):
  return _on_shards_forward(how, q, k, v, seeds)[0]


def _on_shards_forward(how, q, k, v, seeds):
  spec = jax.typeof(q).sharding.spec
  out = spec, jax.P(spec[0], spec[2], None)
  y, lse = jax.shard_map(functools.partial(_forward, how), out_specs=out, check_vma=False)(q, k, v, seeds)
  return y, (q, k, v, seeds, y, lse)


def _on_shards_backward(how, kept, dy):
  spec = jax.typeof(dy).sharding.spec
  pull = jax.shard_map(functools.partial(_backward, how), out_specs=(spec,) * 3, check_vma=False)
  return *pull(*kept, dy), None


_on_shards.defvjp(_on_shards_forward, _on_shards_backward)


def _forward(how, q, k, v, seeds):
  """(y [b, t, h, k], lse float32[b, h, t]); lse in powers of two."""
  rows = jax.ShapeDtypeStruct((q.shape[0], q.shape[2], q.shape[1]), jnp.float32)
  return _call(_forward_kernel, how, 0, own=(q,), other=(k, v), seeds=seeds, out=(v, rows))


def _backward(how, q, k, v, seeds, y, lse, dy):
  """dq, dk, dv."""
  through = jnp.einsum('bthk,bthk->bht', dy, y, preferred_element_type=jnp.float32)
  of_queries = q, dy, lse, through
  dq, = _call(_dq_kernel, how, 1, own=of_queries, other=(k, v), seeds=seeds, out=(q,))
  return dq, *_call(_dkv_kernel, how, 2, own=(k, v), other=of_queries, seeds=seeds, out=(k, v))


def _call(kernel, how, which, own, other, seeds, out):
  """The kernel, for each sequence, head and block of what is its `own`; of the `other` it sees all."""
  b, t, h, d = own[0].shape
  cut = how.cuts[which]
  assert t % cut.own == cut.own % cut.other == 0, (t, cut)

  def block(x, size, index):
    if x.ndim == 4:
      return pl.BlockSpec((None, size, None, d), lambda i, h, b: (b, index(i), h, 0))
    return pl.BlockSpec((None, None, size), lambda i, h, b: (b, h, index(i)))
  mine = lambda x: block(x, cut.own, lambda i: i)
  whole = lambda x: block(x, t, lambda i: 0)
  seeds, of_seeds = ((), ()) if seeds is None else (
    (seeds,), (pl.BlockSpec((None, None, 2), lambda i, h, b: (b, h, 0)),))
  return pl.pallas_call(
    functools.partial(kernel, rate=how.rate, size=cut.other), grid=(t // cut.own, h, b), interpret=how.interpret,
    in_specs=(*map(mine, own), *map(whole, other), *of_seeds), out_specs=tuple(map(mine, out)),
    out_shape=tuple(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in out),
    compiler_params=triton.CompilerParams(num_warps=cut.warps, num_stages=cut.stages),
  )(*own, *other, *seeds)


def _forward_kernel(q, k, v, *rest, rate, size):
  *seeds, y_out, lse_out = rest
  q, t = q[...], _own_positions(q)

  def step(j, carry, on_diagonal):
    y, top, total = carry
    here = pl.ds(j * size, size)
    s = _positions(j, size)
    z = _scores(q, k[here, :], t[:, None], s[None, :], on_diagonal)
    higher = jnp.maximum(top, z.max(1))
    weights, again = jnp.exp2(z - higher[:, None]), jnp.exp2(top - higher)
    total = total * again + weights.sum(1)
    kept = _drop(weights, seeds, t[:, None], s[None, :], rate)
    y = y * again[:, None] + _product('ts,sk->tk', kept.astype(v.dtype), v[here, :])
    return y, higher, total

  n = len(t)
  start = jnp.zeros(q.shape, jnp.float32), jnp.full(n, -jnp.inf, jnp.float32), jnp.zeros(n, jnp.float32)
  y, top, total = _past(step, n // size, start)
  y_out[...] = (y / (total * (1 - rate))[:, None]).astype(y_out.dtype)
  lse_out[...] = top + jnp.log2(total)


def _dq_kernel(q, dy, lse, through, k, v, *rest, rate, size):
  *seeds, dq_out = rest
  q, dy, lse, through, t = q[...], dy[...], lse[...], through[...], _own_positions(q)

  def step(j, dq, on_diagonal):
    here = pl.ds(j * size, size)
    s = _positions(j, size)
    keys = k[here, :]
    weights = jnp.exp2(_scores(q, keys, t[:, None], s[None, :], on_diagonal) - lse[:, None])
    dweights = _drop(_product('tk,sk->ts', dy, v[here, :]), seeds, t[:, None], s[None, :], rate) / (1 - rate)
    dz = weights * (dweights - through[:, None])
    return dq + _product('ts,sk->tk', dz.astype(keys.dtype), keys)

  dq = _past(step, len(t) // size, jnp.zeros(q.shape, jnp.float32))
  dq_out[...] = (dq * q.shape[1] ** -0.5).astype(dq_out.dtype)


def _dkv_kernel(k, v, q, dy, lse, through, *rest, rate, size):
  """Scores lie here as [s, t], so that what is summed over queries is a product as it stands."""
  *seeds, dk_out, dv_out = rest
  k, v, s = k[...], v[...], _own_positions(k)

  def step(i, carry, on_diagonal):
    dk, dv = carry
    here = pl.ds(i * size, size)
    t = _positions(i, size)
    queries, dys = q[here, :], dy[here, :]
    weights = jnp.exp2(_scores(k, queries, t[None, :], s[:, None], on_diagonal) - lse[here][None, :])
    kept, dweights = (_drop(x, seeds, t[None, :], s[:, None], rate)
                      for x in (weights, _product('sk,tk->st', v, dys)))
    dz = weights * (dweights / (1 - rate) - through[here][None, :])
    return (dk + _product('st,tk->sk', dz.astype(queries.dtype), queries),
            dv + _product('st,tk->sk', kept.astype(dys.dtype), dys))

  zeros = jnp.zeros(k.shape, jnp.float32)
  dk, dv = _future(step, len(s) // size, q.shape[0] // size, (zeros, zeros))
  dk_out[...] = (dk * k.shape[1] ** -0.5).astype(dk_out.dtype)
  dv_out[...] = (dv / (1 - rate)).astype(dv_out.dtype)


def _past(step, n, start):
  """step(j, carry, on_diagonal) for the blocks of keys before this block of queries, then for its n own."""
  first = pl.program_id(0) * n
  carry = jax.lax.fori_loop(0, first, functools.partial(step, on_diagonal=False), start)
  return jax.lax.fori_loop(first, first + n, functools.partial(step, on_diagonal=True), carry)


def _future(step, n, end, start):
  """step(i, carry, on_diagonal) for this block's own n blocks of queries, then for those after it."""
  first = pl.program_id(0) * n
  carry = jax.lax.fori_loop(first, first + n, functools.partial(step, on_diagonal=True), start)
  return jax.lax.fori_loop(first + n, end, functools.partial(step, on_diagonal=False), carry)


def _own_positions(ref):
  return _positions(pl.program_id(0), ref.shape[0])


def _positions(block, size):
  return block * size + jnp.arange(size, dtype=jnp.int32)


def _product(equation, x, y):
  return jnp.einsum(equation, x, y, preferred_element_type=jnp.float32)


def _scores(rows, columns, t, s, on_diagonal):
  """Of queries and keys, or of keys and queries; the future, which only the diagonal's blocks have, is -inf."""
  z = _product('rk,ck->rc', rows, columns) * (rows.shape[1] ** -0.5 * LOG2E)
  return jnp.where(t >= s, z, -jnp.inf) if on_diagonal else z


def _drop(x, seeds, t, s, rate):
  """x, and 0 where a weight is dropped; the others are scaled up where they have been summed."""
  if not rate:
    return x
  ref, = seeds
  return jnp.where(_kept((ref[0], ref[1]), t.astype(jnp.uint32), s.astype(jnp.uint32), rate), x, 0.0)
