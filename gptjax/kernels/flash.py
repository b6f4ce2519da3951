"""Causal attention that may drop weights, in kernels of our own for NVIDIA GPUs: no array of scores exists.

With z = q k^T / sqrt(head size) of the past, and m 0 where a weight is dropped, else 1 / (1 - rate):

    p_ts = exp(z_ts - lse_t)                   lse_t  = log(sum_s exp(z_ts))
    y_t  = sum_s m_ts p_ts v_s                 dv_s   = sum_t m_ts p_ts dy_t
    dq_t = sum_s dz_ts k_s / sqrt(k)           dz_ts  = p_ts (m_ts dy_t . v_s - dy_t . y_t)
    dk_s = sum_t dz_ts q_t / sqrt(k)

as in FlashAttention-2 (Dao 2023, 3.1). Letters: b batch, t queries, s keys, h heads, k head size.

Forward, a program has a block of queries and goes through the keys of their past, block by block; it leaves
y and lse. Backward, scores, weights and mask are computed again from q, k and lse, which takes less time than
to read them from memory: once by blocks of queries for dq, once by blocks of keys for dk and dv, so that no
two programs add to one sum, and gradients are the same each time.

Whether a weight is dropped is a hash of its sequence's key, its head's number in the whole model and its two
positions: the same in each pass, whatever the blocks are, and wherever on a mesh it is computed.

Pallas's Triton backend makes the kernels; JAX 0.11 still has it, and calls it deprecated.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

LOG2E = np.float32(np.log2(np.e))  # inside weights are powers of two: a GPU has that instruction


class How(NamedTuple):
  """What is known when a kernel is compiled."""
  own: int         # rows that a program has
  other: int       # rows that it goes through at a time, a divisor
  warps: int
  stages: int      # how many loads are under way
  rate: float      # 0: the kernel has no dropout
  interpret: bool  # compute as JAX would on a CPU, to test where there is no GPU


def attend(q, k, v, *, rate=0.0, keys=None, cut=None, interpret=False):
  """softmax(q k^T / sqrt(head size)) v with a causal mask and dropped weights.

  Args:
    q, k, v: [b, t, h, k], float32 or bfloat16; any t (padded at the end, which nothing before it sees), k of
      `kernels.PALLAS_HEAD_SIZES`.
    rate: dropout of the weights.
    keys: key[b], one a sequence; None: no dropout.
    cut, interpret: see How; cut is the first four, None: `cut_for`.

  Returns:
    [b, t, h, k] in the dtype of v. Scores, softmax and sums are float32.
  """
  t, spec = q.shape[1], jax.typeof(q).sharding.spec
  rate = 0.0 if keys is None else rate
  how = How(*(cut or cut_for(t, q.shape[3], q.dtype)), rate, interpret)
  padding = (0, 0), (0, -t % how.own), (0, 0), (0, 0)
  q, k, v = (jnp.pad(x, padding) for x in (q, k, v))
  seeds = _seeds(keys, q.shape[2], spec[2]) if rate else ()
  return _on_shards(how, q, k, v, seeds)[:, :t]


def cut_for(t, k, dtype):
  """What a GPU's registers and shared memory have room for (docs/speed.md), or less where t is short."""
  width, least = k * jnp.dtype(dtype).itemsize, max(16, pl.next_power_of_2(t))  # width: bytes of a row
  own, other = (64 if width <= 256 else 32), (64 if width <= 128 else 32)
  return min(own, least), min(other, least), 4, 2


def mask(keys, rate, h, t):
  """Which weights stay: bool[b, h, t, t] for key[b]. The kernels never have it as an array; tests do."""
  return _kept(*(x[..., None] for x in _of_queries(_seeds(keys, h, None), t)), jnp.arange(t), rate)


def _seeds(keys, h, place):
  """Two uint32[b, h] from key[b], 64 bits for each sequence and head; heads lie on the mesh axis `place`."""
  words, heads = jax.random.key_data(keys), jnp.arange(h, dtype=jnp.uint32, out_sharding=jax.P(place))
  return tuple(_mixed(words[:, i, None] ^ _mixed(2 * heads + np.uint32(i))[None]) for i in range(2))


def _of_queries(seeds, t):
  """Two uint32[b, h, t], or nothing from nothing."""
  return tuple(_mixed(seed[..., None] + jnp.arange(t, dtype=jnp.uint32)) for seed in seeds)


