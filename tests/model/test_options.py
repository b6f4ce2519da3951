"""What each option of the decoder computes; `test_variants.py` has the laws that all variants share."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import mesh_of, random_batch, tiny_config
from flax import nnx

from gptjax.errors import InputError
from gptjax.generate import kv_cache
from gptjax.model.gpt import ACTIVATIONS, GPT, MLP
from gptjax.model.layers import Norm
from gptjax.model.rotary import angles, rotated


def model_of(config, seed=0):
  return jax.jit(lambda: GPT(jax.random.key(seed), config))()


def grown(model, factor):
  """A model with larger weights, so that attention is not nearly uniform."""
  return jax.tree.map(lambda w: w * factor, model)


def test_rotated_queries_and_keys_have_scores_of_the_distance_of_their_positions():
  q, k = jax.random.normal(jax.random.key(0), (2, 1, 1, 1, 12))
  def score(of_query, of_key):
    turn = lambda x, position: rotated(x, angles(jnp.array([[position]]), 12, 100.0))
    return float((turn(q, of_query) * turn(k, of_key)).sum())
  assert np.isclose(score(9, 4), score(1005, 1000), atol=1e-4)
  assert not np.isclose(score(9, 4), score(9, 5), atol=1e-2)
  assert np.isclose(score(7, 7), float((q * k).sum()), atol=1e-5)


def test_rotary_angles_are_those_of_transformers():
  transformers = pytest.importorskip('transformers')
  torch = pytest.importorskip('torch')
  from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
  config = transformers.LlamaConfig(hidden_size=48, num_attention_heads=4, max_position_embeddings=64,
                                    rope_parameters={'rope_type': 'default', 'rope_theta': 5000.0})
  positions = np.array([[0, 1, 17, 63]])
  cos, sin = LlamaRotaryEmbedding(config)(torch.zeros(1, 4, 48), torch.tensor(positions))
  for ours, theirs in zip(angles(jnp.array(positions), 12, 5000.0), (cos, sin), strict=True):
    np.testing.assert_allclose(ours[0, :, 0], theirs[0, :, :6].numpy(), atol=1e-5)


@pytest.mark.ci
def test_a_model_with_rotary_positions_has_no_matrix_of_positions_and_sees_the_same_at_any_position():
  config = tiny_config(**{'model.positions': 'rotary'})
  tokens = random_batch(config)['inputs'][:2, :10]
  with mesh_of():
    model = grown(model_of(config), 4)
    assert not hasattr(model, 'wpe')
    shifted = jnp.broadcast_to(jnp.arange(10) + 5, (2, 10))
    want, got = (np.asarray(model.logits(model.features(tokens, positions=p))) for p in (None, shifted))
    np.testing.assert_allclose(got, want, atol=1e-4)
    stretched = jnp.broadcast_to(jnp.arange(10) * 2, (2, 10))
    assert np.abs(np.asarray(model.logits(model.features(tokens, positions=stretched))) - want).max() > 1e-3


def test_grouped_heads_are_heads_whose_keys_and_values_are_equal():
  grouped, whole = tiny_config(**{'model.n_kv_head': 2}), tiny_config()
  tokens = random_batch(whole)['inputs']
  with mesh_of():
    few, many = grown(model_of(grouped), 4), grown(model_of(whole), 4)
    params = nnx.to_pure_dict(nnx.state(few))
    attn = params['h']['attn']
    q, kv = attn.pop('c_q'), attn.pop('c_kv')
    # Heads 0 and 1 of the queries attend to head 0 of the keys.
    repeat = lambda x: np.repeat(np.asarray(x), 2, axis=-2)
    attn['c_attn'] = {name: np.concatenate([np.asarray(q[name])[..., None, :, :], repeat(kv[name])], axis=-3)
                      for name in ('w', 'b')}
    params = jax.tree.map(lambda new, old: jax.device_put(new, old.sharding), params,
                          nnx.to_pure_dict(nnx.state(many)))
    many = nnx.merge(nnx.graphdef(many), params)
    np.testing.assert_allclose(few(tokens), many(tokens), atol=1e-5)


@pytest.mark.first_cases(1)
@pytest.mark.parametrize('n_kv_head', [1, 2, 4])
def test_the_cache_has_the_heads_of_keys_and_values_alone(n_kv_head):
  config = tiny_config(**{'model.n_kv_head': n_kv_head, 'model.head_size': 6})
  with mesh_of():
    model = kv_cache.prepare_for_decoding(model_of(config))
    tokens, _, slots = kv_cache.pad_prompts([[1, 2, 3], [4, 5]], 4, model.n_ctx)
    _, cache = kv_cache.prefill(model, tokens, np.array([3, 2], np.int32), slots)
  assert {x.shape for x in (*cache.keys, *cache.values)} == {(2, n_kv_head, slots, 6)}


@pytest.mark.parametrize('window', [1, 2, 5])
def test_a_token_is_seen_within_the_window_of_each_layer_and_not_beyond(window):
  config = tiny_config(**{'model.sliding_window': window})
  tokens = random_batch(config)['inputs'][:1]
  other = tokens.copy()
  other[0, 3] = (tokens[0, 3] + 7) % config.model.n_vocab
  with mesh_of():
    model = grown(model_of(config), 4)
    changed = np.abs(np.asarray(model(tokens)) - np.asarray(model(other)))[0].max(-1) > 1e-6
  reach = config.model.n_layer * (window - 1)
  assert np.flatnonzero(changed).tolist() == list(range(3, 3 + reach + 1))


def test_a_window_of_the_whole_context_changes_nothing():
  tokens = random_batch(tiny_config())['inputs']
  with mesh_of():
    want, got = (model_of(tiny_config(**changes))(tokens) for changes in ({}, {'model.sliding_window': 24}))
  np.testing.assert_array_equal(got, want)


def test_a_soft_cap_bounds_the_logits():
  tokens = random_batch(tiny_config())['inputs']
  with mesh_of():
    plain, capped = (np.asarray(grown(model_of(tiny_config(**changes)), 8)(tokens))
                     for changes in ({}, {'model.logit_soft_cap': 2.0}))
  assert np.abs(plain).max() > 2 > np.abs(capped).max()
  np.testing.assert_allclose(capped, 2 * np.tanh(plain / 2), atol=1e-5)


def test_norms_are_those_of_torch():
  torch = pytest.importorskip('torch')
  x = 3 + np.random.default_rng(0).standard_normal((2, 5, 32)).astype(np.float32)
  judges = {'layer': torch.nn.LayerNorm(32, eps=1e-5), 'rms': torch.nn.RMSNorm(32, eps=1e-5)}
  for kind, judge in judges.items():
    with mesh_of():
      ours = Norm(tiny_config(**{'model.norm_type': kind}).model)(jnp.asarray(x))
    np.testing.assert_allclose(ours, judge(torch.tensor(x)).detach().numpy(), atol=1e-5)


def test_without_biases_no_weight_is_a_bias():
  with mesh_of():
    model = model_of(tiny_config(**{'model.bias': False}))
  paths = jax.tree.leaves_with_path(nnx.to_pure_dict(nnx.state(model)))
  assert {path[-1].key for path, _ in paths} == {'wte', 'wpe', 'w', 'g'}


@pytest.mark.parametrize('changes, message', [
  ({'model.n_kv_head': 3}, 'config.model.n_head = 4 cannot be divided by config.model.n_kv_head = 3'),
  ({'model.n_head': 5}, 'config.model.n_embd = 32 cannot be divided by config.model.n_head = 5: change one '
   'of them, or set config.model.head_size'),
  ({'model.positions': 'rotary', 'model.head_size': 7}, 'the head size 7 is odd, and '
   'config.model.positions = rotary rotates pairs: change'),
  ({'model.mlp': 'swiglu'}, "config.model.mlp = 'swiglu' must be one of plain, gated (SwiGLU: gated, with"),
  ({'model.logit_soft_cap': -1.0}, 'config.model.logit_soft_cap = -1.0'),
  ({'model.architecture': 'lstm', 'model.positions': 'rotary'}, 'config.model.positions = rotary is an '
   'option of the Transformer, and config.model.architecture = lstm: set it to learned'),
  ({'model.architecture': 'lstm', 'model.head_size': 8}, 'config.model.head_size = 8 is an option of the'),
  ({'model.architecture': 'lstm', 'model.bias': False}, 'config.model.bias = False is an option of the')])
def test_options_that_do_not_fit_are_refused(changes, message):
  with pytest.raises(InputError) as error:
    tiny_config(**changes)
  assert str(error.value).startswith(message)


@pytest.mark.parametrize('name', ACTIVATIONS)
def test_an_activation_in_bfloat16_is_rounded_once(name):
  config = tiny_config(**{'model.activation_function': name, 'model.n_inner': 32}).model
  assert config.n_embd == 32
  x = 3 * jax.random.normal(jax.random.key(0), (2, 40, 32)).astype('bfloat16')
  with mesh_of():
    mlp = MLP(jax.random.key(0), config, 0.02)
    for projection in (mlp.c_fc, mlp.c_proj):
      projection.w = projection.w.replace(jnp.eye(32, dtype='bfloat16'))
      projection.b = projection.b.replace(jnp.zeros(32, 'bfloat16'))
    got, want = jax.jit(mlp)(x), ACTIVATIONS[name](x.astype('float32')).astype('bfloat16')
  got, want = np.float32(got), np.float32(want)
  np.testing.assert_allclose(got, want, rtol=2 ** -7, atol=1e-4)
  assert (got != want).mean() < 0.03  # where 1 + tanh cancels, the compiler decides
