"""Fused causal attention with dropout for NVIDIA GPUs, in Pallas: the scores are never materialized.

With z = q k^T / sqrt(head size) where t attends to s, and m = 0 where a weight is dropped, else
1 / (1 - rate):

    p_ts = exp(z_ts - lse_t)                   lse_t  = log(sum_s exp(z_ts))
    y_t  = sum_s m_ts p_ts v_s                 dv_s   = sum_t m_ts p_ts dy_t
    dq_t = sum_s dz_ts k_s / sqrt(k)           dz_ts  = p_ts (m_ts dy_t . v_s - dy_t . y_t)
    dk_s = sum_t dz_ts q_t / sqrt(k)

as in FlashAttention-2 (Dao 2023, 3.1). Letters: b batch, t queries, s keys, h heads, j heads of keys and
values, g = h / j, k head size. Query heads i g to i g + g - 1 attend to the keys and values of head i.

In the forward pass each program holds a block of queries and loops over blocks of earlier keys; it writes y
and lse. The backward pass recomputes scores, weights and mask from q, k and lse, which is faster than reading
them from memory: one kernel over blocks of queries gives dq, one over blocks of keys gives dk and dv. No two
programs add to the same sum, so gradients are deterministic.

Keys and values are never repeated for the g query heads of a group: each program of the forward and dq
kernels reads the head of its group, and a program of the dk, dv kernel holds one block of keys and loops over
the g heads too. So dk and dv are summed in registers: no partial sum per query head is written and added
later, at the price of g times fewer programs, each g times as long.

A position attends to keys from `earliest` to itself: later than the start of its segment and of its window.
Both bounds grow with the position, so each block has a contiguous range of blocks to visit, and blocks before
and after it are skipped.

Pallas's Triton backend compiles the kernels; JAX 0.11 still has it, but deprecates it.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from gptjax.kernels import dropout_hash

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


def attend(q, k, v, *, rate=0.0, keys=None, window=0, segments=None, blocks=None, interpret=False):
  """softmax(q k^T / sqrt(head size)) v with a causal mask and dropout of the weights.

  Args:
    q: [b, t, h, k], float32 or bfloat16; any t (padded at the end, which the causal mask hides), k in
      `fused.PALLAS_HEAD_SIZES`.
    k, v: [b, t, j, k]; j divides h, and their heads are sharded as those of q are.
    rate: dropout rate of the weights.
    keys: key[b], one PRNG key per sequence; None: no dropout.
    window: number of positions that one attends to, itself and those before it; 0: all.
    segments: int32[b, t]; a position attends to its own segment only, whose positions are contiguous. None:
      one segment.
    blocks: the first four of `Options`; None: `block_sizes`.
    interpret: see `Options`.

  Returns:
    [b, t, h, k] in the dtype of v. Scores, softmax and sums are float32.
  """
  t, spec = q.shape[1], jax.typeof(q).sharding.spec
  assert spec == jax.typeof(k).sharding.spec, (spec, jax.typeof(k).sharding.spec)
  rate, window = (0.0 if keys is None else rate), (window if window < t else 0)
  options = Options(*(blocks or block_sizes(t, q.shape[3], q.dtype)), rate, interpret)
  padding = (0, 0), (0, -t % options.held), (0, 0), (0, 0)
  q, k, v = (jnp.pad(x, padding) for x in (q, k, v))
  seeds = dropout_hash.seeds(keys, q.shape[2], spec[2]) if rate else ()
  if segments is not None:
    segments = jnp.pad(segments, padding[:2])
  bounds = _bounds(segments, window, q) if window or segments is not None else ()
  with jax.named_scope(f'window_{window}'):  # for `gptjax.plan.hlo`, which counts what is skipped
    return _on_shards(options, q, k, v, seeds, bounds)[:, :t]


def block_sizes(t, k, dtype):
  """(held, looped, warps, stages) for a GPU's registers and shared memory (docs/explanation/speed_log.md)."""
  row_bytes, longest = k * jnp.dtype(dtype).itemsize, max(16, pl.next_power_of_2(t))
  held, looped = (64 if row_bytes <= 256 else 32), (64 if row_bytes <= 128 else 32)
  return min(held, longest), min(looped, longest), 4, 2


def _bounds(segments, window, q):
  """(earliest, latest) int32[b, t]: the first key of each query, and the last query of each key.

  Neither decreases along t. They say nothing of the causal mask.
  """
  b, t = q.shape[:2]
  positions = jnp.zeros((b, t), jnp.int32, out_sharding=jax.P(jax.typeof(q).sharding.spec[0])) + jnp.arange(t)
  earliest, latest = jnp.zeros_like(positions), jnp.full_like(positions, t - 1)
  if segments is not None:
    changes = segments[:, 1:] != segments[:, :-1]
    starts, ends = (jnp.pad(changes, ((0, 0), side), constant_values=True) for side in ((1, 0), (0, 1)))
    earliest = jax.lax.cummax(jnp.where(starts, positions, 0), axis=1)
    latest = jax.lax.cummin(jnp.where(ends, positions, t), axis=1, reverse=True)
  if window:
    earliest = jnp.maximum(earliest, positions - (window - 1))
    latest = jnp.minimum(latest, positions + (window - 1))
  return earliest, latest