def _kept(first, second, s, rate):
  """bool for queries by their seeds, and keys at int32 s, that broadcast to each other."""
  x = first + s.astype(jnp.uint32) * np.uint32(0x9e3779b9)
  x = ((x ^ (x >> np.uint32(16))) * np.uint32(0x7feb352d)) ^ second
  x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846ca68b)
  return x >= np.uint32(round(rate * 2**32))  # by its upper bits, which are mixed best


def _mixed(x):
  """A bijection of uint32 in which each bit of x turns half of those that come out: Wellons's lowbias32."""
  x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7feb352d)
  x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846ca68b)
  return x ^ (x >> np.uint32(16))


# `kernels._on_shards` says why the backward pass is mapped over devices as the forward one is.
@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _on_shards(how, q, k, v, seeds):
  return _on_shards_forward(how, q, k, v, seeds)[0]


def _on_shards_forward(how, q, k, v, seeds):
  spec = jax.typeof(q).sharding.spec
  forward, out = functools.partial(_forward, how), (spec, jax.P(spec[0], spec[2]))
  y, lse = jax.shard_map(forward, out_specs=out, check_vma=False)(q, k, v, seeds)
  return y, (q, k, v, seeds, y, lse)


def _on_shards_backward(how, kept, dy):
  backward, spec = functools.partial(_backward, how), jax.typeof(dy).sharding.spec
  return *jax.shard_map(backward, out_specs=spec, check_vma=False)(*kept, dy), None


_on_shards.defvjp(_on_shards_forward, _on_shards_backward)


def _forward(how, q, k, v, seeds):
  """(y [b, t, h, k], lse float32[b, h, t] in powers of two) on one device's share."""
  b, t, h, _ = q.shape
  rows = jax.ShapeDtypeStruct((b, h, t), jnp.float32)
  return _call(_forward_kernel, how, own=(q, *_of_queries(seeds, t)), other=(k, v), out=(v, rows))


def _backward(how, q, k, v, seeds, y, lse, dy):
  """(dq, dk, dv) on one device's share."""
  through = _product('bthk,bthk->bht', dy, y)
  of_queries = q, dy, lse, through, *_of_queries(seeds, q.shape[1])
  dq, = _call(_dq_kernel, how, own=of_queries, other=(k, v), out=(q,))
  return dq, *_call(_dkv_kernel, how, own=(k, v), other=of_queries, out=(k, v))


