"""Forms of a model's weights for computing; each function returns a new model.

The training step applies these in order, and the inverse of `unrolled` to the gradient:

  drop_embeddings  dropout of the embedding matrices, if the config has it; also of their gradients
  in_dtype         float32 -> the compute dtype, once per step and not per microbatch
  unrolled         stacked layers -> a list of layers, unless `config.model.scan`; `stacked` is the inverse
  gathered_once    gathered embedding tables, so that lookup and output matmul share one all-gather

and `sharding.defer_grad_sum`, with which gradients are all-reduced over replicas once per step.
Decoding has its own: `multiplied_in`, `in_int8`, and those of `gptjax.generate.kv_cache`.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from gptjax.kernels import cpu_matmul, int8
from gptjax.model.keys import named
from gptjax.model.layers import Projection
from gptjax.model.parameters import declaration, declare, gathered
from gptjax.parallel import sharding

REMAT = ('none', 'dots', 'full')
EMBEDDINGS = ('wte', 'wpe')  # the matrices of `drop_embeddings`


def drop_embeddings(weights, config, keys):
  """Dropout of the embedding matrices, as GPT-1's released code has it; with `embedding_dropout` = 'matrix'.

      w'[i, j] = m[i, j] w[i, j] / (1 - rate),   m[i, j] ~ Bernoulli(1 - rate)

  A dropped entry is dropped at all positions of the step and in the tied output layer. The map is its own
  transpose, so the gradient with respect to w is this function of the gradient with respect to w'.

  Args:
    weights: dict with the float32 matrices [v, d] and [n_ctx, d] under the names `EMBEDDINGS`, of which some
      may be absent; or their gradients. An untied output matrix is not an embedding.
    config: the whole config.
    keys: key[b], the dropout keys of the whole batch, so that the mask does not depend on microbatches; None:
      no dropout.

  Returns:
    The same dict with other matrices.
  """
  if keys is None or config.model.embedding_dropout != 'matrix':
    return weights
  key, rate = named(sharding.replicated(keys)[0], 'embedding_dropout'), config.model.dropout

  def drop(name):
    w = weights[name]
    keep = jax.random.bernoulli(named(key, name), 1 - rate, w.shape, out_sharding=jax.typeof(w).sharding.spec)
    return jnp.where(keep, w / (1 - rate), 0)
  return {**weights, **{name: drop(name) for name in EMBEDDINGS if name in weights}}


def in_dtype(model, dtype):
  """Cast each weight to `dtype`, or to float32 where its declaration says so; int8 weights stay as they are.

  Args:
    model: a module; a dict of arrays has no declarations.
    dtype: `config.model.compute_dtype`.
  """
  def cast(param):
    assert isinstance(param, nnx.Variable), f'{type(param).__name__} is not a weight of a module'
    if param.dtype == jnp.int8:
      return param
    return param.replace(param[...].astype('float32' if declaration(param).float32 else dtype))
  return jax.tree.map(cast, model, is_leaf=lambda node: isinstance(node, nnx.Variable))


def multiplied_in(model, dtype):
  """Cast the operands of matmuls to `dtype` and everything else to float32, for inference.

  Fastest on CPUs, where bfloat16 matmuls with a float32 result are five times as fast as float32 ones, and
  all other operations are faster in float32. Keeps a second copy of the embedding: the lookup stays float32,
  the output matmul does not.
  """
  if dtype == 'float32':
    return model
  model, table = copied(model), model.unembedding
  model.tied, model.lm_head = False, table.replace(table[...].astype(dtype))
  for _, projection in projections(model.h):
    projection.w = projection.w.replace(projection.w[...].astype(dtype))
  return model


def in_int8(model, dtype):
  """Round the matrices of blocks and the output matrix to int8 and cast the rest to `dtype`, for inference.

  A tied embedding is rounded once, for the lookup too. The output matrix becomes [d, v], the layout of all
  other matrices. See `gptjax.kernels.int8`.
  """
  model, table = copied(model), model.unembedding
  for _, projection in projections(model.h):
    facts = declaration(projection.w)
    stacked_axes = projection.w.ndim - len(facts.axes)
    q, scale = int8.rounded(projection.w[...], tuple(stacked_axes + d for d in facts.inputs))
    projection.w = projection.w.replace(q)
    projection.scale = declare(scale, axes=projection.output_axes, float32=True)
  q, scale = int8.rounded(table[...].T, (0,))
  vocab, embed = declaration(table).axes
  setattr(model, 'wte' if model.tied else 'lm_head', declare(q, axes=(embed, vocab)))
  model.scale, model.dtype = declare(scale, axes=(vocab,), float32=True), dtype
  return in_dtype(model, dtype)


def as_multiplied(x, projection):
  """Cast x to the dtype of a Projection's matmul: that of queries, keys, values and their cache."""
  return x if projection.w.dtype == jnp.int8 else x.astype(projection.w.dtype)


def gathered_once(model):
  """Gather the embedding tables, so that both uses of a tied one share the all-gather."""
  model = copied(model)
  for table in (model.wte, model.unembedding):
    table.set_value(gathered(table))
  return model


def unrolled(model):
  """Replace stacked layers by a list of layers; the gradient has the same form."""
  if not hasattr(model, 'h'):  # an LSTM has one layer
    return model
  leaves, tree = jax.tree.flatten(model.h)
  columns = [jnp.unstack(leaf) for leaf in leaves]
  model = copied(model)
  model.h = nnx.List([tree.unflatten(layer) for layer in zip(*columns)])
  return model


def stacked(model):
  """The inverse of `unrolled`; a model whose layers are stacked is returned as it is."""
  if not isinstance(getattr(model, 'h', None), nnx.List):
    return model
  layers, model = model.h, copied(model)
  model.h = jax.tree.map(lambda *layers: jnp.stack(layers), *layers)
  return model


def rematerialized(layer, policy):
  """Rematerialize a layer: saved are all intermediates (`none`), matmuls (`dots`) or nothing (`full`)."""
  if policy == 'none':
    return layer
  policies = jax.checkpoint_policies
  saved = {'dots': policies.save_from_both_policies(policies.dots_with_no_batch_dims_saveable,
                                                    policies.save_only_these_names(cpu_matmul.NAME)),
           'full': policies.nothing_saveable}[policy]
  return jax.checkpoint(layer, policy=saved)


def projections(module):
  """Return [(path, Projection)] of all Projections in a module, sorted.

  A path is a tuple of attribute names.
  """
  found = []
  for name, part in sorted(vars(module).items()):
    if isinstance(part, Projection):
      found.append(((name,), part))
    elif isinstance(part, nnx.Module):
      found += [((name, *path), projection) for path, projection in projections(part)]
  return found


def copied(model):
  """Copy a module with its submodules and Params, which share the arrays."""
  return jax.tree.map(lambda array: array, model)
