"""The forms that a model's weights compute in. Each function returns a new model and leaves the old one.

The training step goes through these, and back for the gradient:

  in_dtype       float32 -> the compute dtype, once per step and not per microbatch
  unrolled       stacked layers -> a list of layers, unless `config.model.scan`; `stacked` is the inverse
  gathered_once  the vocabulary's tables gathered, where both uses of one share it

and `sharding.defer_grad_sum` marks them so that their gradients are summed over replicas once.
Decoding has forms of its own: `multiplied_in`, and those of `gptjax.generate.kv_cache.prepare_for_decoding`.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from gptjax.kernels import cpu_matmul
from gptjax.model.layers import Projection
from gptjax.model.parameters import declaration, gathered

REMAT = ('none', 'dots', 'full')


def in_dtype(model, dtype):
  """A model for computing: each weight in `dtype`, or in float32 where its declaration says so.

  Args:
    model: a module; a dict of arrays declares nothing.
    dtype: `config.model.compute_dtype`.
  """
  def cast(param):
    assert isinstance(param, nnx.Variable), f'{type(param).__name__} is not a weight of a module'
    return param.replace(param[...].astype('float32' if declaration(param).float32 else dtype))
  return jax.tree.map(cast, model, is_leaf=lambda node: isinstance(node, nnx.Variable))


def multiplied_in(model, dtype):
  """A model for computing without gradients: operands of matmuls in `dtype`, all else in float32.

  Fastest on CPUs: they multiply bfloat16 five times as fast as float32 if the result is float32, and do all
  else faster in float32. Keeps a second copy of the embedding: the lookup stays float32, the output matmul
  does not.
  """
  if dtype == 'float32':
    return model
  model, table = copied(model), model.unembedding
  model.tied, model.lm_head = False, table.replace(table[...].astype(dtype))
  for _, projection in projections(model.h):
    projection.w = projection.w.replace(projection.w[...].astype(dtype))
  return model


def as_multiplied(x, projection):
  """x in the dtype in which a Projection multiplies, which queries, keys, values and their cache have."""
  return x.astype(projection.w.dtype)


def gathered_once(model):
  """A model with the vocabulary's tables gathered, so that both uses of one share its gathering."""
  model = copied(model)
  for table in (model.wte, model.unembedding):
    table.set_value(gathered(table))
  return model


def unrolled(model):
  """A model with a list of layers in place of stacked ones; its gradient is such a model too."""
  if not hasattr(model, 'h'):  # an LSTM has but one layer
    return model
  leaves, tree = jax.tree.flatten(model.h)
  columns = [jnp.unstack(leaf) for leaf in leaves]
  model = copied(model)
  model.h = nnx.List([tree.unflatten(layer) for layer in zip(*columns)])
  return model


def stacked(model):
  """The inverse of `unrolled`; the model itself where its layers are stacked."""
  if not isinstance(getattr(model, 'h', None), nnx.List):
    return model
  layers, model = model.h, copied(model)
  model.h = jax.tree.map(lambda *layers: jnp.stack(layers), *layers)
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


def projections(module):
  """[((names of its modules...), Projection)] of all Projections in a module, in the order of their names."""
  found = []
  for name, part in sorted(vars(module).items()):
    if isinstance(part, Projection):
      found.append(((name,), part))
    elif isinstance(part, nnx.Module):
      found += [((name, *path), one) for path, one in projections(part)]
  return found


def copied(model):
  """A new module, and new modules and Params in it, with the same arrays."""
  return jax.tree.map(lambda array: array, model)
