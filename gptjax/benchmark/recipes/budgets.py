"""FLOPs of a run: those of the model, and those of Muon's orthogonalization, which the usual count omits."""

import math

import jax
from flax import nnx
from optax.contrib import MuonDimensionNumbers

from gptjax.model.lstm import language_model
from gptjax.model.parameters import declarations
from gptjax.model.size import flops_per_token
from gptjax.parallel import sharding
from gptjax.train.optimizer import muon_dimensions

NEWTON_SCHULZ_STEPS = 5  # of optax.contrib.muon


def model_flops(config):
  """Training FLOPs per token of a config, by `gptjax.model.size.flops_per_token`, causal."""
  return flops_per_token(config.model, config.data.seq_len or config.model.n_ctx)['causal']


def muon_flops(config):
  """FLOPs of Muon's Newton-Schulz iterations per step; 0 for other optimizers.

  A matrix X of m rows and n >= m columns takes, in each iteration, 2 m^2 n for A = X X^T, 2 m^3 for A^2 and
  2 m^2 n for the product with X.

  Args:
    config: resolved.
  """
  if config.optimizer.name != 'muon':
    return 0
  with sharding.abstract_mesh():
    model = nnx.eval_shape(lambda: language_model(jax.random.key(0), config))
  params, total = nnx.to_pure_dict(nnx.state(model)), 0
  dimensions = jax.tree.leaves(muon_dimensions(params, declarations(model)),
                               is_leaf=lambda leaf: leaf is None or isinstance(leaf, MuonDimensionNumbers))
  for w, axes_of_sides in zip(jax.tree.leaves(params), dimensions, strict=True):
    if axes_of_sides:
      m, n = sorted(math.prod(w.shape[axis] for axis in axes) for axes in axes_of_sides)
      total += w.size // (m * n) * NEWTON_SCHULZ_STEPS * (4 * m * m * n + 2 * m ** 3)
  return total
