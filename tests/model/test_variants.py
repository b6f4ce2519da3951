"""The laws of the model, each for every variant of tests/variants.py.

`test_compute.py` has those of dtypes, `test_keys.py` those of random keys, `tests/train/test_optimizer.py`
those of optimizers.
"""

import functools
import itertools
import re

import jax
import numpy as np
import pytest
from conftest import mesh_of, random_batch, tiny_config
from flax import nnx
from jax.extend import core
from variants import SIMILAR, VARIANTS, few

import gptjax
from gptjax.errors import InputError
from gptjax.finetune.model import add_lora
from gptjax.generate import kv_cache
from gptjax.model.compute import projections, unrolled
from gptjax.model.lstm import language_model
from gptjax.model.parameters import declarations, n_kv_head
from gptjax.model.size import flops_per_token, n_params
from gptjax.parallel import sharding
from gptjax.pretrained import export
from gptjax.train.optimizer import decay_mask, muon_dimensions
from gptjax.train.step import dropout_keys, graph, init_state, loss_and_grads

MESHES = [dict(data=2, fsdp=2, tensor=2), dict(replica=2, fsdp=4), dict(fsdp=2, tensor=4)]

every_variant, few_variants = (pytest.mark.parametrize('name', names) for names in (VARIANTS, few(VARIANTS)))


def config_of(name, **more):
  return tiny_config(**{**VARIANTS[name], **more})


def fresh(config):
  return jax.jit(lambda: language_model(jax.random.key(0), config))()


@functools.cache
def noisy(name):
  """A model on one device, with noise on each weight, so that each one matters, also a bias or gain."""
  with mesh_of():
    return jax.jit(lambda: with_noise(language_model(jax.random.key(0), config_of(name))))()


def with_noise(model):
  graphdef, params = nnx.split(model)
  leaves, tree = jax.tree.flatten(params)
  keys = jax.random.split(jax.random.key(1), len(leaves))
  leaves = [w + 0.1 * jax.random.normal(key, w.shape, out_sharding=jax.typeof(w).sharding.spec)
            for key, w in zip(keys, leaves)]
  return nnx.merge(graphdef, tree.unflatten(leaves))


def path_of(path):
  return jax.tree_util.keystr(path, simple=True, separator='/')


def weights(model):
  """{path: NumPy array} of all weights."""
  return {path_of(path): np.asarray(leaf)
          for path, leaf in jax.tree.leaves_with_path(nnx.to_pure_dict(nnx.state(model)))}


@functools.cache
def matrices(name):
  """{path: whether a weight is a matrix}: a fresh one is random, and not a constant as biases and gains are.

  A vector of a layer is no matrix, even a random one.
  """
  with mesh_of():
    found = weights(fresh(config_of(name)))
  return {path: w.std() > 0 and w.ndim - path.startswith('h/') > 1 for path, w in found.items()}


def loss_and_gradients(config, sizes):
  batch = random_batch(config, ignored=0.2)
  with mesh_of(**sizes) as mesh:
    model = lambda: with_noise(language_model(jax.random.key(0), config))
    params = jax.jit(lambda: nnx.to_pure_dict(nnx.state(model())))()
    step = jax.jit(lambda params, batch: loss_and_grads(
      params, batch, dropout_keys(config, 3), config, graph(config)))
    return jax.device_get(step(params, sharding.shard_batch(batch, mesh)))


DROPOUT = {'model.dropout': 0.1, 'train.batch_size': 16}


@functools.cache
def on_one_device(name):
  return loss_and_gradients(config_of(name, **DROPOUT), {})


# One mesh of a few variants in the default run, all three of all in the slow one.
@pytest.mark.ci
@pytest.mark.parametrize('name, mesh', [
  pytest.param(name, mesh, marks=[pytest.mark.slow] * ((i - j) % len(MESHES) > 0 or name in SIMILAR),
               id=f'{name}, {mesh}')
  for i, name in enumerate(VARIANTS) for j, mesh in enumerate(MESHES)])
def test_meshes_and_microbatches_change_neither_loss_nor_gradients(name, mesh):
  want_loss, want = on_one_device(name)
  config = config_of(name, **DROPOUT, **{'train.microbatch_size': 8, 'model.scan': 'data' in mesh})
  loss, grads = loss_and_gradients(config, mesh)
  np.testing.assert_allclose(loss, want_loss, rtol=1e-5)
  for path, true in jax.tree.leaves_with_path(want):
    got = functools.reduce(lambda tree, key: tree[key.key], path, grads)
    np.testing.assert_allclose(got, true, atol=2e-5 * np.abs(true).max(), rtol=1e-4, err_msg=path_of(path))


