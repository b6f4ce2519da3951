"""Fused causal attention with dropout for NVIDIA GPUs, in Pallas: the scores are never materialized.

With z = q k^T / sqrt(head size) for s <= t, and m = 0 where a weight is dropped, else 1 / (1 - rate):

    p_ts = exp(z_ts - lse_t)                   lse_t  = log(sum_s exp(z_ts))
    y_t  = sum_s m_ts p_ts v_s                 dv_s   = sum_t m_ts p_ts dy_t
    dq_t = sum_s dz_ts k_s / sqrt(k)           dz_ts  = p_ts (m_ts dy_t . v_s - dy_t . y_t)
    dk_s = sum_t dz_ts q_t / sqrt(k)

as in FlashAttention-2 (Dao 2023, 3.1). Letters: b batch, t queries, s keys, h heads, k head size.

In the forward pass each program holds a block of queries and loops over blocks of earlier keys; it writes y
and lse. The backward pass recomputes scores, weights and mask from q, k and lse, which is faster than reading
them from memory: one kernel over blocks of queries gives dq, one over blocks of keys gives dk and dv. No two
programs add to the same sum, so gradients are deterministic.

Whether a weight is dropped is a hash of its sequence's key, its head's index in the whole model and its two
positions: the same in each pass, for all block sizes and on every mesh.

Pallas's Triton backend compiles the kernels; JAX 0.11 still has it, but deprecates it.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

LOG2E = np.float32(np.log2(np.e))  # the kernels use exp2, for which a GPU has an instruction


class Options(NamedTuple):
  """Static arguments of a kernel.

  The forward and dq kernels hold a block of queries and loop over blocks of keys; the dk, dv kernel holds a
  block of keys and loops over blocks of queries.
  """
  held: int        # rows of the block that a program holds
  looped: int      # rows of each block that it loops over; divides `held`
  warps: int
  stages: int      # of software pipelining
  rate: float      # of dropout; 0: no mask is computed
  interpret: bool  # run in Pallas's interpreter, for tests without a GPU


def attend(q, k, v, *, rate=0.0, keys=None, blocks=None, interpret=False):
  """softmax(q k^T / sqrt(head size)) v with a causal mask and dropout of the weights.

  Args:
    q, k, v: [b, t, h, k], float32 or bfloat16; any t (padded at the end, which the causal mask
      hides), k in `fused.PALLAS_HEAD_SIZES`.
    rate: dropout rate of the weights.
    keys: key[b], one PRNG key per sequence; None: no dropout.
    blocks: the first four of `Options`; None: `block_sizes`.
    interpret: see `Options`.

  Returns:
    [b, t, h, k] in the dtype of v. Scores, softmax and sums are float32.
  """
  t, spec = q.shape[1], jax.typeof(q).sharding.spec
  rate = 0.0 if keys is None else rate
  options = Options(*(blocks or block_sizes(t, q.shape[3], q.dtype)), rate, interpret)
  padding = (0, 0), (0, -t % options.held), (0, 0), (0, 0)
  q, k, v = (jnp.pad(x, padding) for x in (q, k, v))
  seeds = _seeds(keys, q.shape[2], spec[2]) if rate else ()
  return _on_shards(options, q, k, v, seeds)[:, :t]


def block_sizes(t, k, dtype):
  """(held, looped, warps, stages) for a GPU's registers and shared memory (docs/explanation/speed_log.md)."""
  row_bytes, longest = k * jnp.dtype(dtype).itemsize, max(16, pl.next_power_of_2(t))
  held, looped = (64 if row_bytes <= 256 else 32), (64 if row_bytes <= 128 else 32)
  return min(held, longest), min(looped, longest), 4, 2


def mask(keys, rate, h, t):
  """Which weights are kept, bool[b, h, t, t] for key[b]. For tests: the kernels never materialize it."""
  return _kept(*(x[..., None] for x in _query_seeds(_seeds(keys, h, None), t)), jnp.arange(t), rate)


def _seeds(keys, h, heads_axis):
  """Two uint32[b, h] from key[b]: 64 bits per sequence and head, sharded over the mesh axis `heads_axis`."""
  words, heads = jax.random.key_data(keys), jnp.arange(h, dtype=jnp.uint32, out_sharding=jax.P(heads_axis))
  return tuple(_mixed(words[:, i, None] ^ _mixed(2 * heads + np.uint32(i))[None]) for i in range(2))


