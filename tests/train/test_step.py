"""The step: pure, donated, exact when skipped, blind to how the batch is cut; and it learns."""

import functools

import jax
import numpy as np
import pytest
from conftest import mesh_of, random_batch, tiny_config
from variants import OPTIMIZERS

from gptjax.parallel import sharding
from gptjax.train.step import eval_step, graph, init_state, train_step


def compiled_step(config, state, batch, steps=10):
  step = functools.partial(train_step, config=config, graphdef=graph(config), steps=steps)
  return jax.jit(step, donate_argnums=0).lower(state, batch).compile()


def bits(tree):
  return [np.asarray(x).tobytes() for x in jax.tree.leaves(tree)]


@pytest.mark.ci
def test_it_learns_one_batch_by_heart():
  config = tiny_config(**{'optimizer.learning_rate': 1e-2, 'optimizer.schedule': 'constant',
                          'train.microbatch_size': 4})
  with mesh_of(data=2) as mesh:
    state = jax.jit(lambda: init_state(config))()
    batch = sharding.shard_batch(random_batch(config), mesh)
    step = compiled_step(config, state, batch)
    for _ in range(150):
      state, metrics = step(state, batch)
  assert float(metrics['loss']) < 0.1 and int(state.step) == 150


@pytest.mark.parametrize('optimizer', OPTIMIZERS)
def test_a_fresh_state_is_of_the_types_of_a_restored_one(optimizer):
  """Else the first resume would compile another program: a weak type is in it, and no file can hold one."""
  config = tiny_config(**{'optimizer.name': optimizer})
  with mesh_of(data=2) as mesh:
    fresh = jax.eval_shape(lambda: init_state(config))
    batch = sharding.shard_batch(random_batch(config), mesh)
    step = functools.partial(train_step, config=config, graphdef=graph(config), steps=10)
    stepped, _ = jax.eval_shape(step, fresh, batch)
  kinds = lambda state: jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), state)
  assert kinds(fresh) == kinds(stepped)
  assert not any(x.weak_type for x in jax.tree.leaves(fresh))


@pytest.mark.ci
def test_the_same_arguments_give_the_same_bits():
  config = tiny_config(**{'model.dropout': 0.1, 'train.microbatch_size': 2})
  with mesh_of() as mesh:
    batch = sharding.shard_batch(random_batch(config), mesh)
    results = []
    for _ in range(2):
      state = jax.jit(lambda: init_state(config))()
      state, metrics = compiled_step(config, state, batch)(state, batch)
      results.append(bits((state, metrics)))
  assert results[0] == results[1]


@pytest.mark.first_cases(2)
@pytest.mark.parametrize('bad', [np.nan, np.inf, 1e30])
@pytest.mark.parametrize('parts', [1, 4])
def test_a_step_that_is_not_finite_changes_nothing_but_the_counts(bad, parts):
  config = tiny_config(**{'train.microbatch_size': 8 // parts})
  with mesh_of() as mesh:
    batch = sharding.shard_batch(random_batch(config), mesh)
    state = jax.jit(lambda: init_state(config))()
    step = compiled_step(config, state, batch)
    state, _ = step(state, batch)
    poisoned = state.params['ln_f']['g'].at[3].set(bad)
    state = state._replace(params={**state.params, 'ln_f': {**state.params['ln_f'], 'g': poisoned}})
    before = bits((state.params, state.opt_state))
    for count in (1, 2):
      state, metrics = step(state, batch)
      assert not (np.isfinite(metrics['loss']) and np.isfinite(metrics['grad_norm']))
      assert bits((state.params, state.opt_state)) == before
      assert int(metrics['skipped']) == int(state.skipped) == count
      assert int(state.step) == 1 + count
    healed = state.params['ln_f']['g'].at[3].set(1.0)
    state = state._replace(params={**state.params, 'ln_f': {**state.params['ln_f'], 'g': healed}})
    state, metrics = step(state, batch)
    assert int(metrics['skipped']) == 0 and np.isfinite(metrics['loss'])
    assert bits((state.params, state.opt_state)) != before


@pytest.mark.ci
def test_uneven_microbatches_weigh_every_target_the_same():
  losses = []
  for parts in (1, 2, 8):
    config = tiny_config(**{'train.microbatch_size': 8 // parts})
    batch = random_batch(config)
    batch['targets'][:5] = -1  # most of the targets lie in a few rows
    batch['targets'][6, 3:] = -1
    with mesh_of() as mesh:
      state = jax.jit(lambda: init_state(config))()
      placed = sharding.shard_batch(batch, mesh)
      state, metrics = compiled_step(config, state, placed)(state, placed)
      losses.append((float(metrics['loss']), float(metrics['grad_norm'])))
  np.testing.assert_allclose(losses, [losses[0]] * 3, rtol=1e-5)


def test_the_state_is_updated_in_place():
  config = tiny_config()
  with mesh_of() as mesh:
    batch = sharding.shard_batch(random_batch(config), mesh)
    state = jax.jit(lambda: init_state(config))()
    compiled = compiled_step(config, state, batch)
    size = sum(x.nbytes for x in jax.tree.leaves(state))
    assert compiled.memory_analysis().alias_size_in_bytes >= 0.99 * size
    compiled(state, batch)
    assert all(x.is_deleted() for x in jax.tree.leaves(state.params))


def test_padded_rows_of_the_embedding_stay_zero():
  config = tiny_config()
  with mesh_of() as mesh:
    batch = sharding.shard_batch(random_batch(config), mesh)
    state = jax.jit(lambda: init_state(config))()
    step = compiled_step(config, state, batch)
    for _ in range(3):
      state, _ = step(state, batch)
  assert not np.asarray(state.params['wte'])[61:].any()


def test_evaluation_counts_each_target_once_and_drops_nothing():
  config = tiny_config(**{'model.dropout': 0.5})
  batch = random_batch(config, ignored=0.3)
  with mesh_of(data=2) as mesh:
    params = jax.jit(lambda: init_state(config).params)()
    evaluate = jax.jit(functools.partial(eval_step, config=config, graphdef=graph(config)))
    total, count = evaluate(params, sharding.shard_batch(batch, mesh))
    again, _ = evaluate(params, sharding.shard_batch(batch, mesh))
    half = {name: x[:4] for name, x in batch.items()}
    rest = {name: x[4:] for name, x in batch.items()}
    parts = [evaluate(params, sharding.shard_batch(part, mesh)) for part in (half, rest)]
  total, count = float(total), float(count)
  assert total == float(again) and count == (batch['targets'] >= 0).sum()
  np.testing.assert_allclose(total, sum(float(t) for t, _ in parts), rtol=1e-6)
  assert abs(total / count - np.log(61)) < 0.1, 'a fresh model knows nothing'