@pytest.mark.ci
@few_variants
def test_every_weight_has_a_gradient(name):
  _, grads = loss_and_gradients(config_of(name), {})
  for path, gradient in jax.tree.leaves_with_path(grads):
    layers = gradient if path[0].key == 'h' else gradient[None]
    assert all(np.abs(layer).max() > 1e-8 for layer in layers), path


@pytest.mark.first_cases(2)
@few_variants
def test_no_position_sees_a_later_one(name):
  config = config_of(name)
  tokens = random_batch(config)['inputs']
  other = tokens.copy()
  other[:, 15:] = (tokens[:, 15:] + 7) % config.model.n_vocab
  with mesh_of():
    model = noisy(name)
    one, two = np.asarray(model(tokens)), np.asarray(model(other))
  np.testing.assert_array_equal(one[:, :15], two[:, :15])
  assert np.abs(one[:, 15:] - two[:, 15:]).max(-1).min() > 1e-3


@pytest.mark.ci
@few_variants
def test_decoding_with_a_cache_gives_the_logits_of_the_forward_pass_or_is_refused(name):
  tokens = random_batch(config_of(name))['inputs'][:2, :20]
  with mesh_of():
    model = noisy(name)
    if 'model.architecture' in VARIANTS[name]:
      with pytest.raises(InputError, match='only a Transformer can generate'):
        kv_cache.prepare_for_decoding(model)
      return
    want, ready = np.asarray(model(tokens)), kv_cache.prepare_for_decoding(model)
    np.testing.assert_allclose(ready(tokens), want, atol=2e-5)
    # The second prompt is shorter: its positions and its slots in the cache differ.
    lengths = np.array([9, 5], np.int32)
    prompts = [row[:length].tolist() for row, length in zip(tokens, lengths)]
    padded, _, slots = kv_cache.pad_prompts(prompts, 12, model.n_ctx)
    logits, cache = kv_cache.prefill(ready, padded, lengths, slots)
    for i in range(12):
      if i:
        last = tokens[[0, 1], lengths + i - 1]
        logits, cache = jax.jit(kv_cache._decode_one)(ready, cache, last)
      for row, length in enumerate(lengths):
        np.testing.assert_allclose(logits[row], want[row, length + i - 1], atol=2e-5, err_msg=f'{row} {i}')


@pytest.mark.first_cases(7)
@every_variant
def test_the_count_of_parameters_is_that_of_the_tree(name):
  config = config_of(name)
  with mesh_of():
    found = weights(fresh(config))
  padded = sum(w.size for w in found.values())
  tables = sum(config.model.n_vocab + 3 == w.shape[0] for w in found.values())  # 61 are padded to 64
  assert tables == 1 + (not config.model.tie_word_embeddings)
  assert n_params(config.model, padded=True) == padded
  assert n_params(config.model) == padded - 3 * tables * config.model.n_embd


@pytest.mark.first_cases(2)
@few_variants
def test_the_count_of_flops_is_that_of_the_forward_pass(name):
  """PaLM's convention: 6 FLOPs per parameter and token, biases and gains included, and attention."""
  config = config_of(name, **{'model.pad_vocab_to': 1, 'model.scan': False})
  t = config.model.n_ctx
  with mesh_of():
    model = unrolled(fresh(config))
    run = lambda tokens: model.logits(model.features(tokens))
    products = matmul_flops(jax.make_jaxpr(run)(np.zeros((1, t), np.int32)).jaxpr)
    declared = jax.tree.leaves(declarations(fresh(config)), is_leaf=lambda node: hasattr(node, 'axes'))
    shapes = [w.shape for w in weights(fresh(config)).values()]
  sizes = [(int(np.prod(shape)), one) for shape, one in zip(shapes, declared, strict=True)]
  n, vectors = (sum(size for size, one in sizes if wanted(one))
                for wanted in (lambda one: not one.looked_up, lambda one: not one.decays))
  window = config.model.sliding_window or t
  square = flops_per_token(config.model, t)['palm'] / 3 - 2 * n  # attention to `window` keys per query
  want = 2 * (n - vectors) + square * sum(map(len, keys_of_queries(t, window))) / (t * window)
  np.testing.assert_allclose(products / t, want, rtol=1e-6)


