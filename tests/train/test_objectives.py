"""The laws of a loss, each for every objective of tests/variants.py; `test_loss.py` has the values of one."""

import functools

import jax
import numpy as np
import pytest
from conftest import mesh_of, random_batch, tiny_config
from variants import OBJECTIVES

from gptjax.model.lstm import language_model
from gptjax.parallel import sharding
from gptjax.train.step import eval_step, graph, init_state, loss_and_grads

every_objective = pytest.mark.parametrize('name', OBJECTIVES)


def config_of(name, **more):
  return tiny_config(**OBJECTIVES[name], **{'model.init_std': 0.3, **more})


def loss_and_gradients(config, batch, sizes, params=None):
  """(loss, gradients, weights) of fresh weights or of `params`; NumPy arrays."""
  with mesh_of(**sizes) as mesh:
    params = params or jax.jit(lambda: init_state(config).params)()
    step = jax.jit(functools.partial(loss_and_grads, config=config, graphdef=graph(config)))
    loss, gradients = step(params, sharding.shard_batch(batch, mesh), None)
    return jax.device_get((loss, gradients, params))


@pytest.mark.ci
@every_objective
def test_the_gradient_is_the_slope_of_the_loss(name):
  """The loss has a backward pass of its own, which could be that of another one."""
  config = config_of(name)
  batch = random_batch(config, ignored=0.2)
  _, gradients, params = loss_and_gradients(config, batch, {})
  slope = np.sqrt(sum((g ** 2).sum() for g in jax.tree.leaves(gradients)))
  step = 1e-2 / slope ** 2
  one, other = (loss_and_gradients(config, batch, {}, jax.tree.map(lambda w, g: w + sign * step * g, params,
                                                                   gradients))[0] for sign in (1, -1))
  np.testing.assert_allclose((one - other) / (2 * step), slope ** 2, rtol=1e-2)


@pytest.mark.first_cases(1)
@every_objective
def test_meshes_microbatches_and_chunks_change_neither_loss_nor_gradients(name):
  batch = random_batch(config_of(name))
  batch['targets'][:5] = -1  # most of the targets are in a few rows
  batch['targets'][6, 3:] = -1
  want_loss, want, _ = loss_and_gradients(config_of(name, **{'loss.chunk': 0}), batch, {})
  config = config_of(name, **{'loss.chunk': 7, 'train.microbatch_size': 4})
  loss, gradients, _ = loss_and_gradients(config, batch, dict(data=2, fsdp=2, tensor=2))
  np.testing.assert_allclose(loss, want_loss, rtol=1e-5)
  for got, true in zip(*map(jax.tree.leaves, (gradients, want)), strict=True):
    np.testing.assert_allclose(got, true, atol=2e-5 * np.abs(true).max(), rtol=1e-4)


@pytest.mark.first_cases(1)
@every_objective
def test_a_position_without_a_target_has_no_part_in_the_loss(name):
  config = config_of(name)
  batch = random_batch(config)
  batch['targets'][:, 17:] = -1
  other = {**batch, 'inputs': batch['inputs'].copy()}
  other['inputs'][:, 17:] = (batch['inputs'][:, 17:] + 7) % config.model.n_vocab
  (loss, one, _), (other_loss, two, _) = (loss_and_gradients(config, x, {}) for x in (batch, other))
  np.testing.assert_allclose(other_loss, loss, rtol=1e-6)
  for got, want in zip(*map(jax.tree.leaves, (two['h'], one['h'])), strict=True):
    np.testing.assert_allclose(got, want, atol=1e-6)


@every_objective
def test_evaluation_is_the_log_likelihood_whatever_is_trained(name):
  config = config_of(name)
  batch = random_batch(config, ignored=0.3)
  with mesh_of() as mesh:
    model = jax.jit(lambda: language_model(jax.random.key(config.train.seed), config))()
    params, evaluate = jax.jit(lambda: init_state(config).params)(), functools.partial(
      eval_step, config=config, graphdef=graph(config))
    total, count = jax.jit(evaluate)(params, sharding.shard_batch(batch, mesh))
    logits = np.asarray(model(batch['inputs']), np.float64)
  losses = np.log(np.exp(logits).sum(-1)) - np.take_along_axis(
    logits, np.maximum(batch['targets'], 0)[..., None], -1)[..., 0]
  np.testing.assert_allclose(total, losses[batch['targets'] >= 0].sum(), rtol=1e-5)
  assert count == (batch['targets'] >= 0).sum()
