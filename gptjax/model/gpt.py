"""GPT-1, GPT-2 and what is derived from them: one decoder-only Transformer with options.

Letters: b batch, t time, n = b t tokens, d model width, h heads, j heads of keys and values, k head size,
e = h k all heads, f inner width of the MLP, v vocabulary. Parameters carry OpenAI's names; the blocks are
stacked on a leading axis, so `h/attn/c_attn/w` is [n_layer, d, 3, h, k].

Modules are used as pure functions: `__init__` declares the weights, `__call__` computes, and no function
modifies a module that it is given (`gptjax.model.compute` has the forms of the weights for computing).
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from gptjax.errors import InputError
from gptjax.kernels import cpu_forms, cpu_matmul, int8
from gptjax.model import compute
from gptjax.model.attention import attention
from gptjax.model.keys import named
from gptjax.model.layers import (
  Norm,
  Projection,
  dropout,
  fold_in,
  lookup,
  lookup_int8,
  recomputed,
  soft_capped,
  split_keys,
)
from gptjax.model.parameters import embedding, gathered, head_size, inner_width, n_kv_head, weight
from gptjax.model.rotary import angles, rotated
from gptjax.parallel import sharding
from gptjax.parallel.sharding import broadcast, merge_axes, split_axis

ACTIVATIONS = {'gelu_new': jax.nn.gelu, 'gelu': functools.partial(jax.nn.gelu, approximate=False),
               'relu': jax.nn.relu, 'relu_squared': lambda x: jnp.square(jax.nn.relu(x)),
               'silu': jax.nn.silu}


class Context(NamedTuple):
  """Arguments of a layer besides its input.

  attend: function with the arguments q, k, v, rate and keys of `gptjax.model.attention.attention`.
  rotation: `gptjax.model.rotary.angles` of the positions; None: queries and keys are not rotated.
  dropout: rate.
  keys: key[b], one PRNG key per sequence, for the dropout of this layer; None: no dropout.
  layer: int or int32[], index of the layer, from 0.
  """
  attend: Callable
  rotation: Any
  dropout: float
  keys: Any
  layer: Any


class Attention(nnx.Module):
  """Causal self-attention of several heads.

  One projection gives queries, keys and values, as in both papers, if there are as many heads of keys and
  values as of queries; else `c_q` gives the queries, and `c_kv` the keys and values, each of which the
  queries of h / j heads attend to (grouped-query attention, Ainslie et al. 2023).
  """

  def __init__(self, key, config, residual_std):
    d, h, j, k = config.n_embd, config.n_head, n_kv_head(config), head_size(config)
    # The mesh divides all heads or none, so that queries are on the devices of their keys.
    of_queries, of_keys = ([(n, sharding.head_axis(j)), (k, None)] for n in (h, j))
    key_in, key_out = jax.random.split(key)
    project = functools.partial(Projection, inputs=[(d, 'embed')], std=config.init_std, bias=config.bias)
    if h == j:
      self.c_attn = project(key_in, outputs=of_queries, n=3)
    else:
      key_q, key_kv = jax.random.split(key_in)
      self.c_q, self.c_kv = project(key_q, outputs=of_queries), project(key_kv, outputs=of_keys, n=2)
    if config.qk_norm:
      # Without bias: that of the keys would add the same to all scores of a query, which softmax ignores.
      self.q_norm, self.k_norm = Norm(config, k, bias=False), Norm(config, k, bias=False)
    self.c_proj = Projection(key_out, of_queries, [(d, 'embed')], residual_std, bias=config.bias)
    self.scaled, self.scaled_by_layer = config.scale_attn_weights, config.scale_attn_by_inverse_layer_idx

  def __call__(self, x, context):
    q, k, v = self.queries_keys_values(x, context.rotation)
    if not self.scaled:  # every kernel scales by 1 / sqrt(k)
      q = q * q.shape[-1] ** 0.5
    if self.scaled_by_layer:
      q = (q / (context.layer + 1)).astype(q.dtype)
    y = context.attend(q, k, v, rate=context.dropout, keys=context.keys)
    return self.c_proj(y.astype(x.dtype))

  def queries_keys_values(self, x, rotation):
    """q [b, t, h, k], k and v [b, t, j, k] of x [b, t, d], in the dtype of the projections' matmuls."""
    if hasattr(self, 'c_attn'):
      projection, (q, k, v) = self.c_attn, self.c_attn(x)
    else:
      projection, q, (k, v) = self.c_kv, self.c_q(x), self.c_kv(x)
    if hasattr(self, 'q_norm'):
      q, k = self.q_norm(q), self.k_norm(k)
    if rotation is not None:
      q, k = rotated(q, rotation), rotated(k, rotation)
    return tuple(compute.as_multiplied(y, projection) for y in (q, k, v))


