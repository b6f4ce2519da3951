"""Decoding with int8 weights: the model that its weights describe, in a quarter of the bytes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import mesh_of, random_batch, tiny_config
from flax import nnx
from generate.test_cache import made, prompts_of, written
from model.test_variants import config_of, noisy
from variants import VARIANTS, few

from gptjax.errors import InputError
from gptjax.generate import kv_cache
from gptjax.kernels import int8
from gptjax.model.compute import copied, projections
from gptjax.model.parameters import declaration
from gptjax.train.step import graph, init_state, train_step

TRANSFORMERS = [name for name, changes in VARIANTS.items() if 'model.architecture' not in changes]


def dequantized(model):
  """The model with the float32 weights that its int8 weights stand for, its layers stacked."""
  model = copied(model)

  def replaced(param, axes):
    q, scale = int8.rounded(param[...], axes)
    return param.replace(q * np.expand_dims(scale, axes))
  for _, projection in projections(model.h):
    projection.w = replaced(projection.w, tuple(1 + d for d in declaration(projection.w).inputs))
  setattr(model, 'wte' if model.tied else 'lm_head', replaced(model.unembedding, (1,)))
  return model


@pytest.mark.ci
@pytest.mark.parametrize('name', few(TRANSFORMERS))
def test_logits_are_those_of_the_dequantized_weights(name):
  tokens = random_batch(config_of(name))['inputs'][:2, :20]
  with mesh_of():
    model = noisy(name)
    ready, want = kv_cache.prepare_for_decoding(model, 'int8'), np.asarray(dequantized(model)(tokens))
    padded, lengths, slots = kv_cache.pad_prompts([row[:9].tolist() for row in tokens], 3, model.n_ctx)
    logits, cache = kv_cache.prefill(ready, padded, lengths, slots)
    for i in range(9, 12):
      np.testing.assert_allclose(logits, want[:, i - 1], atol=3e-5)
      logits, cache = jax.jit(kv_cache._decode_one)(ready, cache, tokens[:, i])
    assert np.abs(want - model(tokens)).max() > 1e-3  # rounding changes something


@pytest.mark.ci
@pytest.mark.parametrize('mesh, changes', [
  pytest.param(dict(data=2), {}, marks=pytest.mark.slow), (dict(tensor=2), {}),
  pytest.param(dict(fsdp=2), {'model.tie_word_embeddings': False, 'model.n_kv_head': 2},
               marks=pytest.mark.slow)])
def test_another_mesh_writes_the_same(mesh, changes):
  prompts = prompts_of(2, 9)
  with mesh_of():
    want = written(kv_cache.prepare_for_decoding(made(**changes), 'int8'), prompts, 10)
  with mesh_of(**mesh):
    ready = kv_cache.prepare_for_decoding(made(**changes), 'int8')
    np.testing.assert_array_equal(written(ready, prompts, 10), want)


@pytest.mark.parametrize('tied', [True, False])
def test_matrices_are_stored_in_a_byte_per_weight(tied):
  with mesh_of():
    model = made(**{'model.tie_word_embeddings': tied})
    ready = kv_cache.prepare_for_decoding(model, 'int8')
  matrices = sum(projection.w.size for _, projection in projections(model.h)) + model.unembedding.size
  leaves = jax.tree.leaves(ready)
  assert sum(leaf.nbytes for leaf in leaves if leaf.dtype == np.int8) == matrices
  others = sum(leaf.size for leaf in jax.tree.leaves(model)) - matrices
  scales = ready.scale.size + sum(projection.scale.size for block in ready.h
                                  for _, projection in projections(block))
  assert sum(leaf.nbytes for leaf in leaves if leaf.dtype == np.float32) == 4 * (others + scales)


def test_only_the_matmuls_of_a_bfloat16_model_change():
  with mesh_of():
    model = made(**{'model.compute_dtype': 'bfloat16'})
    ready = kv_cache.prepare_for_decoding(model, 'int8')
    assert {leaf.dtype.name for leaf in jax.tree.leaves(ready)} == {'int8', 'float32'}  # on a CPU
    tokens = np.array(prompts_of(20), np.int32)
    want = kv_cache.prepare_for_decoding(made(), 'int8')(tokens)
    np.testing.assert_allclose(ready(tokens), want, atol=1e-6)


def chained(config, seed):
  """A batch of texts in which a token determines the next one, three times out of four."""
  rng, n_vocab = np.random.default_rng(seed), config.model.n_vocab
  tokens = rng.integers(0, n_vocab, (8, config.model.n_ctx + 1), np.int32)
  for i in range(1, config.model.n_ctx + 1):
    tokens[:, i] = np.where(rng.random(8) < 0.75, (tokens[:, i - 1] * 7 + 3) % n_vocab, tokens[:, i])
  return {'inputs': tokens[:, :-1], 'targets': tokens[:, 1:]}


@jax.jit
def loss(model, batch):
  log_p = jax.nn.log_softmax(model.logits(model.features(batch['inputs'])))
  return -jnp.take_along_axis(log_p, batch['targets'][..., None], -1).mean()


def test_a_prepared_model_and_an_lstm_are_refused():
  with mesh_of():
    ready = kv_cache.prepare_for_decoding(made(), 'int8')
    assert kv_cache.prepare_for_decoding(ready) is kv_cache.prepare_for_decoding(ready, 'int8') is ready
    with pytest.raises(InputError, match="weight_dtype = 'int8' has no effect on a model that is prepared"):
      kv_cache.prepare_for_decoding(kv_cache.prepare_for_decoding(made()), 'int8')
    with pytest.raises(InputError, match='only a Transformer can generate'):
      kv_cache.prepare_for_decoding(noisy('lstm'), 'int8')


@pytest.mark.ci
def test_the_loss_of_a_trained_model_hardly_changes():
  config = tiny_config(**{'optimizer.learning_rate': 1e-2, 'optimizer.warmup_steps': 0})
  with mesh_of():
    state = jax.jit(lambda: init_state(config))()
    step = jax.jit(functools.partial(train_step, config=config, graphdef=graph(config), steps=150))
    for number in range(150):
      state, _ = step(state, chained(config, number))
    trained = nnx.merge(graph(config), state.params)
    float32, rounded = (np.mean([loss(kv_cache.prepare_for_decoding(trained, dtype), chained(config, seed))
                                 for seed in range(1000, 1008)]) for dtype in (None, 'int8'))
  assert float32 < 2.5, 'it has learned; chance is 4.1'
  assert 0 < abs(rounded / float32 - 1) < 1e-3
