"""Schedules by their formulas, AdamW against PyTorch's, decay on matrices alone, Muon a layer at a time."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import mesh_of, tiny_config
from finetune.tiny import config_of
from flax import nnx
from variants import OPTIMIZERS, SCHEDULES

from gptjax.finetune.model import Classifier
from gptjax.model.lstm import language_model
from gptjax.model.parameters import declarations
from gptjax.train.optimizer import decay_mask, learning_rate, make_optimizer, muon_dimensions
from gptjax.train.step import init_state

AFTER_WARM_UP = [name for name in SCHEDULES if name != 'warmup_linear']


def rate(step, steps=100, **changes):
  config = tiny_config(**{f'optimizer.{k}': v for k, v in changes.items()})
  return float(learning_rate(config.optimizer, steps, step))


@pytest.mark.parametrize('schedule', AFTER_WARM_UP)
def test_warm_up_is_linear_from_zero_to_the_peak(schedule):
  values = [rate(s, schedule=schedule, warmup_steps=10, learning_rate=0.5) for s in range(11)]
  np.testing.assert_allclose(values, np.linspace(0, 0.5, 11), rtol=1e-6)


@pytest.mark.parametrize('schedule, step, want', [
  ('cosine', 60, 0.1 + 0.9 * (1 + math.cos(math.pi * 0.5)) / 2),
  ('cosine', 100, 0.1), ('linear', 60, 1 - 0.9 * 0.5), ('linear', 100, 0.1),
  ('constant', 60, 1), ('constant', 100, 1),
  ('wsd', 60, 1), ('wsd', 75, 1), ('wsd', 87.5, 0.55), ('wsd', 100, 0.1)])
def test_schedule(schedule, step, want):
  got = rate(step, schedule=schedule, warmup_steps=20, learning_rate=1.0, final_fraction=0.1,
             decay_fraction=0.25)
  assert got == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize('schedule', AFTER_WARM_UP)
def test_a_run_shorter_than_its_warm_up_still_works(schedule):
  values = [rate(s, steps=2, schedule=schedule, warmup_steps=2000, learning_rate=1.0) for s in (0, 1)]
  assert values == pytest.approx([0, 1 / 2000])


@pytest.mark.parametrize('warmup', [0, 1, 10])
@pytest.mark.parametrize('schedule', SCHEDULES)
def test_a_rate_is_between_zero_and_the_peak_and_constant_after_the_schedule(schedule, warmup):
  config = tiny_config(**{'optimizer.schedule': schedule, 'optimizer.warmup_steps': warmup,
                          'optimizer.warmup_fraction': warmup / 50, 'optimizer.schedule_steps': 50,
                          'optimizer.learning_rate': 0.5})
  rates = jax.jit(lambda steps: learning_rate(config.optimizer, 100, steps))(jnp.arange(100))
  assert rates.dtype == jnp.float32 and np.isfinite(rates).all()
  assert rates.min() >= 0 and 0.25 < rates.max() <= 0.5
  assert (rates[50:] == rates[50]).all()


def test_decay_touches_matrices_and_no_bias_or_gain():
  config = tiny_config()
  with mesh_of():
    params = jax.eval_shape(lambda: init_state(config).params)
  for path, on in jax.tree.leaves_with_path(decay_mask(params, declared_of(config))):
    assert on == (path[-1].key in ('w', 'wte', 'wpe')), path


def declared_of(config):
  with mesh_of():
    return declarations(jax.eval_shape(lambda: language_model(jax.random.key(0), config)))


@pytest.mark.first_cases(1)
@pytest.mark.parametrize('name', OPTIMIZERS)
def test_where_there_is_no_gradient_weights_that_decay_do_so_and_nothing_else_changes(name):
  config = tiny_config(**{'optimizer.name': name, 'optimizer.weight_decay': 0.1})
  declared = declared_of(config)
  optimizer = make_optimizer(config.optimizer, declared)
  with mesh_of():
    params = jax.jit(lambda: init_state(config).params)()
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = jax.jit(optimizer.update)(zeros, jax.jit(optimizer.init)(params), params)
    scale = 0.1
    if name == 'openai_adam':  # its bias correction scales the decay, too
      scale *= (1 - config.optimizer.b2) ** 0.5 / (1 - config.optimizer.b1)
    for update, w, decays in zip(*map(jax.tree.leaves, (updates, params, decay_mask(params, declared))),
                                 strict=True):
      np.testing.assert_allclose(update, scale * w if decays else 0 * w, rtol=1e-5, atol=1e-9)


@pytest.mark.first_cases(1)
@pytest.mark.parametrize('name', OPTIMIZERS)
def test_the_update_of_a_layer_depends_on_no_other_layer(name):
  """Layers are stacked in one array: a norm or a mean over all of it would mix them."""
  config = tiny_config(**{'optimizer.name': name, 'optimizer.clip_norm': 0.0})
  optimizer = make_optimizer(config.optimizer, declared_of(config))
  noise = lambda seed, tree: jax.tree.map(
    lambda w: np.random.default_rng(seed + w.size).normal(size=w.shape).astype(np.float32), tree)
  second_layer = lambda tree, x: {**tree, 'h': jax.tree.map(lambda w: jnp.asarray(w).at[1].mul(x), tree['h'])}
  with mesh_of():
    params = jax.jit(lambda: init_state(config).params)()
    state, first, second = optimizer.init(params), noise(0, params), noise(1, params)
    _, state = jax.jit(optimizer.update)(first, state, params)  # else there were no moments yet
    update = jax.jit(lambda x: optimizer.update(second_layer(second, x), state, second_layer(params, x))[0])
    one, other = (jax.device_get(update(x)['h']) for x in (1.0, -3.0))
  for update, changed in zip(jax.tree.leaves(one), jax.tree.leaves(other)):
    np.testing.assert_allclose(changed[0], update[0], rtol=1e-6, atol=1e-8)
    assert np.abs(changed[1] - update[1]).max() > 1e-3


@pytest.mark.first_cases(2)
@pytest.mark.parametrize('name', OPTIMIZERS)
@pytest.mark.parametrize('tied', [True, False])
def test_embedding_rate_scales_the_updates_of_embeddings_alone(name, tied):
  config = tiny_config(**{'optimizer.name': name, 'model.tie_word_embeddings': tied})
  declared, found = declared_of(config), []
  with mesh_of():
    params = jax.jit(lambda: init_state(config).params)()
    for factor in (1.0, 8.0):
      config.optimizer.embedding_rate = factor
      optimizer = make_optimizer(config.optimizer, declared)
      found.append(jax.jit(optimizer.update)(params, jax.jit(optimizer.init)(params), params))
  (updates, state), (scaled, scaled_state) = jax.device_get(found)
  assert jax.tree.structure(state) == jax.tree.structure(scaled_state), 'checkpoints have one layout'
  embeddings = {'wpe'} if tied else {'wpe', 'wte'}
  for path, update in jax.tree.leaves_with_path(updates):
    factor = 8 if path[-1].key in embeddings else 1
    np.testing.assert_array_equal(functools.reduce(lambda tree, key: tree[key.key], path, scaled),
                                  factor * update, err_msg=str(path))


def test_the_factors_of_lora_decay_and_are_not_those_of_muon():
  config = config_of(**{'finetune.train': 'lora'})
  with mesh_of():
    model = jax.eval_shape(lambda: Classifier(jax.random.key(0), config, 'choice', 1))
  params, declared = nnx.to_pure_dict(nnx.state(model)), declarations(model)
  factors = params['lm']['h']['attn']['c_attn']['lora']
  facts = declared['lm']['h']['attn']['c_attn']['lora']
  assert set(factors) == {'lora_a', 'lora_b'}
  assert jax.tree.leaves(decay_mask(factors, facts)) == [True, True]
  assert not jax.tree.leaves(muon_dimensions(factors, facts))


@pytest.mark.parametrize('clip_norm', [0.0, 0.5])
def test_ten_updates_equal_those_of_torch(clip_norm):
  torch = pytest.importorskip('torch')
  config = tiny_config(**{'optimizer.clip_norm': clip_norm, 'optimizer.learning_rate': 1e-2})
  with mesh_of():
    params = jax.device_get(jax.jit(lambda: init_state(config).params)())
  optimizer = make_optimizer(config.optimizer, declared_of(config))
  state = optimizer.init(params)
  flat = [torch.tensor(np.array(x), requires_grad=True) for x in jax.tree.leaves(params)]
  on = jax.tree.leaves(decay_mask(params, declared_of(config)))
  c = config.optimizer
  adamw = torch.optim.AdamW(
    [{'params': [x for x, d in zip(flat, on) if d], 'weight_decay': c.weight_decay},
     {'params': [x for x, d in zip(flat, on) if not d], 'weight_decay': 0.0}],
    lr=1.0, betas=(c.b1, c.b2), eps=c.epsilon)
  update = jax.jit(optimizer.update)
  for step in range(10):
    grads = jax.tree.map(
      lambda x: np.random.default_rng(step + x.size).normal(size=x.shape).astype(np.float32), params)
    lr = float(learning_rate(c, 10, step))
    updates, state = update(grads, state, params)
    params = jax.tree.map(lambda w, u: np.asarray(w - lr * u), params, updates)
    for x, g in zip(flat, jax.tree.leaves(grads)):
      x.grad = torch.tensor(g)
    if clip_norm:
      torch.nn.utils.clip_grad_norm_(flat, clip_norm)
    for group in adamw.param_groups:
      group['lr'] = lr
    adamw.step()
  for ours, theirs in zip(jax.tree.leaves(params), flat):
    np.testing.assert_allclose(ours, theirs.detach().numpy(), atol=2e-6, rtol=1e-4)


def test_muon_orthogonalizes_each_layer_and_each_of_query_key_value_by_itself():
  config = tiny_config(**{'optimizer.name': 'muon', 'optimizer.weight_decay': 0.0,
                          'optimizer.clip_norm': 0.0})
  with mesh_of():
    params = jax.jit(lambda: init_state(config).params)()
    optimizer = make_optimizer(config.optimizer, declared_of(config))
    grads = jax.tree.map(lambda x: jax.random.normal(jax.random.key(x.size), x.shape), params)
    # Newton-Schulz needs its matrices away from singular, which random square ones are not.
    identity = jnp.eye(32)
    attn = {'c_attn': identity[:, None].reshape(32, 1, 4, 8), 'c_proj': identity.reshape(4, 8, 32)}
    for name, square in attn.items():
      noise = grads['h']['attn'][name]['w']
      grads['h']['attn'][name]['w'] = square + 0.05 * noise
    updates, _ = jax.jit(optimizer.update)(grads, jax.jit(optimizer.init)(params), params)
  d, block = 32, jax.device_get(updates['h'])
  c_attn = block['attn']['c_attn']['w'].reshape(2, d, 3, d)
  matrices = [c_attn[layer, :, c] for layer in range(2) for c in range(3)]
  matrices += list(block['attn']['c_proj']['w'].reshape(2, d, d)) + list(block['mlp']['c_fc']['w'])
  for matrix in matrices:
    # An orthogonal matrix times 0.2 sqrt(longer side), up to Newton-Schulz's usual slack.
    values = np.linalg.svd(matrix, compute_uv=False) / (0.2 * math.sqrt(max(matrix.shape)))
    assert values.min() > 0.6 and values.max() < 1.25, values
  # Embeddings, biases and gains go to Adam, whose first update is the sign of the gradient.
  for name in ('wte', 'wpe'):
    np.testing.assert_allclose(updates[name], jnp.sign(grads[name]), atol=1e-3)


@pytest.mark.first_cases(1)
@pytest.mark.parametrize('name', OPTIMIZERS)
def test_updates_do_not_depend_on_the_mesh(name):
  config = tiny_config(**{'optimizer.name': name})
  optimizer, results = make_optimizer(config.optimizer, declared_of(config)), []
  for sizes in (dict(), dict(data=8), dict(fsdp=2, tensor=4)):
    with mesh_of(**sizes):
      params = jax.jit(lambda: init_state(config).params)()
      updates, _ = jax.jit(optimizer.update)(params, jax.jit(optimizer.init)(params), params)
      results.append(jax.device_get(updates))
      specs = lambda tree: jax.tree.map(lambda x: jax.typeof(x).sharding.spec, tree)
      assert specs(updates) == specs(params)
  for other in results[1:]:
    for got, want in zip(jax.tree.leaves(other), jax.tree.leaves(results[0])):
      np.testing.assert_allclose(got, want, atol=2e-4 if name == 'muon' else 1e-5)


def test_moments_are_one_tree_like_the_weights():
  config = tiny_config()
  with mesh_of():
    state = jax.eval_shape(lambda: init_state(config))
  adam = next(s for s in state.opt_state if isinstance(s, optax.ScaleByAdamState))
  assert jax.tree.structure(adam.mu) == jax.tree.structure(state.params)
