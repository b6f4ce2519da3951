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

from gptjax import products, sharding
from gptjax.attention import attention, dropout, fold_in
from gptjax.errors import InputError
from gptjax.keys import named
from gptjax.losses import lookup
from gptjax.sharding import merge, rows, split, spread

REMAT = ('none', 'dots', 'full')
ACTIVATIONS = {'gelu_new': jax.nn.gelu, 'gelu': functools.partial(jax.nn.gelu, approximate=False),
               'relu': jax.nn.relu, 'silu': jax.nn.silu}


def again_when_needed(f, scanned):
  """f, of what costs little arithmetic, computed again in the backward pass from what goes in.

  What lies between would be several times as large, and memory is the slower of a GPU's ceilings. Within a
  scan nothing could merge the two; where layers are unrolled, the compiler would, and keep what lies between.
  """
  return jax.checkpoint(f, prevent_cse=not scanned)


def weight(key, shape, axes, std, compute_dtype=None):
  """Declares a weight: N(0, std) of this shape, born sharded as its logical axes say.

  Args:
    key: JAX random key.
    shape: tuple.
    axes: its logical axes, see `sharding`.
    std: standard deviation.
    compute_dtype: the dtype in which the step computes with it; None: `config.model.compute_dtype`.
  """
  return nnx.Param(_normal(key, shape, axes, std), axes=axes, compute_dtype=compute_dtype)


def _normal(key, shape, axes, std):
  return std * jax.random.normal(key, shape, out_sharding=sharding.storage(*axes))


def constant(value, shape, axes, compute_dtype=None):
  """Declares a bias or gain that starts as `value`; arguments as for `weight`."""
  return nnx.Param(jnp.full(shape, value, jnp.float32, out_sharding=sharding.storage(*axes)),
                   axes=axes, compute_dtype=compute_dtype)


def gathered(param):
  """A weight where the step computes with it (see `sharding`)."""
  return sharding.gather(param[...], *param.axes)


class LayerNorm(nnx.Module):
  """g (x - mean) / sqrt(variance + epsilon) + b over the last axis, in float32."""

  def __init__(self, config):
    self.epsilon, self.scanned = config.layer_norm_epsilon, config.scan
    self.g = constant(1, (config.n_embd,), (None,), 'float32')
    self.b = constant(0, (config.n_embd,), (None,), 'float32')

  def __call__(self, x):
    def normed(x, g, b):
      y = x.astype(jnp.float32)
      y = y - y.mean(-1, keepdims=True)
      y = y * jax.lax.rsqrt((y * y).mean(-1, keepdims=True) + self.epsilon)
      return (y * spread(g, y) + spread(b, y)).astype(x.dtype)
    return again_when_needed(normed, self.scanned)(x, gathered(self.g), gathered(self.b))


class Projection(nnx.Module):
  """A weight and its bias: what OpenAI's code calls a conv1d of width one."""

  def __init__(self, key, shape, axes, bias_shape, bias_axes, std, compute_dtype=None):
    self.w = weight(key, shape, axes, std, compute_dtype)
    self.b = constant(0, bias_shape, bias_axes, compute_dtype)
    self.turned = False  # True: the weight is the matrix [out, in], see `decode.ready`

  def __call__(self, x, out_sharding=None):
    """x [n, in] times the weight, plus the bias: [n, out...], a dimension of heads being e, as exact as x.

    The factors of the product are of the weight's dtype (see `products_in`).
    """
    bias = flat(gathered(self.b), self.b.axes)
    if self.turned:
      y = jnp.einsum('ni,oi->no', x.astype(self.w.dtype), self.w[...], preferred_element_type=x.dtype)
      place = jax.P(jax.typeof(x).sharding.spec[0], *jax.typeof(bias).sharding.spec.partitions)
      y = jax.lax.reshape(y, (len(x), *bias.shape), out_sharding=place)
    else:
      y = products.product(x, flat(gathered(self.w), self.w.axes), out_sharding)
    return (y + spread(bias, y)).astype(x.dtype)


def flat(x, axes):
  """Merges the dimensions of heads and head size, if x has them; so is each product one of matrices."""
  heads = [dimension for dimension, axis in enumerate(axes) if axis in ('heads', 'whole_heads')]
  return merge(x, *heads) if heads else x


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


def gathered_once(model):
  """A new model with tables of the vocabulary gathered, so that both uses of one share its gathering."""
  model = copied(model)
  for table in (model.wte, model.unembedding):
    table.set_value(gathered(table))
  return model


