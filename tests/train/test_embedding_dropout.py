"""`model.embedding_dropout = 'matrix'`: dropout of the embedding matrices, as in GPT-1's released code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import mesh_of, random_batch, slow_except, tiny_config
from finetune.tiny import batch_of, config_of, finetune_state, grads_of
from flax import nnx
from variants import GPT1

from gptjax.model.compute import drop_embeddings
from gptjax.parallel import sharding
from gptjax.train.step import dropout_keys, graph, init_state, loss_and_grads

MATRIX = {**GPT1, 'model.embedding_dropout': 'matrix', 'model.dropout': 0.25}


def masks_of(config, keys, shapes):
  """{name: 0 or 4/3 for each entry of an embedding matrix}: what is done to a matrix of ones."""
  return drop_embeddings({name: jnp.ones(shape) for name, shape in shapes.items()}, config, keys)


def masked(params, masks):
  return {**params, **{name: params[name] * mask for name, mask in masks.items()}}


def shapes_of(params):
  return {name: params[name].shape for name in ('wte', 'wpe')}


@pytest.mark.ci
@pytest.mark.parametrize('tied', slow_except([True, False], True))
def test_lookup_positions_and_tied_output_use_the_same_dropped_matrix(tied):
  """Parity with an explicit mask and the gradient of the whole; an untied output matrix is not dropped."""
  config = tiny_config(**MATRIX, **{'model.tie_word_embeddings': tied, 'train.microbatch_size': 4})
  batch = random_batch(config)
  with mesh_of() as mesh:
    batch = sharding.shard_batch(batch, mesh)
    params, keys = init_state(config).params, dropout_keys(config, 3)
    masks = masks_of(config, keys, shapes_of(params))

    def by_hand(params):
      model = nnx.merge(graph(config), masked(params, masks))
      logits = model.logits(model.features(batch['inputs'], keys))
      log_p = jax.nn.log_softmax(logits)
      return -jnp.take_along_axis(log_p, batch['targets'][..., None], -1).mean()

    wanted, gradient = jax.jit(jax.value_and_grad(by_hand))(params)
    loss, grads = jax.jit(lambda params: loss_and_grads(params, batch, keys, config, graph(config)))(params)
  np.testing.assert_allclose(loss, wanted, rtol=1e-5)
  for one, other in zip(*map(jax.tree.leaves, (grads, gradient)), strict=True):
    np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-6)
  assert (np.asarray(grads['wpe'])[np.asarray(masks['wpe']) == 0] == 0).all()


def test_masks_are_drawn_per_entry_step_and_matrix():
  config = tiny_config(**MATRIX, **{'model.n_vocab': 400, 'model.n_embd': 64})
  with mesh_of():
    params = init_state(config).params
    one, other = (masks_of(config, dropout_keys(config, step), shapes_of(params)) for step in (0, 1))
  for mask in (one['wte'], one['wpe']):
    np.testing.assert_allclose(np.unique(mask), [0, 4 / 3], rtol=1e-6)
  assert abs(float((one['wte'] == 0).mean()) - 0.25) < 0.01, '25,600 entries: more than three deviations'
  different = lambda a, b: float((a != b).mean())
  assert different(one['wte'], other['wte']) > 0.3 and different(one['wte'][:24], one['wpe']) > 0.3


def test_without_keys_rate_or_the_option_nothing_is_dropped():
  weights = {'wte': np.ones((6, 4), np.float32), 'h': {}}
  with mesh_of():
    keys = jax.random.split(jax.random.key(0), 8)
    assert drop_embeddings(weights, tiny_config(**MATRIX), None) is weights
    assert drop_embeddings(weights, tiny_config(**{'model.dropout': 0.5}), keys) is weights


@pytest.mark.slow
@pytest.mark.parametrize('mode', ['full', 'last', 'lora'])
def test_fine_tuning_drops_the_new_tokens_too(mode):
  """What is dropped gets no gradient, and everything else does."""
  changes = {**MATRIX, 'finetune.train': mode, 'finetune.last_layers': 1, 'finetune.lora_rank': 2}
  config, plain = config_of(**changes), config_of(**changes)
  # Without this dropout, the other masks being the same ones.
  plain.model.embedding_dropout = 'activations'
  batch = batch_of(config)
  with mesh_of() as mesh:
    batch = sharding.shard_batch(batch, mesh)
    keys, state = jax.random.split(jax.random.key(3), 8), finetune_state(config)
    (loss, _, _), grads = grads_of(config, 'classification', 3, batch, keys=keys, state=state)
    (other, _, _), _ = grads_of(plain, 'classification', 3, batch, keys=keys, state=state)
    assert loss != other
    shape = (-(-config.model.n_vocab // 16) * 16, 32)
    mask = np.asarray(masks_of(config, keys, {'wte': shape})['wte'])
    rows = slice(config.model.n_vocab - 3, config.model.n_vocab)
    new = grads['lm']['wte'][rows] if mode == 'full' else grads['marks']['wte']
    dropped = mask[rows] == 0
    assert dropped.any() and (new[dropped] == 0).all() and (np.abs(new[~dropped]) > 0).all()
