"""Decoding with a key-value cache: prefill of the prompts in one pass, then one token at a time.

Dimensions: b rows, t tokens of the longest prompt, s slots of the cache, h heads, j heads of keys and values,
k head size, v vocabulary.

Prompts of different lengths are aligned on the left and padded on the right. Generated tokens use the same
slot in every row, after the end of the longest prompt. Shorter prompts leave a gap that is masked, and their
positions continue without a gap:

    slot        0 1 2 3 4 5 | 6 7 8
    long row    a b c d e f | g h i       positions 0 ... 8
    short row   a b . . . . | c d e       positions 0 1, 2 3 4

The forward pass is that of the model (`GPT.features`); this module only passes the attention functions. The
number of slots determines how much memory each token reads, and is static in the compiled program; lengths
and positions are not.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from gptjax.errors import InputError
from gptjax.generate.sampling import sample_tokens
from gptjax.kernels import cpu_matmul
from gptjax.model.attention import attention, cached_attention
from gptjax.model.compute import in_dtype, in_int8, multiplied_in, projections, unrolled
from gptjax.model.gpt import GPT, Block
from gptjax.model.layers import merge_heads
from gptjax.model.parameters import gathered
from gptjax.parallel import sharding

MAX_DECODE_TOKENS = 64  # per call of `decode`
WEIGHT_DTYPES = (None, 'int8')


class KVCache(NamedTuple):
  """Keys and values of all tokens so far.

  keys, values: for each layer [b, j, s, k]; [j, s, k] for a single row (XLA would copy all of [1, j, s, k]
    for each token). The dtype is that of matmuls; on a single CPU device float32, because XLA would convert
    all of a bfloat16 one for each token. Rotary positions are applied before a key is stored.
  lengths: int32[b], tokens of each prompt.
  start: int32[], the first slot after the prompts.
  slot: int32[], the slot of the next token.
  """
  keys: list
  values: list
  lengths: jax.Array
  start: jax.Array
  slot: jax.Array


def bytes_per_token(model):
  """Bytes of the keys and values of a token in the cache of a prepared model, whose mesh is set."""
  dtype = cpu_matmul.result_dtype(model.dtype)
  return 2 * model.n_layer * model.n_kv_head * model.head_size * np.dtype(dtype).itemsize


def prepare_for_decoding(model, weight_dtype=None):
  """Return a copy of a GPT for decoding: weights are cast and gathered once, layers are unstacked.

  The layers are a list, because a slice of stacked weights would be copied for each token. On a single CPU
  device, matrices are transposed to [out, in], which is 10 % faster to read. A prepared model is returned
  unchanged.

  Args:
    model: a GPT.
    weight_dtype: 'int8': see `compute.in_int8`; on a CPU, everything else is then float32. None: the model's
      compute dtype.

  Raises:
    InputError: the model is an LSTM, or is prepared and has other weights than `weight_dtype`.
  """
  if not isinstance(model, GPT):
    raise InputError('only a Transformer can generate or be scored with a cache, not an LSTM')
  if not isinstance(model.h, Block):
    if weight_dtype and not hasattr(model, 'scale'):
      raise InputError(f'weight_dtype = {weight_dtype!r} has no effect on a model that is prepared for '
                       'decoding: give the model as loaded')
    return model
  int8 = weight_dtype == 'int8'
  transpose = jax.default_backend() == 'cpu' and jax.sharding.get_abstract_mesh().size == 1 and not int8
  return _prepare(model, transpose, int8)


@functools.partial(jax.jit, static_argnames=('transpose', 'int8'))
def _prepare(model, transpose, int8=False):
  on_cpu = jax.default_backend() == 'cpu'
  if int8:
    model = in_int8(model, 'float32' if on_cpu else model.dtype)
  else:
    model = (multiplied_in if on_cpu else in_dtype)(model, model.dtype)
  model = jax.tree.map(lambda param: param.replace(gathered(param)), unrolled(model),
                       is_leaf=lambda node: isinstance(node, nnx.Param))
  model.remat = 'none'  # there is no backward pass
  for block in model.h if transpose else ():
    for _, projection in projections(block):
      w = jax.reshard(merge_heads(projection.w[...], projection.w.declaration.axes), jax.P())
      projection.w = projection.w.replace(w.reshape(w.shape[0], -1).T)
      projection.transposed = True
  return model


def pad_prompts(prompts, n_tokens, n_ctx):
  """Return prompts as arrays, padded to a few sizes, so that few programs are compiled.

  Args:
    prompts: lists of at most n_ctx tokens.
    n_tokens: number of tokens to generate; the last one is not added to the cache.
    n_ctx: context of the model.

  Returns:
    (int32[b, t] tokens, int32[b] lengths, slots of the cache). Padding rows have a length of 1.
  """
  longest = max(map(len, prompts))
  shards = sharding.batch_shards(jax.sharding.get_abstract_mesh())
  b, t = shards * _next_size(-(-len(prompts) // shards)), min(_next_size(longest, 32), n_ctx)
  needed = longest + n_tokens - 1
  slots = _next_size(needed, 128)
  tokens, lengths = np.zeros((b, t), np.int32), np.ones(b, np.int32)
  for row, prompt in enumerate(prompts):
    tokens[row, :len(prompt)], lengths[row] = prompt, len(prompt)
  return tokens, lengths, max(t, min(slots, n_ctx) if needed <= n_ctx else slots)


def _next_size(least, first=1):
  """Return the smallest product of `first` and a power of two that is at least `least`."""
  return first << max(0, (-(-least // first) - 1).bit_length())


@functools.partial(jax.jit, static_argnames='slots')
def prefill(model, tokens, lengths, slots):
  """Run the prompts through the model and create their cache.

  Args:
    model: a GPT from `prepare_for_decoding`, under `jax.set_mesh`.
    tokens: int32[b, t], aligned on the left; t at most n_ctx.
    lengths: int32[b], tokens of each prompt, at least 1.
    slots: size of the new cache, at least t.

  Returns:
    (float32[b, v] logits of the token after each prompt, KVCache).
  """
  lengths = jax.reshard(lengths, sharding.compute_spec('batch'))
  keys_values = []

  def attend(q, k, v, **dropout):
    keys_values.append((k, v))
    return attention(q, k, v, kernel=model.kernel, window=model.window, **dropout)

  tokens = jax.reshard(tokens, sharding.compute_spec('batch', None))
  x = model.features(tokens, attends=[attend] * model.n_layer)
  last = jax.vmap(lambda row, length: row.at[length - 1].get(out_sharding=jax.P(None)))(x, lengths)
  keys, values = ([_padded(layer[i], slots) for layer in keys_values] for i in range(2))
  start = lengths.max()
  return model.logits(last[:, None])[:, 0], KVCache(keys, values, lengths, start, start)


def _padded(cached, slots):
  """Return keys or values [b, t, j, k] in the layout and the dtype of the cache, padded to `slots`."""
  cached = jnp.swapaxes(cached, 1, 2).astype(cpu_matmul.result_dtype(cached.dtype))
  cached = jnp.pad(cached, ((0, 0), (0, 0), (0, slots - cached.shape[2]), (0, 0)))
  return cached[0] if len(cached) == 1 else cached


@jax.jit
def sample_first(logits, keys, counts, choice):
  """Sample int32[b], the token after each prompt; logits from `prefill`, other arguments as in `decode`."""
  keys, counts = (jax.reshard(x, sharding.compute_spec('batch')) for x in (keys, counts))
  return jax.reshard(sample_tokens(logits, jax.vmap(jax.random.fold_in)(keys, counts), choice), jax.P())


@functools.partial(jax.jit, donate_argnames='cache')
def decode(model, cache, last, done, n, keys, counts, choice, ends):
  """Generate up to n tokens per row in one compiled loop; stop early when all rows are done.

  Args:
    model: a GPT from `prepare_for_decoding`, under `jax.set_mesh`.
    cache: KVCache with n free slots; it is donated.
    last: int32[b], the last token of each row, which is not in the cache yet.
    done: bool[b], rows that are complete.
    n: int32[], at most MAX_DECODE_TOKENS; not static.
    keys: key[b], one PRNG key per row.
    counts: int32[b], tokens of each text so far, including `last`; a sample depends on the row's key and the
      position of the token in the text, not on the batch or the call.
    choice: sampling.SamplingOptions.
    ends: int32[k], a row is done after it samples one of these tokens; -1: none.

  Returns:
    (int32[b, MAX_DECODE_TOKENS] tokens, of which only the first columns are set; int32[] their number;
    KVCache).
  """
  last, done, keys, counts = (jax.reshard(x, sharding.compute_spec('batch'))
                              for x in (last, done, keys, counts))
  tokens = jnp.zeros((len(last), MAX_DECODE_TOKENS), jnp.int32,
                      out_sharding=sharding.compute_spec('batch', None))

  def step(state):
    i, cache, last, done, tokens = state
    logits, cache = _decode_one(model, cache, last)
    last = sample_tokens(logits, jax.vmap(jax.random.fold_in)(keys, counts + i), choice)
    tokens = jax.lax.dynamic_update_slice(tokens, last[:, None], (0, i))
    return i + 1, cache, last, done | (last[:, None] == ends).any(-1), tokens

  running = lambda state: (state[0] < n) & ~state[3].all()
  i, cache, _, _, tokens = jax.lax.while_loop(running, step, (jnp.int32(0), cache, last, done, tokens))
  return jax.reshard(tokens, jax.P()), i, cache


def _decode_one(model, cache, last):
  """Run one token per row; return (float32[b, v] logits of the next token, updated cache)."""
  slot = jnp.arange(cache.keys[0].shape[-2])
  lengths, position = cache.lengths[:, None], cache.lengths + cache.slot - cache.start
  prompt, after = slot < lengths, (slot >= cache.start) & (slot <= cache.slot)
  if model.window:
    prompt &= slot > position[:, None] - model.window
    after &= slot > cache.slot - model.window
  keys, values = [], []

  def attend_with(cached_k, cached_v):
    def attend(q, k, v, **dropout):
      del dropout  # none when decoding
      keys.append(_update_slot(cached_k, k, cache.slot))
      values.append(_update_slot(cached_v, v, cache.slot))
      return cached_attention(q, _with_batch_axis(keys[-1]), _with_batch_axis(values[-1]), prompt | after)
    return attend

  x = model.features(last[:, None], positions=jnp.minimum(position, model.n_ctx - 1)[:, None],
                     attends=list(map(attend_with, cache.keys, cache.values)))
  return model.logits(x)[:, 0], cache._replace(keys=keys, values=values, slot=cache.slot + 1)


def _update_slot(cached, new, slot):
  """Return the cache of a layer with `new` [b, 1, j, k] in a slot."""
  new = jnp.swapaxes(new, 1, 2)
  new = new[0] if cached.ndim == 3 else new
  return jax.lax.dynamic_update_slice_in_dim(cached, new.astype(cached.dtype), slot, cached.ndim - 2)


def _with_batch_axis(cached):
  """Return the cache of a layer as [b, j, s, k]."""
  if cached.ndim == 4:
    return cached
  heads = sharding.head_axis(len(cached))
  return jax.reshard(cached[None], sharding.compute_spec('batch', heads, None, None))
