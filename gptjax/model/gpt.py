"""GPT-1 and GPT-2: one decoder-only Transformer with two settings of its norm and init.

Letters: b batch, t time, n = b t tokens, d model width, h heads, k head size, e = h k all heads,
f inner width of the MLP, v vocabulary, c the three of query, key, value. Parameters carry OpenAI's
names; the blocks are stacked on a leading axis, so `h/attn/c_attn/w` is [n_layer, d, 3, h, k].

Modules are used as pure functions: `__init__` declares, `__call__` computes, and nothing writes to a module
that it was given: `in_dtype`, `products_in`, `unrolled`, `stacked` and `gathered_once` return new modules.
Dropout needs a key per sequence; without keys there is none.
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx

from gptjax.errors import InputError
from gptjax.model.attention import attention
from gptjax.model.compute import in_dtype, rematerialized
from gptjax.model.keys import named
from gptjax.model.layers import LayerNorm, Projection, again_when_needed, dropout, fold_in, lookup
from gptjax.model.parameters import embedding, gathered, inner_width, weight
from gptjax.parallel import sharding
from gptjax.parallel.sharding import merge, rows, split, spread

ACTIVATIONS = {'gelu_new': jax.nn.gelu, 'gelu': functools.partial(jax.nn.gelu, approximate=False),
               'relu': jax.nn.relu, 'silu': jax.nn.silu}


















class Attention(nnx.Module):
  """Multi-head causal self-attention with one fused projection to query, key and value."""

  def __init__(self, key, config, residual_std):
    d, h = config.n_embd, config.n_head
    k, heads = d // h, sharding.head_axis(h)
    key_in, key_out = jax.random.split(key)
    self.c_attn = Projection(key_in, (d, 3, h, k), ('embed', None, heads, None),
                             (3, h, k), (None, heads, None), config.init_std)
    self.c_proj = Projection(key_out, (h, k, d), (heads, None, 'embed'),
                             (d,), (None,), residual_std)
    self.scaled, self.scaled_by_layer = config.scale_attn_weights, config.scale_attn_by_inverse_layer_idx

  def __call__(self, x, attend, rate, keys, index):
    b, t, _ = x.shape
    qkv = split(self.c_attn(rows(x)), 0, (b, t)).astype(self.c_attn.w.dtype)
    q, k, v = (split(qkv[:, :, c], 2, self.c_attn.b.shape[1:]) for c in range(3))
    if not self.scaled:  # every kernel scales by 1 / sqrt(k)
      q = q * q.shape[-1] ** 0.5
    if self.scaled_by_layer:
      q = (q / (index + 1)).astype(q.dtype)
    y = merge(attend(q, k, v, rate=rate, keys=keys), 2).astype(x.dtype)
    return split(self.c_proj(rows(y), sharding.compute('batch', None)), 0, (b, t))


class MLP(nnx.Module):
  """The position-wise feed-forward layer; in both papers four times as wide inside, with tanh GELU."""

  def __init__(self, key, config, residual_std):
    d, f = config.n_embd, inner_width(config)
    self.activation, self.scanned = config.activation_function, config.scan
    key_in, key_out = jax.random.split(key)
    self.c_fc = Projection(key_in, (d, f), ('embed', 'mlp'), (f,), ('mlp',), config.init_std)
    self.c_proj = Projection(key_out, (f, d), ('mlp', 'embed'), (d,), (None,), residual_std)

  def __call__(self, x):
    b, t, _ = x.shape
    y = again_when_needed(ACTIVATIONS[self.activation], self.scanned)(self.c_fc(rows(x)))
    return split(self.c_proj(y, sharding.compute('batch', None)), 0, (b, t))


class Block(nnx.Module):
  """One layer. GPT-2 norms the input of each sub-layer, GPT-1 the sum after it."""

  def __init__(self, key, config):
    key_attn, key_mlp = jax.random.split(key)
    # GPT-2 2.3: residual weights scaled by 1/sqrt(N), N residual additions, two a layer.
    scale = (2 * config.n_layer) ** -0.5 if config.scale_residual_init else 1.0
    self.ln_1 = LayerNorm(config)
    self.attn = Attention(key_attn, config, config.init_std * scale)
    self.ln_2 = LayerNorm(config)
    self.mlp = MLP(key_mlp, config, config.init_std * scale)

  def __call__(self, x, norm, attend, rate, keys, index):
    keys_weights, keys_attn, keys_mlp = _split(keys, 3)
    attn = lambda x: dropout(self.attn(x, attend, rate, keys_weights, index), rate, keys_attn)
    mlp = lambda x: dropout(self.mlp(x), rate, keys_mlp)
    if norm == 'before':  # GPT-2
      x = x + attn(self.ln_1(x))
      return x + mlp(self.ln_2(x))
    x = self.ln_1(x + attn(x))  # GPT-1
    return self.ln_2(x + mlp(x))


class GPT(nnx.Module):
  """The model. `model(tokens)` gives logits, `features` what the output layer reads.

  Args of the constructor (call it under `jax.set_mesh`, best inside `jax.jit`):
    key: JAX random key from which the float32 weights are drawn.
    config: the whole config; `model` and `attention` are read.
  """

  def __init__(self, key, config):
    c = config.model
    self.n_ctx, self.n_vocab, self.n_layer = c.n_ctx, c.n_vocab, c.n_layer
    self.norm, self.dropout, self.kernel = c.norm, c.dropout, config.attention.kernel
    self.remat, self.dtype = c.remat, c.compute_dtype
    key_wte, key_wpe, key_h = jax.random.split(key, 3)
    self.wte = embedding(key_wte, c)
    self.wpe = weight(key_wpe, (c.n_ctx, c.n_embd), (None, 'embed'), c.wpe_init_std)
    self.h = jax.vmap(lambda key: Block(key, c))(jax.random.split(key_h, c.n_layer))
    if c.norm == 'before':
      self.ln_f = LayerNorm(c)
    self.tied = c.tie_word_embeddings
    if not self.tied:
      self.lm_head = embedding(named(key, 'lm_head'), c)

  @property
  def unembedding(self):
    """The matrix [v, d] that features are compared with: the embedding, unless it is not tied."""
    return self.wte if self.tied else self.lm_head

  def features(self, tokens, keys=None, positions=None, attends=None):
    """Activations from which the next token is predicted.

    Args:
      tokens: int32[b, t], t at most n_ctx.
      keys: key[b] for dropout, one a sequence; None for none.
      positions: int32[b, t] of the tokens; None: from 0 on.
      attends: a function like `attention` for each layer of an `unrolled` model, to keep keys and values or
        to attend to those kept (see `decode`); None: `attention` itself.

    Returns:
      [b, t, d] in the compute dtype.
    """
    t = tokens.shape[1]
    if t > self.n_ctx:
      raise InputError(f'{t} tokens are more than model.n_ctx = {self.n_ctx}')
    keys_embd, keys_h = _split(keys, 2)
    x, wpe = lookup(gathered(self.wte), tokens, ('batch', None)), gathered(self.wpe)
    x += spread(wpe[:t], x) if positions is None else lookup(wpe, positions, ('batch', None))
    x = dropout(x, self.dropout, keys_embd)

    def layer(attend, x, block_and_index):
      block, index = block_and_index
      return block(x, self.norm, attend, self.dropout, fold_in(keys_h, index), index), None

    rematerialize = lambda attend: rematerialized(functools.partial(layer, attend), self.remat)
    own = functools.partial(attention, kernel=self.kernel)
    if isinstance(self.h, Block):
      x, _ = jax.lax.scan(rematerialize(own), x, (self.h, jnp.arange(self.n_layer)))
    else:
      for index, (block, attend) in enumerate(zip(self.h, attends or [own] * self.n_layer)):
        x, _ = rematerialize(attend)(x, (block, index))
    return self.ln_f(x) if self.norm == 'before' else x

  def logits(self, x):
    """float32[b, t, n_vocab] for features [b, t, d]; entry t predicts token t + 1."""
    table = gathered(self.unembedding)
    logits = jnp.einsum('btd,vd->btv', x.astype(table.dtype), table, preferred_element_type=jnp.float32)
    # The padded columns are nobody's business; a cut through a sharded dimension is refused.
    return jax.reshard(logits, sharding.compute('batch', None, None))[..., :self.n_vocab]

  def __call__(self, tokens):
    """Logits float32[b, t, n_vocab] for int32[b, t]; entry t predicts token t + 1."""
    return _logits(self, tokens)


@jax.jit  # without it, each call from outside a jit would compile the scan over layers again
def _logits(model, tokens):
  model = in_dtype(model, model.dtype)
  return model.logits(model.features(tokens))


























def _split(keys, n):
  """n arrays key[b] from key[b]; None stays None."""
  if keys is None:
    return (None,) * n
  return jax.vmap(lambda key: jax.random.split(key, n), out_axes=1)(keys)