def keys_of_queries(t, window):
  """The keys that our attention computes for each query: a quarter of the queries at a time has the same."""
  ends = [t * quarter // 4 for quarter in range(5)]
  return [range(max(0, start - window + 1), end)
          for start, end in itertools.pairwise(ends) for _ in range(start, end)]


@pytest.mark.parametrize('t, window', [(24, 0), (24, 5), (24, 24), (24, 100), (7, 1)])
def test_the_causal_count_of_flops_is_that_of_the_pairs_which_attend(t, window):
  one, none = (tiny_config(**{'model.sliding_window': w}).model for w in (window, 1))
  pairs = sum(min(query + 1, window or t) for query in range(t))
  counts = [flops_per_token(model, t)['causal'] for model in (one, none)]
  per_pair = 12 * one.n_layer * one.n_embd / t
  # The papers' half of the square omits half of the diagonal.
  half_of_diagonal = (min(window or t, t) - 1) / 2
  np.testing.assert_allclose(counts[0] - counts[1], per_pair * (pairs - t - half_of_diagonal), atol=2)


def matmul_flops(jaxpr):
  """FLOPs of all matmuls of a program, loops included."""
  total = 0
  for equation in jaxpr.eqns:
    inner = [value for value in equation.params.values() if isinstance(value, core.Jaxpr | core.ClosedJaxpr)]
    times = equation.params['length'] if equation.primitive.name == 'scan' else 1
    total += times * sum(matmul_flops(getattr(one, 'jaxpr', one)) for one in inner)
    if equation.primitive.name == 'dot_general':
      (contracted, _), _ = equation.params['dimension_numbers']
      shape = equation.invars[0].aval.shape
      total += 2 * equation.outvars[0].aval.size * int(np.prod([shape[d] for d in contracted]))
  return total


@pytest.mark.first_cases(7)
@every_variant
def test_matrices_decay_and_those_of_blocks_are_matrices_of_muon(name):
  config = config_of(name)
  with mesh_of():
    params = jax.eval_shape(lambda: init_state(config).params)
    declared = declarations(jax.eval_shape(lambda: fresh(config)))
  paths = [path_of(path) for path, _ in jax.tree.leaves_with_path(params)]
  decays = dict(zip(paths, jax.tree.leaves(decay_mask(params, declared)), strict=True))
  none = lambda x: x is None or not isinstance(x, dict)
  muon = dict(zip(paths, jax.tree.leaves(muon_dimensions(params, declared), is_leaf=none), strict=True))
  for path, matrix in matrices(name).items():
    assert decays[path] == matrix, path
    assert (muon[path] is not None) == (matrix and path.startswith('h/')), path


@every_variant
def test_every_large_matrix_is_stored_in_shards_over_fsdp_and_tensor(name):
  """Without an axis a weight computes the same, on each device all of it: only its memory would tell."""
  if 'model.architecture' in VARIANTS[name]:
    pytest.skip('the weights of an LSTM are on each device')
  config = config_of(name)
  with mesh_of(fsdp=2, tensor=2):
    params = jax.eval_shape(lambda: init_state(config).params)
  whole_heads = n_kv_head(config.model) % 2  # the mesh does not divide them
  for path, w in jax.tree.leaves_with_path(params):
    shards = {axis for axes in w.sharding.spec for axis in (axes if isinstance(axes, tuple) else (axes,))}
    layers = config.model.n_layer if path[0].key == 'h' else 1
    if matrices(name)[path_of(path)] and w.size >= layers * config.model.n_embd ** 2:
      assert shards >= ({'fsdp'} if whole_heads and 'attn/' in path_of(path) else {'fsdp', 'tensor'}), path


@pytest.mark.first_cases(2)
@few_variants
def test_lora_adapts_every_matrix_of_a_block_and_changes_nothing_at_first_or_is_refused(name):
  if 'model.architecture' in VARIANTS[name]:
    pytest.skip('an LSTM has no blocks')
  config = config_of(name)
  tokens = random_batch(config)['inputs']
  with mesh_of():
    model = fresh(config)
    want = np.asarray(model(tokens))
    of_blocks = {path for path, matrix in matrices(name).items() if matrix and path.startswith('h/')}
    if of_blocks != {'/'.join(('h', *path, 'w')) for path, _ in projections(model.h)}:
      with pytest.raises(InputError, match='is not a projection'):
        add_lora(model.h, jax.random.key(0), 2, config.model.n_layer)
      return
    model.h = add_lora(model.h, jax.random.key(0), 2, config.model.n_layer)
    np.testing.assert_allclose(model(tokens), want, atol=1e-6)
    found = weights(model)
  assert {path.replace('lora/lora_a', 'w') for path in found if path.endswith('lora_a')} == of_blocks


@pytest.mark.first_cases(2)
@few_variants
def test_an_export_gives_the_same_logits_or_is_refused(name, tmp_path):
  pytest.importorskip('torch')
  from torch_models import logits_of, opened, tokens_for
  config = config_of(name)
  with mesh_of():
    model = noisy(name)
    if (why := export.export_unsupported_reason(config)) is not None:
      with pytest.raises(InputError, match=re.escape(why)):
        gptjax.save_pretrained(model, None, tmp_path / 'out')
      assert not list(tmp_path.iterdir())
      return
    gptjax.save_pretrained(model, None, tmp_path / 'out')
    judge = opened(tmp_path / 'out')
    tokens = tokens_for(judge)
    np.testing.assert_allclose(model(tokens), logits_of(judge, tokens), atol=1e-4, rtol=1e-4)