# `fused._on_shards` explains why the backward pass has a shard_map of its own.
@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _on_shards(options, q, k, v, seeds, bounds):
  return _on_shards_forward(options, q, k, v, seeds, bounds)[0]


def _on_shards_forward(options, q, k, v, seeds, bounds):
  spec = jax.typeof(q).sharding.spec
  forward, out = functools.partial(_forward, options), (spec, jax.P(spec[0], spec[2]))
  y, lse = jax.shard_map(forward, out_specs=out, check_vma=False)(q, k, v, seeds, bounds)
  return y, (q, k, v, seeds, bounds, y, lse)


def _on_shards_backward(options, residuals, dy):
  backward, spec = functools.partial(_backward, options), jax.typeof(dy).sharding.spec
  return *jax.shard_map(backward, out_specs=spec, check_vma=False)(*residuals, dy), None, None


_on_shards.defvjp(_on_shards_forward, _on_shards_backward)


def _forward(options, q, k, v, seeds, bounds):
  """(y [b, t, h, k], lse float32[b, h, t] in base 2) on one device's shard."""
  b, t, h, _ = q.shape
  out = jax.ShapeDtypeStruct(q.shape, v.dtype), jax.ShapeDtypeStruct((b, h, t), jnp.float32)
  held = q, dropout_hash.query_seeds(seeds, t), bounds[:1]
  return _call(_forward_kernel, options, held, looped=(k, v), out=out)


