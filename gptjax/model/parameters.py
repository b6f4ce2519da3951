"""Declarations: all that is true of a weight is stated once, where it is created; the rest is derived.

A `Declaration` travels with its weight as metadata of the `nnx.Param`. The optimizer reads from it what
decays and what Muon orthogonalizes, `compute` the dtype, `size` the counts, LoRA and the released files the
shape as a matrix. Nothing else in gptjax is keyed on the name of a weight.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from flax import nnx

from gptjax.parallel import sharding


@dataclasses.dataclass(frozen=True)
class Declaration:
  """What is true of a weight besides its value. It describes one layer: stacked weights have an axis before.

  axes: its logical axes (see `gptjax.parallel.sharding`), one a dimension.
  inputs: dimensions over which a matrix multiplication with it sums.
  outputs: dimensions that such a multiplication leaves. Dimensions that are neither number separate matrices,
    as those of query, key and value. A weight with inputs and outputs in a block is one that Muon
    orthogonalizes and LoRA adapts, if the config asks for it; Adam has all others.
  decays: weight decay applies to it.
  float32: it computes in float32 whatever `config.model.compute_dtype` is.
  looked_up: its rows are only looked up; no activation is multiplied by it.
  """
  axes: tuple
  inputs: tuple = ()
  outputs: tuple = ()
  decays: bool = True
  float32: bool = False
  looked_up: bool = False

  def matrix(self, shape):
    """(rows, columns) of the weight as one matrix; (columns,) where it is none.

    Args:
      shape: of one layer.
    """
    rows = math.prod(shape[d] for d in self.inputs)
    return (rows, math.prod(shape) // rows) if self.inputs else (math.prod(shape),)


  def real_shape(self, shape, n_vocab):
    """The shape of a weight, stacked or not, without the rows that pad the vocabulary."""
    layers = len(shape) - len(self.axes)
    rows = (n_vocab if axis == 'vocab' else size for axis, size in zip(self.axes, shape[layers:]))
    return (*shape[:layers], *rows)


def declare(value, **facts):
  """A weight with its `Declaration`; arguments as its fields."""
  return nnx.Param(value, declaration=Declaration(**facts))


def weight(key, shape, axes, std, **facts):
  """A weight drawn from N(0, std), sharded from the start as its logical axes say.

  Args:
    key: JAX random key.
    shape: tuple.
    axes: its logical axes.
    std: standard deviation.
    facts: other fields of its `Declaration`.
  """
  return declare(_normal(key, shape, axes, std), axes=axes, **facts)


def constant(value, shape, axes, **facts):
  """A bias or gain that starts as `value` and does not decay; arguments as for `weight`."""
  start = jnp.full(shape, value, jnp.float32, out_sharding=sharding.storage_spec(*axes))
  return declare(start, axes=axes, decays=False, **facts)


def embedding(key, config, **facts):
  """A weight [v, d] with one row per token; the rows that pad the vocabulary are 0.

  Args:
    key: JAX random key.
    config: `config.model`.
    facts: fields of its `Declaration`.
  """
  axes = ('vocab', 'embed')
  drawn = _normal(key, (padded_vocab(config), config.n_embd), axes, config.init_std)
  real = jnp.arange(padded_vocab(config), out_sharding=sharding.storage_spec('vocab')) < config.n_vocab
  return declare(jnp.where(real[:, None], drawn, 0), axes=axes, **facts)


def _normal(key, shape, axes, std):
  return std * jax.random.normal(key, shape, out_sharding=sharding.storage_spec(*axes))


def gathered(param):
  """A weight where the step computes with it (see `gptjax.parallel.sharding`)."""
  return sharding.gather(param[...], *param.declaration.axes)


def declaration(param):
  """The Declaration of an `nnx.Variable`.

  A weight of Flax's own layers has none. All of these are small: their axes are not sharded, they decay where
  they are matrices, and Adam has them.
  """
  found = param.get_metadata('declaration', None)
  return found or Declaration((None,) * len(param.shape), decays=len(param.shape) > 1)


def declarations(module):
  """The Declaration of each weight of a module, as nested dicts with the weights' names."""
  def names(path):
    return tuple(getattr(key, 'key', getattr(key, 'name', None)) for key in path)
  found = {}
  is_weight = lambda node: isinstance(node, nnx.Variable)
  for path, param in jax.tree.leaves_with_path(nnx.state(module), is_leaf=is_weight):
    *parents, last = names(path)
    place = found
    for name in parents:
      place = place.setdefault(name, {})
    place[last] = declaration(param)
  return found


def inner_width(model_config):
  """Width of the MLP inside."""
  return model_config.n_inner or 4 * model_config.n_embd


def padded_vocab(model_config):
  """Rows of the embedding matrix: n_vocab rounded up to a multiple of `pad_vocab_to`."""
  return -(-model_config.n_vocab // model_config.pad_vocab_to) * model_config.pad_vocab_to
