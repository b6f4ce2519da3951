"""Declarations: every property of a weight is stated once, where the weight is created.

A `Declaration` is metadata of the `nnx.Param`. Weight decay, Muon's matrices, dtypes, parameter counts,
FLOPs, LoRA and the layout of released files are all derived from it; nothing is keyed on the name of a
weight.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from flax import nnx

from gptjax.parallel import sharding


@dataclasses.dataclass(frozen=True)
class Declaration:
  """The properties of a weight, of one layer: the layer axis of stacked weights is not part of it.

  axes: its logical axes (see `gptjax.parallel.sharding`), one per dimension.
  inputs: dimensions that a matmul with the weight contracts.
  outputs: dimensions of the result of that matmul. A dimension in neither tuple indexes separate matrices,
    such as those of query, key and value. In a block, Muon orthogonalizes and LoRA adapts the weights that
    have inputs and outputs; Adam updates all others.
  decays: whether weight decay applies.
  float32: whether it computes in float32 regardless of `config.model.compute_dtype`.
  looked_up: whether it is only an embedding table, and in no matmul.
  """
  axes: tuple
  inputs: tuple = ()
  outputs: tuple = ()
  decays: bool = True
  float32: bool = False
  looked_up: bool = False

  def matrix_shape(self, shape):
    """Return (rows, columns) of the weight as a matrix, or (size,) if it is not one.

    Args:
      shape: of one layer.
    """
    rows = math.prod(shape[d] for d in self.inputs)
    return (rows, math.prod(shape) // rows) if self.inputs else (math.prod(shape),)

  def unpadded_shape(self, shape, n_vocab):
    """Return the shape, stacked or not, without the rows that pad the vocabulary."""
    layers = len(shape) - len(self.axes)
    rows = (n_vocab if axis == 'vocab' else size for axis, size in zip(self.axes, shape[layers:]))
    return (*shape[:layers], *rows)


def declare(value, **fields):
  """Return an `nnx.Param` whose metadata has `Declaration(**fields)`."""
  return nnx.Param(value, declaration=Declaration(**fields))


def weight(key, shape, axes, std, **fields):
  """Return a weight drawn from N(0, std^2), created with the sharding of its logical axes.

  Args:
    key: PRNG key.
    shape: tuple.
    axes: its logical axes.
    std: standard deviation.
    fields: other fields of its `Declaration`.
  """
  return declare(_normal(key, shape, axes, std), axes=axes, **fields)


def constant(value, shape, axes, **fields):
  """Return a bias or gain, initially `value`, without weight decay; other arguments as in `weight`."""
  initial = jnp.full(shape, value, jnp.float32, out_sharding=sharding.storage_spec(*axes))
  return declare(initial, axes=axes, decays=False, **fields)


def embedding(key, config, **fields):
  """Return a weight [v, d] with one row per token; the rows that pad the vocabulary are 0.

  Args:
    key: PRNG key.
    config: `config.model`.
    fields: fields of its `Declaration`.
  """
  axes = ('vocab', 'embed')
  drawn = _normal(key, (padded_vocab(config), config.n_embd), axes, config.init_std)
  real = jnp.arange(padded_vocab(config), out_sharding=sharding.storage_spec('vocab')) < config.n_vocab
  return declare(jnp.where(real[:, None], drawn, 0), axes=axes, **fields)


def _normal(key, shape, axes, std):
  return std * jax.random.normal(key, shape, out_sharding=sharding.storage_spec(*axes))


def gathered(param):
  """Gather the array of a weight for computing (see `gptjax.parallel.sharding`)."""
  return sharding.gather(param[...], *param.declaration.axes)


def declaration(param):
  """Return the Declaration of an `nnx.Variable`.

  Weights of Flax's own layers (LSTM, LoRA) have none and get a default: not sharded, weight decay on
  matrices, Adam.
  """
  found = param.get_metadata('declaration', None)
  return found or Declaration((None,) * len(param.shape), decays=len(param.shape) > 1)


def declarations(module):
  """Return the Declaration of each weight of a module, as nested dicts under the names of the weights."""
  def names(path):
    return tuple(getattr(key, 'key', getattr(key, 'name', None)) for key in path)
  found = {}
  is_weight = lambda node: isinstance(node, nnx.Variable)
  for path, param in jax.tree.leaves_with_path(nnx.state(module), is_leaf=is_weight):
    *parents, last = names(path)
    parent = found
    for name in parents:
      parent = parent.setdefault(name, {})
    parent[last] = declaration(param)
  return found


def n_kv_head(model_config):
  """Return the number of heads of keys and values."""
  return model_config.n_kv_head or model_config.n_head


def head_size(model_config):
  """Return the width of a head."""
  return model_config.head_size or model_config.n_embd // model_config.n_head


def inner_width(model_config):
  """Return the inner width of the MLP."""
  return model_config.n_inner or 4 * model_config.n_embd


def padded_vocab(model_config):
  """Return the rows of the embedding: n_vocab rounded up to a multiple of `pad_vocab_to`."""
  return -(-model_config.n_vocab // model_config.pad_vocab_to) * model_config.pad_vocab_to