class MLP(nnx.Module):
  """The position-wise feed-forward layer, with an activation function a:

      plain: a(x W_fc) W_proj                      in both papers, with f = 4 d and tanh GELU
      gated: (a(x W_gate) * (x W_fc)) W_proj       Shazeer 2020, where SwiGLU has a = silu
  """

  def __init__(self, key, config, residual_std):
    d, f = config.n_embd, inner_width(config)
    key_in, key_out = jax.random.split(key)
    project = functools.partial(Projection, inputs=[(d, 'embed')], outputs=[(f, 'mlp')], std=config.init_std,
                                bias=config.bias)
    self.c_fc = project(key_in)
    if config.mlp == 'gated':
      self.c_gate = project(named(key, 'c_gate'))
    self.c_proj = Projection(key_out, [(f, 'mlp')], [(d, 'embed')], residual_std, bias=config.bias)
    self.activation, self.scanned = config.activation_function, config.scan

  def __call__(self, x):
    activation = recomputed(cpu_forms.elementwise(ACTIVATIONS[self.activation]), self.scanned)
    if hasattr(self, 'c_gate'):
      return self.c_proj(self.c_gate(x, activation) * self.c_fc(x))
    return self.c_proj(self.c_fc(x, activation))


class Block(nnx.Module):
  """One layer. GPT-2 normalizes the input of each sub-layer, GPT-1 the sum after it."""

  def __init__(self, key, config):
    key_attn, key_mlp = jax.random.split(key)
    # GPT-2 2.3: residual weights scaled by 1/sqrt(N), N residual additions, two per layer.
    scale = (2 * config.n_layer) ** -0.5 if config.scale_residual_init else 1.0
    self.norm = config.norm
    self.ln_1 = Norm(config)
    self.attn = Attention(key_attn, config, config.init_std * scale)
    self.ln_2 = Norm(config)
    self.mlp = MLP(key_mlp, config, config.init_std * scale)

  def __call__(self, x, context):
    keys_weights, keys_attn, keys_mlp = split_keys(context.keys, 3)
    attn = lambda x: dropout(self.attn(x, context._replace(keys=keys_weights)), context.dropout, keys_attn)
    mlp = lambda x: dropout(self.mlp(x), context.dropout, keys_mlp)
    if self.norm == 'before':  # GPT-2
      x = x + attn(self.ln_1(x))
      return x + mlp(self.ln_2(x))
    x = self.ln_1(x + attn(x))  # GPT-1
    return self.ln_2(x + mlp(x))