def _query_seeds(seeds, t):
  """Two uint32[b, h, t] from `_seeds`; () from ()."""
  return tuple(_mixed(seed[..., None] + jnp.arange(t, dtype=jnp.uint32)) for seed in seeds)


def _kept(first, second, s, rate):
  """Whether a weight is kept: bool, from two seeds per query and key positions int32 s, which broadcast."""
  x = first + s.astype(jnp.uint32) * np.uint32(0x9e3779b9)
  x = ((x ^ (x >> np.uint32(16))) * np.uint32(0x7feb352d)) ^ second
  x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846ca68b)
  return x >= np.uint32(round(rate * 2**32))  # the upper bits are the best mixed


def _mixed(x):
  """Hash of uint32, a bijection in which each bit of x flips half of the output bits: Wellons's lowbias32."""
  x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7feb352d)
  x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846ca68b)
  return x ^ (x >> np.uint32(16))


# `fused._on_shards` explains why the backward pass has a shard_map of its own.
@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _on_shards(options, q, k, v, seeds):
  return _on_shards_forward(options, q, k, v, seeds)[0]


def _on_shards_forward(options, q, k, v, seeds):
  spec = jax.typeof(q).sharding.spec
  forward, out = functools.partial(_forward, options), (spec, jax.P(spec[0], spec[2]))
  y, lse = jax.shard_map(forward, out_specs=out, check_vma=False)(q, k, v, seeds)
  return y, (q, k, v, seeds, y, lse)


def _on_shards_backward(options, residuals, dy):
  backward, spec = functools.partial(_backward, options), jax.typeof(dy).sharding.spec
  return *jax.shard_map(backward, out_specs=spec, check_vma=False)(*residuals, dy), None


_on_shards.defvjp(_on_shards_forward, _on_shards_backward)


def _forward(options, q, k, v, seeds):
  """(y [b, t, h, k], lse float32[b, h, t] in base 2) on one device's shard."""
  b, t, h, _ = q.shape
  rows = jax.ShapeDtypeStruct((b, h, t), jnp.float32)
  return _call(_forward_kernel, options, held=(q, *_query_seeds(seeds, t)), looped=(k, v), out=(v, rows))


def _backward(options, q, k, v, seeds, y, lse, dy):
  """(dq, dk, dv) on one device's shard."""
  dot_dy_y = _product('bthk,bthk->bht', dy, y)
  of_queries = q, dy, lse, dot_dy_y, *_query_seeds(seeds, q.shape[1])
  dq, = _call(_dq_kernel, options, held=of_queries, looped=(k, v), out=(q,))
  return dq, *_call(_dkv_kernel, options, held=(k, v), looped=of_queries, out=(k, v))