def embedding(key, config):
  """Declares a weight [v, d] with a row a token; the rows that pad the vocabulary are 0."""
  axes = ('vocab', 'embed')
  drawn = _normal(key, (padded_vocab(config), config.n_embd), axes, config.init_std)
  real = jnp.arange(padded_vocab(config), out_sharding=sharding.storage('vocab')) < config.n_vocab
  return nnx.Param(jnp.where(real[:, None], drawn, 0), axes=axes, compute_dtype=None)


def inner_width(model_config):
  """Width of the MLP inside."""
  return model_config.n_inner or 4 * model_config.n_embd


def padded_vocab(model_config):
  """Rows of the embedding matrix: n_vocab rounded up to a multiple of `pad_vocab_to`."""
  return -(-model_config.n_vocab // model_config.pad_vocab_to) * model_config.pad_vocab_to


def n_params(model_config):
  """Number of parameters, padding apart: what the papers' sizes count."""
  c = model_config
  d, f = c.n_embd, inner_width(c)
  if c.architecture == 'lstm':  # the cell's four gates, and the projection
    return c.n_vocab * d + 4 * f * (d + f + 1) + f * d + d
  block = 4 * d * d + 4 * d + 2 * d * f + f + d + 4 * d
  norm = 2 * d if c.norm == 'before' else 0
  vocabularies = 1 if c.tie_word_embeddings else 2
  return (vocabularies * c.n_vocab + c.n_ctx) * d + c.n_layer * block + norm


def copied(model):
  """A new module, and new modules and Params in it, with the same arrays."""
  return jax.tree.map(lambda array: array, model)


def in_dtype(model, dtype):
  """A new model for computing: each weight in the dtype that it declares (see `weight`), else in `dtype`.

  Args:
    model: a module; a dict of arrays declares nothing.
    dtype: `config.model.compute_dtype`.
  """
  def cast(param):
    assert isinstance(param, nnx.Variable), f'{type(param).__name__} is not a weight of a module'
    return param.replace(param[...].astype(param.get_metadata('compute_dtype', None) or dtype))
  return jax.tree.map(cast, model, is_leaf=lambda node: isinstance(node, nnx.Variable))


def products_in(model, dtype):
  """A new model for computing without gradients: factors of products in `dtype`, all else in float32.

  What a CPU does best: it multiplies bfloat16 five times as fast as float32, if the product is float32, and
  does all else faster in float32. The vocabulary's table is there twice then, for a lookup is no product.
  """
  if dtype == 'float32':
    return model
  model, table = copied(model), model.unembedding
  model.tied, model.lm_head = False, table.replace(table[...].astype(dtype))
  for projection in projections(model.h):
    projection.w = projection.w.replace(projection.w[...].astype(dtype))
  return model


def rematerialized(layer, policy):
  """What the backward pass keeps of a layer: all (`none`), its matmuls (`dots`), nothing (`full`)."""
  if policy == 'none':
    return layer
  policies = jax.checkpoint_policies
  saved = {'dots': policies.save_from_both_policies(policies.dots_with_no_batch_dims_saveable,
                                                    policies.save_only_these_names(products.NAME)),
           'full': policies.nothing_saveable}[policy]
  return jax.checkpoint(layer, policy=saved)


def projections(block):
  """The Projections of a block, or of stacked ones."""
  return block.attn.c_attn, block.attn.c_proj, block.mlp.c_fc, block.mlp.c_proj


def unrolled(model):
  """A new model with a list of layers in place of stacked ones; its gradient is such a model too."""
  if not hasattr(model, 'h'):  # an LSTM has but one layer
    return model
  leaves, tree = jax.tree.flatten(model.h)
  columns = [jnp.unstack(leaf) for leaf in leaves]
  model = copied(model)
  model.h = nnx.List([tree.unflatten(layer) for layer in zip(*columns)])
  return model


def stacked(model):
  """The inverse of `unrolled`: a new model; the model itself where its layers are stacked."""
  if not isinstance(getattr(model, 'h', None), nnx.List):
    return model
  layers, model = model.h, copied(model)
  model.h = jax.tree.map(lambda *layers: jnp.stack(layers), *layers)
  return model


def _split(keys, n):
  """n arrays key[b] from key[b]; None stays None."""
  if keys is None:
    return (None,) * n
  return jax.vmap(lambda key: jax.random.split(key, n), out_axes=1)(keys)