class GPT(nnx.Module):
  """The model. `model(tokens)` returns logits, `features` the input of the output layer.

  Call the constructor under `jax.set_mesh`, best inside `jax.jit`.

  Args:
    key: PRNG key from which the float32 weights are drawn.
    config: the whole config; `model` and `attention` are read.
  """

  def __init__(self, key, config):
    c = config.model
    self.n_ctx, self.n_vocab, self.n_layer = c.n_ctx, c.n_vocab, c.n_layer
    self.n_head, self.n_kv_head, self.head_size, self.n_embd = c.n_head, n_kv_head(c), head_size(c), c.n_embd
    self.positions, self.rotary_base = c.positions, c.rotary_base
    self.window, self.soft_cap = c.sliding_window, c.logit_soft_cap
    self.norm, self.dropout, self.kernel = c.norm, c.dropout, config.attention.kernel
    self.embedding_dropout = c.embedding_dropout
    self.remat, self.dtype, self.tied = c.remat, c.compute_dtype, c.tie_word_embeddings
    key_wte, key_wpe, key_h = jax.random.split(key, 3)
    self.wte = embedding(key_wte, c, looked_up=not self.tied)
    if c.positions == 'learned':
      self.wpe = weight(key_wpe, (c.n_ctx, c.n_embd), (None, 'embed'), c.wpe_init_std, looked_up=True)
    self.h = jax.vmap(lambda key: Block(key, c))(jax.random.split(key_h, c.n_layer))
    if c.norm == 'before':
      self.ln_f = Norm(c)
    if not self.tied:
      self.lm_head = embedding(named(key, 'lm_head'), c)

  @property
  def unembedding(self):
    """The output matrix [v, d], which is the embedding if it is tied, else `lm_head`.

    With int8 weights it is [d, v], and `scale` is that of its columns.
    """
    return self.wte if self.tied else self.lm_head

  def embedded(self, tokens):
    """Rows of the embedding [b, t, d] for int32[b, t]."""
    table, axes = gathered(self.wte), ('batch', None)
    if self.tied and hasattr(self, 'scale'):
      return lookup_int8(table, gathered(self.scale), tokens, axes, self.dtype)
    return lookup(table, tokens, axes)

  def features(self, tokens, keys=None, positions=None, attends=None, segments=None):
    """Return the features from which the next token is predicted.

    Args:
      tokens: int32[b, t], t at most n_ctx.
      keys: key[b] for dropout, one per sequence; None: no dropout.
      positions: int32[b, t] of the tokens, less than n_ctx; t may then be larger. None: 0, 1, ...
      attends: the `attend` of `Context` for all layers; or, for each layer of an `unrolled` model, one that
        may read and write a cache (see `gptjax.generate.kv_cache`); None: `attention` itself.
      segments: int32[b, t], see `attention`; None: all positions are of one text. Not with `attends`.

    Returns:
      [b, t, d] in the compute dtype.
    """
    t = tokens.shape[1]
    if positions is None and t > self.n_ctx:
      raise InputError(f'a sequence of {t} tokens is longer than config.model.n_ctx = {self.n_ctx}')
    keys_embd, keys_h = split_keys(keys, 2)
    x, rotation = self.embedded(tokens), None
    if self.positions == 'rotary':
      rows = jnp.arange(t)[None] if positions is None else positions
      rotation = angles(rows, self.head_size, self.rotary_base)
    else:
      wpe = gathered(self.wpe)
      x += broadcast(wpe[:t], x) if positions is None else lookup(wpe, positions, ('batch', None))
    if self.embedding_dropout == 'activations':  # else the step has applied `compute.drop_embeddings`
      x = dropout(x, self.dropout, keys_embd)
    attends = attends or functools.partial(attention, kernel=self.kernel, window=self.window,
                                           segments=segments)
    x = self._layers(x, keys_h, attends, rotation)
    return self.ln_f(x) if self.norm == 'before' else x

  def _layers(self, x, keys, attends, rotation):
    """Apply all blocks, by a scan if they are stacked."""
    def layer(attend, x, block_and_index):
      block, index = block_and_index
      return block(x, Context(attend, rotation, self.dropout, fold_in(keys, index), index)), None

    rematerialized = lambda attend: compute.rematerialized(functools.partial(layer, attend), self.remat)
    if callable(attends):
      if isinstance(self.h, Block):
        return jax.lax.scan(rematerialized(attends), x, (self.h, jnp.arange(self.n_layer)))[0]
      attends = [jax.jit(rematerialized(attends))] * self.n_layer  # jit: all layers share one trace
    else:
      attends = map(rematerialized, attends)
    for index, (block, apply) in enumerate(zip(self.h, attends)):
      x, _ = apply(x, (block, index))
    return x

  def logits(self, x):
    """float32[b, t, n_vocab] for features [b, t, d]; entry t predicts token t + 1."""
    table = gathered(self.unembedding)
    if hasattr(self, 'scale'):
      spec = sharding.compute_spec('batch', 'vocab')
      logits = split_axis(int8.matmul(merge_axes(x, 0), table, gathered(self.scale), spec), 0, x.shape[:2])
    else:
      logits = cpu_matmul.matmul_by_rows(x.astype(table.dtype), table)
    logits = soft_capped(logits, self.soft_cap)
    # Drop the padding columns. A sharded dimension cannot be sliced, so gather it first.
    return jax.reshard(logits, sharding.compute_spec('batch', None, None))[..., :self.n_vocab]

  def __call__(self, tokens):
    """Logits float32[b, t, n_vocab] for int32[b, t]; entry t predicts token t + 1."""
    return _logits(self, tokens)


@jax.jit  # else each call outside a jit would compile the scan over layers again
def _logits(model, tokens):
  model = compute.in_dtype(model, model.dtype)
  return model.logits(model.features(tokens))