def _backward(options, q, k, v, seeds, bounds, y, lse, dy):
  """(dq, dk, dv) on one device's shard."""
  of_queries = q, dy, lse, _product('bthk,bthk->bht', dy, y), dropout_hash.query_seeds(seeds, q.shape[1])
  dq, = _call(_dq_kernel, options, held=(*of_queries, bounds[:1]), looped=(k, v), out=(q,))
  return dq, *_call(_dkv_kernel, options, held=(k, v, bounds[1:]), looped=of_queries, out=(k, v),
                    group=q.shape[2] // k.shape[2])


def _call(kernel, options, held, looped, out, group=None):
  """Run a kernel for each sequence, head and block of the `held` arrays.

  It sees all rows of the `looped` ones: of the head that the queries of a group share, or of the `group`
  heads of queries that share the held one.
  """
  b, t, h, _ = held[0].shape
  assert t % options.held == options.held % options.looped == 0, (t, options)

  def block(size, index, heads, x):
    if x.ndim == 2:  # [b, t]
      return pl.BlockSpec((None, size), lambda i, h, b: (b, index(i)))
    sharing = max(1, h // x.shape[2 if x.ndim == 4 else 1])
    if x.ndim == 4:  # [b, t, heads, k]
      return pl.BlockSpec((None, size, heads, x.shape[3]), lambda i, h, b: (b, index(i), h // sharing, 0))
    return pl.BlockSpec((None, heads, size), lambda i, h, b: (b, h // sharing, index(i)))  # [b, heads, t]
  one_block = functools.partial(block, options.held, lambda i: i, None)
  all_rows = functools.partial(block, t, lambda i: 0, group)
  return pl.pallas_call(
    functools.partial(kernel, rate=options.rate, size=options.looped), grid=(t // options.held, h, b),
    name='flash' + kernel.__name__.removesuffix('_kernel'),
    in_specs=(*jax.tree.map(one_block, held), *jax.tree.map(all_rows, looped)),
    out_specs=tuple(map(one_block, out)),
    out_shape=tuple(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in out), interpret=options.interpret,
    compiler_params=triton.CompilerParams(num_warps=options.warps, num_stages=options.stages))(*held, *looped)


def _forward_kernel(q, seeds, earliest, k, v, y_out, lse_out, *, rate, size):
  q, (t, first, end, scale) = q[...], _held(q, size)
  ranges = _blocks_of_keys(earliest, first, end, size)
  seeds, earliest = _as_columns((seeds, earliest))

  def step(j, carry, masked):
    y, most, total = carry
    here, s = pl.ds(j * size, size), _positions(j, size)[None, :]
    z = _scores(q, k[here, :], [t[:, None] >= s, *(s >= x for x in earliest)] if masked else [])
    new_most = jnp.maximum(most, z.max(1) * scale)
    weights, rescale = jnp.exp2(z * scale - new_most[:, None]), jnp.exp2(most - new_most)
    total = total * rescale + weights.sum(1)
    kept = _drop(weights, seeds, s, rate).astype(v.dtype)
    y = y * rescale[:, None] + _product('ts,sk->tk', kept, v[here, :])
    return y, new_most, total

  # The maximum begins finite: a window may hide all keys of a row's first block, and -inf - (-inf) is NaN.
  zeros = jnp.zeros(q.shape, jnp.float32), jnp.full(t.shape, -1e30), jnp.zeros(t.shape, jnp.float32)
  y, most, total = _loop(step, zeros, ranges)
  y_out[...] = (y / (total * (1 - rate))[:, None]).astype(y_out.dtype)
  lse_out[...] = most + jnp.log2(total)


def _dq_kernel(q, dy, lse, dot_dy_y, seeds, earliest, k, v, dq_out, *, rate, size):
  q, dy, (t, first, end, scale) = q[...], dy[...], _held(q, size)
  ranges = _blocks_of_keys(earliest, first, end, size)
  lse, dot_dy_y, seeds, earliest = _as_columns((lse, dot_dy_y, seeds, earliest))

  def step(j, dq, masked):
    here, s = pl.ds(j * size, size), _positions(j, size)[None, :]
    keys = k[here, :]
    z = _scores(q, keys, [t[:, None] >= s, *(s >= x for x in earliest)] if masked else [])
    weights = jnp.exp2(z * scale - lse)
    dweights = _drop(_product('tk,sk->ts', dy, v[here, :]), seeds, s, rate)
    dz = weights * (dweights * (1 / (1 - rate)) - dot_dy_y)
    return dq + _product('ts,sk->tk', dz.astype(keys.dtype), keys)

  dq = _loop(step, jnp.zeros(q.shape, jnp.float32), ranges)
  dq_out[...] = (dq * q.shape[1] ** -0.5).astype(dq_out.dtype)


def _dkv_kernel(k, v, latest, q, dy, lse, dot_dy_y, seeds, dk_out, dv_out, *, rate, size):
  """Scores are [s, t] here, so that sums over queries are matmuls without a transpose."""
  k, v, (s, first, end, scale) = k[...], v[...], _held(k, size)
  ranges = _blocks_of_queries(latest, first, end, q.shape[0] // size, size)
  s, latest = s[:, None], _as_columns(latest)

  def step(head, i, carry, masked):
    dk, dv = carry
    here, t = pl.ds(i * size, size), _positions(i, size)[None, :]
    queries, dys = q[here, head, :], dy[here, head, :]
    of_queries = [x[head, here][None, :] for x in (lse, dot_dy_y, *seeds)]
    z = _scores(k, queries, [t >= s, *(t <= x for x in latest)] if masked else [])
    weights = jnp.exp2(z * scale - of_queries[0])
    kept, dweights = (_drop(x, of_queries[2:], s, rate) for x in (weights, _product('sk,tk->st', v, dys)))
    dz = weights * (dweights * (1 / (1 - rate)) - of_queries[1])
    return (dk + _product('st,tk->sk', dz.astype(queries.dtype), queries),
            dv + _product('st,tk->sk', kept.astype(dys.dtype), dys))

  of_head = lambda head, carry: _loop(functools.partial(step, head), carry, ranges)
  dk, dv = jax.lax.fori_loop(0, q.shape[1], of_head, (jnp.zeros(k.shape, jnp.float32),) * 2)
  dk_out[...] = (dk * k.shape[1] ** -0.5).astype(dk_out.dtype)
  dv_out[...] = (dv / (1 - rate)).astype(dv_out.dtype)


def _loop(step, carry, ranges):
  """Run step(block, carry, masked) over the blocks of each range (start, end, masked)."""
  for start, end, masked in ranges:
    carry = jax.lax.fori_loop(start, end, functools.partial(step, masked=masked), carry)
  return carry


def _held(ref, size):
  """(positions of the held rows, first and end of the blocks on the diagonal, scale of the scores)."""
  i, n = pl.program_id(0), ref.shape[0] // size
  return _positions(i, ref.shape[0]), i * n, (i + 1) * n, ref.shape[1] ** -0.5 * LOG2E


def _blocks_of_keys(earliest, first, end, size):
  """The ranges for `_loop` of keys that the held queries attend to; `earliest`: of these queries, or ()."""
  if not earliest:
    return (0, first, False), (first, end, True)
  rows, = earliest
  start, inside = rows[0] // size, jnp.minimum(pl.cdiv(rows[rows.shape[0] - 1], size), first)
  return (start, inside, True), (inside, first, False), (first, end, True)


def _blocks_of_queries(latest, first, end, last, size):
  """The ranges for `_loop` of queries that attend to the held keys; `latest`: of these keys, or ()."""
  if not latest:
    return (first, end, True), (end, last, False)
  rows, = latest
  inside, last = jnp.maximum(end, (rows[0] + 1) // size), rows[rows.shape[0] - 1] // size + 1
  return (first, end, True), (end, inside, False), (inside, last, True)


def _as_columns(refs):
  return jax.tree.map(lambda x: x[...][:, None], refs)


def _positions(block, size):
  return block * size + jnp.arange(size, dtype=jnp.int32)


_product = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)


def _scores(rows, columns, masks):
  """q k^T or k q^T; -inf where one of the masks is False."""
  z = _product('rk,ck->rc', rows, columns)
  return jnp.where(functools.reduce(jnp.logical_and, masks), z, -jnp.inf) if masks else z


def _drop(x, seeds, s, rate):
  """x, or 0 where a weight is dropped; the caller scales by 1 / (1 - rate) after the sum."""
  return jnp.where(dropout_hash.kept(*seeds, s, rate), x, 0.0) if rate else x
