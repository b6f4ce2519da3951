"""Parameter counts and FLOPs of a model, from the declarations of its weights."""

import functools
import math
from types import SimpleNamespace
from typing import NamedTuple

import jax
from flax import nnx

from gptjax.model.lstm import language_model
from gptjax.model.parameters import declaration, head_size
from gptjax.parallel import sharding

# Fields of `config.model` on which neither a shape nor a declaration depends.
COMPUTING = ('compute_dtype', 'remat', 'scan', 'dropout')


def n_params(model_config, padded=False):
  """Return the number of parameters, as the papers count them, or with the rows that pad the vocabulary."""
  return sum(weight.padded if padded else weight.count for weight in _weights(model_config))


def flops_per_token(model_config, seq_len):
  """Training FLOPs per token, forward and backward, in two common conventions.

  N counts the parameters that multiply (not positions, nor an untied embedding), L layers, C the width of all
  heads, T tokens; W is the sliding window, T without one::

    palm:   6 N + 12 L C W                  attention over the full square (PaLM appendix B; nanoGPT)
    causal: 6 N + 12 L C (W - W^2 / (2 T))  only the part that a causal model needs: half without a window

  Returns:
    {'palm': int, 'causal': int}
  """
  c = model_config
  n = sum(weight.count for weight in _weights(c) if not weight.looked_up)
  window = min(c.sliding_window or seq_len, seq_len)
  per_key = 12 * c.n_layer * c.n_head * head_size(c) if c.architecture == 'transformer' else 0
  return {'palm': 6 * n + per_key * window,
          'causal': 6 * n + per_key * window * (2 * seq_len - window) // (2 * seq_len)}


class Weight(NamedTuple):
  """Number of elements of a weight without and with vocabulary padding, and whether it is only looked up."""
  count: int
  padded: int
  looked_up: bool


def _weights(model_config):
  fields = model_config.to_dict() if hasattr(model_config, 'to_dict') else vars(model_config)
  return _weights_of(tuple(sorted((name, value) for name, value in fields.items() if name not in COMPUTING)))


@functools.lru_cache
def _weights_of(fields):
  """[Weight] of a model with these config fields; only shapes are evaluated."""
  model = SimpleNamespace(**dict(fields), **dict.fromkeys(COMPUTING))
  config = SimpleNamespace(model=model, attention=SimpleNamespace(kernel='xla'))
  with sharding.abstract_mesh():
    model_shapes = jax.eval_shape(lambda: language_model(jax.random.key(0), config))
  weights = []
  for param in jax.tree.leaves(model_shapes, is_leaf=lambda node: isinstance(node, nnx.Variable)):
    facts = declaration(param)
    real = facts.unpadded_shape(param.shape, model.n_vocab)
    weights.append(Weight(math.prod(real), math.prod(param.shape), facts.looked_up))
  return weights