def _call(kernel, how, own, other, out):
  """The kernel, for each sequence, head and block of what is its `own`; of the `other` it sees all."""
  b, t, h, _ = own[0].shape
  assert t % how.own == how.own % how.other == 0, (t, how)

  def block(size, index, x):
    if len(x.shape) == 4:
      return pl.BlockSpec((None, size, None, x.shape[3]), lambda i, h, b: (b, index(i), h, 0))
    return pl.BlockSpec((None, None, size), lambda i, h, b: (b, h, index(i)))
  mine, whole = functools.partial(block, how.own, lambda i: i), functools.partial(block, t, lambda i: 0)
  return pl.pallas_call(
    functools.partial(kernel, rate=how.rate, size=how.other), grid=(t // how.own, h, b),
    name='flash' + kernel.__name__.removesuffix('_kernel'),
    in_specs=(*map(mine, own), *map(whole, other)), out_specs=tuple(map(mine, out)),
    out_shape=tuple(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in out), interpret=how.interpret,
    compiler_params=triton.CompilerParams(num_warps=how.warps, num_stages=how.stages))(*own, *other)


def _forward_kernel(q, *rest, rate, size):
  *seeds, k, v, y_out, lse_out = rest
  q, (t, first, end, scale) = q[...], _own(q, size)
  seeds = [x[...][:, None] for x in seeds]

  def step(j, carry, on_diagonal):
    y, top, total = carry
    here, s = pl.ds(j * size, size), _positions(j, size)
    z = _scores(q, k[here, :], t[:, None], s[None, :], on_diagonal)
    higher = jnp.maximum(top, z.max(1) * scale)
    weights, again = jnp.exp2(z * scale - higher[:, None]), jnp.exp2(top - higher)
    total = total * again + weights.sum(1)
    kept = _drop(weights, seeds, s[None, :], rate).astype(v.dtype)
    y = y * again[:, None] + _product('ts,sk->tk', kept, v[here, :])
    return y, higher, total

  zeros = jnp.zeros(q.shape, jnp.float32), jnp.full(t.shape, -jnp.inf), jnp.zeros(t.shape, jnp.float32)
  y, top, total = _through(step, zeros, (0, first, False), (first, end, True))
  y_out[...] = (y / (total * (1 - rate))[:, None]).astype(y_out.dtype)
  lse_out[...] = top + jnp.log2(total)


def _dq_kernel(q, dy, lse, through, *rest, rate, size):
  *seeds, k, v, dq_out = rest
  q, dy, (t, first, end, scale) = q[...], dy[...], _own(q, size)
  lse, through, *seeds = (x[...][:, None] for x in (lse, through, *seeds))

  def step(j, dq, on_diagonal):
    here, s = pl.ds(j * size, size), _positions(j, size)
    keys = k[here, :]
    weights = jnp.exp2(_scores(q, keys, t[:, None], s[None, :], on_diagonal) * scale - lse)
    dweights = _drop(_product('tk,sk->ts', dy, v[here, :]), seeds, s[None, :], rate)
    dz = weights * (dweights * (1 / (1 - rate)) - through)
    return dq + _product('ts,sk->tk', dz.astype(keys.dtype), keys)

  dq = _through(step, jnp.zeros(q.shape, jnp.float32), (0, first, False), (first, end, True))
  dq_out[...] = (dq * q.shape[1] ** -0.5).astype(dq_out.dtype)


def _dkv_kernel(k, v, q, dy, lse, through, *rest, rate, size):
  """Scores lie here as [s, t], so that what is summed over queries is a product as it stands."""
  *seeds, dk_out, dv_out = rest
  k, v, (s, first, end, scale) = k[...], v[...], _own(k, size)

  def step(i, carry, on_diagonal):
    dk, dv = carry
    here, t = pl.ds(i * size, size), _positions(i, size)
    queries, dys = q[here, :], dy[here, :]
    of_queries = [x[here][None, :] for x in (lse, through, *seeds)]
    weights = jnp.exp2(_scores(k, queries, t[None, :], s[:, None], on_diagonal) * scale - of_queries[0])
    kept, dweights = (_drop(x, of_queries[2:], s[:, None], rate)
                      for x in (weights, _product('sk,tk->st', v, dys)))
    dz = weights * (dweights * (1 / (1 - rate)) - of_queries[1])
    return (dk + _product('st,tk->sk', dz.astype(queries.dtype), queries),
            dv + _product('st,tk->sk', kept.astype(dys.dtype), dys))

  zeros, last = (jnp.zeros(k.shape, jnp.float32),) * 2, q.shape[0] // size
  dk, dv = _through(step, zeros, (first, end, True), (end, last, False))
  dk_out[...] = (dk * k.shape[1] ** -0.5).astype(dk_out.dtype)
  dv_out[...] = (dv / (1 - rate)).astype(dv_out.dtype)


def _through(step, carry, *ranges):
  """step(block, carry, on_diagonal) for the blocks of each range (start, end, on_diagonal)."""
  for start, end, on_diagonal in ranges:
    carry = jax.lax.fori_loop(start, end, functools.partial(step, on_diagonal=on_diagonal), carry)
  return carry


def _own(ref, size):
  """Positions of a program's own rows; first and end of the blocks beside them; the factor of scores."""
  i, n = pl.program_id(0), ref.shape[0] // size
  return _positions(i, ref.shape[0]), i * n, (i + 1) * n, ref.shape[1] ** -0.5 * LOG2E


def _positions(block, size):
  return block * size + jnp.arange(size, dtype=jnp.int32)


_product = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)


def _scores(rows, columns, t, s, on_diagonal):
  """Of queries and keys, or of keys and queries; -inf in the future, which lies in blocks on the diagonal."""
  z = _product('rk,ck->rc', rows, columns)
  return jnp.where(t >= s, z, -jnp.inf) if on_diagonal else z


def _drop(x, seeds, s, rate):
  """x, and 0 where a weight is dropped; the others are scaled up where they have been summed."""
  return jnp.where(_kept(*seeds, s, rate), x, 0.0) if rate else x
