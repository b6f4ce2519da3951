"""Reading and writing with a key-value cache: prompts in one pass, then a token at a time.

Letters: b rows, t tokens of the longest prompt, s slots of the cache, h heads, k head size, v vocabulary.

Prompts of different lengths are aligned on the left and padded on the right. What is written afterwards
takes the same slot in every row, from the end of the longest prompt on; a shorter one leaves a gap that
nobody sees, and its positions go on without one:

    slot        0 1 2 3 4 5 | 6 7 8
    long row    a b c d e f | g h i       positions 0 ... 8
    short row   a b . . . . | c d e       positions 0 1, 2 3 4

The forward pass is the model's own (`GPT.features`); only what attends to what is given from here. The
number of slots decides how much memory a token reads, and is part of the compiled program; lengths and
positions are not.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from gptjax.errors import InputError
from gptjax.generate.sampling import sample_tokens
from gptjax.model.attention import attention, attention_to
from gptjax.model.compute import in_dtype, multiplied_in, projections, unrolled
from gptjax.model.gpt import GPT, Block
from gptjax.model.layers import merge_heads
from gptjax.model.parameters import gathered
from gptjax.parallel import sharding

MAX_DECODE_TOKENS = 64  # tokens that one call of `write` can write


class KVCache(NamedTuple):
  """What was read.

  keys, values: for each layer [b, h, s, k] in the compute dtype; [h, s, k] where there is but one row (XLA
    would copy the whole of [1, h, s, k] for each token).
  lengths: int32[b], tokens of each prompt.
  start: int32[], the first slot after the prompts.
  slot: int32[], the slot of the next token.
  """
  keys: list
  values: list
  lengths: jax.Array
  start: jax.Array
  slot: jax.Array


def prepare_for_decoding(model):
  """A new model as decoding wants it, still a GPT: weights cast and gathered once, layers apart.

  Its layers are a list, for a slice of stacked ones would be copied for each token; and where there is one
  CPU, matrices lie as [out, in], which it reads a tenth faster. Given such a model, the model itself.
  """
  if not isinstance(model, GPT):
    raise InputError('only a Transformer can write or be scored with a cache, not an LSTM')
  if not isinstance(model.h, Block):
    return model
  turn = jax.default_backend() == 'cpu' and jax.sharding.get_abstract_mesh().size == 1
  return _ready(model, turn)


@functools.partial(jax.jit, static_argnames='turn')
def _ready(model, turn):
  cast = multiplied_in if jax.default_backend() == 'cpu' else in_dtype
  model = jax.tree.map(lambda param: param.replace(gathered(param)), unrolled(cast(model, model.dtype)),
                       is_leaf=lambda node: isinstance(node, nnx.Param))
  model.remat = 'none'  # nothing to keep for a backward pass
  for block in model.h if turn else ():
    for _, projection in projections(block):
      w = jax.reshard(merge_heads(projection.w[...], projection.w.declaration.axes), jax.P())
      projection.w = projection.w.replace(w.reshape(w.shape[0], -1).T)
      projection.transposed = True
  return model


def pad_prompts(prompts, n_tokens, n_ctx):
  """Prompts as arrays of a few sizes, so that few programs are compiled.

  Args:
    prompts: lists of at most n_ctx tokens.
    n_tokens: tokens that are to be written after them, the last of which is not read.
    n_ctx: context of the model.

  Returns:
    (int32[b, t] tokens, int32[b] lengths, slots of the cache). Rows beyond the prompts are one token long.
  """
  longest = max(map(len, prompts))
  shards = sharding.batch_shards(jax.sharding.get_abstract_mesh())
  b, t = shards * _power(-(-len(prompts) // shards)), min(_power(longest, 32), n_ctx)
  needed = longest + n_tokens - 1
  slots = _power(needed, 128)
  tokens, lengths = np.zeros((b, t), np.int32), np.ones(b, np.int32)
  for row, prompt in enumerate(prompts):
    tokens[row, :len(prompt)], lengths[row] = prompt, len(prompt)
  return tokens, lengths, max(t, min(slots, n_ctx) if needed <= n_ctx else slots)


def _power(least, first=1):
  """The least power of two times `first` that is at least `least`."""
  return first << max(0, (-(-least // first) - 1).bit_length())


@functools.partial(jax.jit, static_argnames='slots')
def prefill(model, tokens, lengths, slots):
  """Reads prompts.

  Args:
    model: a `ready` GPT, under `jax.set_mesh`.
    tokens: int32[b, t], aligned on the left; t at most n_ctx.
    lengths: int32[b], tokens of each prompt, at least 1.
    slots: size of the cache to make, at least t.

  Returns:
    (float32[b, v] logits of what follows each prompt, Cache).
  """
  lengths = jax.reshard(lengths, sharding.compute_spec('batch'))
  kept = []

  def attend(q, k, v, **dropout):
    kept.append((k, v))
    return attention(q, k, v, kernel=model.kernel, **dropout)

  tokens = jax.reshard(tokens, sharding.compute_spec('batch', None))
  x = model.features(tokens, attends=[attend] * model.n_layer)
  last = jax.vmap(lambda row, length: row.at[length - 1].get(out_sharding=jax.P(None)))(x, lengths)
  keys, values = ([_room(layer[i], slots) for layer in kept] for i in range(2))
  start = lengths.max()
  return model.logits(last[:, None])[:, 0], KVCache(keys, values, lengths, start, start)


def _room(kept, slots):
  """Keys or values [b, t, h, k] as the cache has them, with room for more."""
  kept = jnp.swapaxes(kept, 1, 2)
  kept = jnp.pad(kept, ((0, 0), (0, 0), (0, slots - kept.shape[2]), (0, 0)))
  return kept[0] if len(kept) == 1 else kept


@jax.jit
def sample_first(logits, keys, counts, choice):
  """int32[b], the token after each prompt; arguments as `read` gives them and `write` takes them."""
  keys, counts = (jax.reshard(x, sharding.compute_spec('batch')) for x in (keys, counts))
  return jax.reshard(sample_tokens(logits, jax.vmap(jax.random.fold_in)(keys, counts), choice), jax.P())


@functools.partial(jax.jit, donate_argnames='cache')
def decode(model, cache, last, done, n, keys, counts, choice, ends):
  """Writes up to n tokens a row, in one compiled loop; ends early when all rows are done.

  Args:
    model: a `ready` GPT, under `jax.set_mesh`.
    cache: Cache, with n free slots; it is used up.
    last: int32[b], the newest token of each row, which has not been read yet.
    done: bool[b], rows that need no more.
    n: int32[], at most SEGMENT; the same program for each.
    keys: key[b], one a row.
    counts: int32[b], number of tokens in each row's text so far, the last one included; the draw of a token
      depends on the row's key and the place of the token in the text, not on the batch or the call.
    choice: sampling.Choice.
    ends: int32[k], a row that draws one of these tokens is done; -1: none.

  Returns:
    (int32[b, SEGMENT] tokens, of which the first columns are written; int32[] how many; Cache).
  """
  last, done, keys, counts = (jax.reshard(x, sharding.compute_spec('batch'))
                              for x in (last, done, keys, counts))
  written = jnp.zeros((len(last), MAX_DECODE_TOKENS), jnp.int32,
                      out_sharding=sharding.compute_spec('batch', None))

  def step(state):
    i, cache, last, done, written = state
    logits, cache = _read_one(model, cache, last)
    last = sample_tokens(logits, jax.vmap(jax.random.fold_in)(keys, counts + i), choice)
    written = jax.lax.dynamic_update_slice(written, last[:, None], (0, i))
    return i + 1, cache, last, done | (last[:, None] == ends).any(-1), written

  going = lambda state: (state[0] < n) & ~state[3].all()
  i, cache, _, _, written = jax.lax.while_loop(going, step, (jnp.int32(0), cache, last, done, written))
  return jax.reshard(written, jax.P()), i, cache


def _read_one(model, cache, last):
  """Reads one token a row: logits float32[b, v] of what follows, and the cache with it."""
  slot = jnp.arange(cache.keys[0].shape[-2])
  prompt, after = slot < cache.lengths[:, None], (slot >= cache.start) & (slot <= cache.slot)
  keys, values = [], []

  def attend_with(kept_k, kept_v):
    def attend(q, k, v, **dropout):
      del dropout  # none when decoding
      keys.append(_put(kept_k, k, cache.slot))
      values.append(_put(kept_v, v, cache.slot))
      return attention_to(q, _rows(keys[-1]), _rows(values[-1]), prompt | after)
    return attend

  position = cache.lengths + cache.slot - cache.start
  x = model.features(last[:, None], positions=jnp.minimum(position, model.n_ctx - 1)[:, None],
                     attends=list(map(attend_with, cache.keys, cache.values)))
  return model.logits(x)[:, 0], cache._replace(keys=keys, values=values, slot=cache.slot + 1)


def _put(kept, new, slot):
  """The cache of a layer with [b, 1, h, k] in a slot."""
  new = jnp.swapaxes(new, 1, 2)
  new = new[0] if kept.ndim == 3 else new
  return jax.lax.dynamic_update_slice_in_dim(kept, new.astype(kept.dtype), slot, kept.ndim - 2)


def _rows(kept):
  """The cache of a layer as [b, h, s, k]."""
  if kept.ndim == 4:
    return kept
  return jax.reshard(kept[None], sharding.compute_spec('batch', sharding.head_axis(len(kept)), None, None))