def _call(kernel, options, held, looped, out):
  """Run a kernel for each sequence, head and block of the `held` arrays.

  It sees all rows of the `looped` ones.
  """
  b, t, h, _ = held[0].shape
  assert t % options.held == options.held % options.looped == 0, (t, options)

  def block(size, index, x):
    if len(x.shape) == 4:
      return pl.BlockSpec((None, size, None, x.shape[3]), lambda i, h, b: (b, index(i), h, 0))
    return pl.BlockSpec((None, None, size), lambda i, h, b: (b, h, index(i)))
  one_block = functools.partial(block, options.held, lambda i: i)
  all_rows = functools.partial(block, t, lambda i: 0)
  return pl.pallas_call(
    functools.partial(kernel, rate=options.rate, size=options.looped), grid=(t // options.held, h, b),
    name='flash' + kernel.__name__.removesuffix('_kernel'),
    in_specs=(*map(one_block, held), *map(all_rows, looped)), out_specs=tuple(map(one_block, out)),
    out_shape=tuple(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in out), interpret=options.interpret,
    compiler_params=triton.CompilerParams(num_warps=options.warps, num_stages=options.stages))(*held, *looped)


def _forward_kernel(q, *rest, rate, size):
  *seeds, k, v, y_out, lse_out = rest
  q, (t, first, end, scale) = q[...], _held(q, size)
  seeds = [x[...][:, None] for x in seeds]

  def step(j, carry, on_diagonal):
    y, most, total = carry
    here, s = pl.ds(j * size, size), _positions(j, size)
    z = _scores(q, k[here, :], t[:, None], s[None, :], on_diagonal)
    new_most = jnp.maximum(most, z.max(1) * scale)
    weights, rescale = jnp.exp2(z * scale - new_most[:, None]), jnp.exp2(most - new_most)
    total = total * rescale + weights.sum(1)
    kept = _drop(weights, seeds, s[None, :], rate).astype(v.dtype)
    y = y * rescale[:, None] + _product('ts,sk->tk', kept, v[here, :])
    return y, new_most, total

  zeros = jnp.zeros(q.shape, jnp.float32), jnp.full(t.shape, -jnp.inf), jnp.zeros(t.shape, jnp.float32)
  y, most, total = _loop(step, zeros, (0, first, False), (first, end, True))
  y_out[...] = (y / (total * (1 - rate))[:, None]).astype(y_out.dtype)
  lse_out[...] = most + jnp.log2(total)


def _dq_kernel(q, dy, lse, dot_dy_y, *rest, rate, size):
  *seeds, k, v, dq_out = rest
  q, dy, (t, first, end, scale) = q[...], dy[...], _held(q, size)
  lse, dot_dy_y, *seeds = (x[...][:, None] for x in (lse, dot_dy_y, *seeds))

  def step(j, dq, on_diagonal):
    here, s = pl.ds(j * size, size), _positions(j, size)
    keys = k[here, :]
    weights = jnp.exp2(_scores(q, keys, t[:, None], s[None, :], on_diagonal) * scale - lse)
    dweights = _drop(_product('tk,sk->ts', dy, v[here, :]), seeds, s[None, :], rate)
    dz = weights * (dweights * (1 / (1 - rate)) - dot_dy_y)
    return dq + _product('ts,sk->tk', dz.astype(keys.dtype), keys)

  dq = _loop(step, jnp.zeros(q.shape, jnp.float32), (0, first, False), (first, end, True))
  dq_out[...] = (dq * q.shape[1] ** -0.5).astype(dq_out.dtype)


def _dkv_kernel(k, v, q, dy, lse, dot_dy_y, *rest, rate, size):
  """Scores are [s, t] here, so that sums over queries are matmuls without a transpose."""
  *seeds, dk_out, dv_out = rest
  k, v, (s, first, end, scale) = k[...], v[...], _held(k, size)

  def step(i, carry, on_diagonal):
    dk, dv = carry
    here, t = pl.ds(i * size, size), _positions(i, size)
    queries, dys = q[here, :], dy[here, :]
    of_queries = [x[here][None, :] for x in (lse, dot_dy_y, *seeds)]
    weights = jnp.exp2(_scores(k, queries, t[None, :], s[:, None], on_diagonal) * scale - of_queries[0])
    kept, dweights = (_drop(x, of_queries[2:], s[:, None], rate)
                      for x in (weights, _product('sk,tk->st', v, dys)))
    dz = weights * (dweights * (1 / (1 - rate)) - of_queries[1])
    return (dk + _product('st,tk->sk', dz.astype(queries.dtype), queries),
            dv + _product('st,tk->sk', kept.astype(dys.dtype), dys))

  zeros, last = (jnp.zeros(k.shape, jnp.float32),) * 2, q.shape[0] // size
  dk, dv = _loop(step, zeros, (first, end, True), (end, last, False))
  dk_out[...] = (dk * k.shape[1] ** -0.5).astype(dk_out.dtype)
  dv_out[...] = (dv / (1 - rate)).astype(dv_out.dtype)


def _loop(step, carry, *ranges):
  """Run step(block, carry, on_diagonal) over the blocks of each range (start, end, on_diagonal)."""
  for start, end, on_diagonal in ranges:
    carry = jax.lax.fori_loop(start, end, functools.partial(step, on_diagonal=on_diagonal), carry)
  return carry


def _held(ref, size):
  """(positions of the held rows, first and end of the blocks on the diagonal, scale of the scores)."""
  i, n = pl.program_id(0), ref.shape[0] // size
  return _positions(i, ref.shape[0]), i * n, (i + 1) * n, ref.shape[1] ** -0.5 * LOG2E


def _positions(block, size):
  return block * size + jnp.arange(size, dtype=jnp.int32)


_product = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)


def _scores(rows, columns, t, s, on_diagonal):
  """q k^T or k q^T; -inf for later keys, which only blocks on the diagonal have."""
  z = _product('rk,ck->rc', rows, columns)
  return jnp.where(t >= s, z, -jnp.inf) if on_diagonal else z


def _drop(x, seeds, s, rate):
  """x, or 0 where a weight is dropped; the caller scales by 1 / (1 - rate) after the sum."""
  return jnp.where(_kept(*seeds, s, rate), x, 0.0) if rate else x
