"""Forms of the weights for computing: cast, unrolled or stacked, rematerialized."""

import jax
import jax.numpy as jnp
from flax import nnx

from gptjax.kernels import cpu_matmul
from gptjax.model.parameters import gathered

REMAT = ('none', 'dots', 'full')


def gathered_once(model):
  """A new model with tables of the vocabulary gathered, so that both uses of one share its gathering."""
  model = copied(model)
  for table in (model.wte, model.unembedding):
    table.set_value(gathered(table))
  return model


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
                                                    policies.save_only_these_names(cpu_matmul.NAME)),
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
