"""The two architectures: exact sizes, parity with transformers, causality, init, padding."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import mesh_of, random_batch, tiny_config
from flax import nnx

from gptjax.model.compute import unrolled
from gptjax.model.gpt import GPT, Block
from gptjax.model.parameters import padded_vocab
from gptjax.model.size import n_params

SIZES = {'gpt2_small': 124_439_808, 'gpt2_medium': 354_823_168, 'gpt2_large': 774_030_080,
         'gpt2_xl': 1_557_611_200, 'gpt1': 116_534_784}


def build(config, seed=0):
  return jax.jit(lambda key: GPT(key, config))(jax.random.key(seed))


@pytest.mark.parametrize('name', SIZES)
def test_every_size_has_exactly_the_papers_parameters(name):
  config = importlib.import_module(f'configs.{name}').get_config()
  with mesh_of():
    shapes = jax.eval_shape(lambda: GPT(jax.random.key(0), config))
  padding = (padded_vocab(config.model) - config.model.n_vocab) * config.model.n_embd
  assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) - padding == SIZES[name]
  assert n_params(config.model) == SIZES[name]


def torch_twin(model, config):
  """The same weights in transformers' GPT2LMHeadModel or OpenAIGPTLMHeadModel."""
  import torch
  from transformers import GPT2Config, GPT2LMHeadModel, OpenAIGPTConfig, OpenAIGPTLMHeadModel
  c = config.model
  sizes = dict(vocab_size=c.n_vocab, n_positions=c.n_ctx, n_embd=c.n_embd, n_layer=c.n_layer,
               n_head=c.n_head)
  off = dict(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
  if c.norm == 'before':
    twin = GPT2LMHeadModel(GPT2Config(**sizes, **off))
    names = {'wte': 'transformer.wte.weight', 'wpe': 'transformer.wpe.weight'}
  else:
    twin = OpenAIGPTLMHeadModel(OpenAIGPTConfig(**sizes, **off, afn='gelu'))
    names = {'wte': 'transformer.tokens_embed.weight', 'wpe': 'transformer.positions_embed.weight'}
  weights = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(model)))
  state = {names['wte']: weights['wte'][:c.n_vocab], names['wpe']: weights['wpe'],
           'lm_head.weight': weights['wte'][:c.n_vocab]}
  for path, stacked in jax.tree.leaves_with_path(weights['h']):
    *parts, leaf = (key.key for key in path)
    suffix = {'w': 'weight', 'g': 'weight', 'b': 'bias'}[leaf]
    for layer, value in enumerate(stacked):
      inner = c.n_embd if parts[-1] != 'c_proj' else value.size // c.n_embd
      value = value.reshape(inner, -1) if leaf == 'w' else value.reshape(-1)
      state[f'transformer.h.{layer}.{".".join(parts)}.{suffix}'] = value
  if c.norm == 'before':
    state |= {'transformer.ln_f.weight': weights['ln_f']['g'],
              'transformer.ln_f.bias': weights['ln_f']['b']}
  missing, extra = twin.load_state_dict({k: torch.tensor(v) for k, v in state.items()}, strict=False)
  assert not extra and all('bias' in name and 'attn' in name for name in missing), (missing, extra)
  return twin.eval()


def perturbed(model):
  """Gains and biases away from 1 and 0, and larger weights, so that each of them matters."""
  graph, state = nnx.split(model)
  leaves, tree = jax.tree.flatten(state)
  keys = jax.random.split(jax.random.key(7), len(leaves))
  leaves = [x + 0.1 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys)]
  return nnx.merge(graph, tree.unflatten(leaves))


@pytest.mark.ci
@pytest.mark.parametrize('norm', ['before', 'after'])
@pytest.mark.parametrize('shape', [dict(n_head=4, n_embd=32, n_ctx=24), dict(n_head=3, n_embd=36, n_ctx=151)])
def test_logits_and_gradients_are_those_of_transformers(norm, shape):
  torch = pytest.importorskip('torch')
  pytest.importorskip('transformers')
  config = tiny_config(**{'model.norm': norm, **{f'model.{k}': v for k, v in shape.items()}})
  batch = random_batch(config)
  tokens = batch['inputs'][:3]
  with mesh_of():
    model = perturbed(build(config))
    ours = model(tokens)
    nll = lambda m: -jnp.take_along_axis(jax.nn.log_softmax(m(tokens)), batch['targets'][:3, :, None], -1)
    grads = nnx.to_pure_dict(nnx.state(jax.grad(lambda m: nll(m).mean())(model)))
  twin = torch_twin(model, config)
  theirs = twin(torch.tensor(tokens)).logits
  np.testing.assert_allclose(ours, theirs.detach(), atol=1e-4, rtol=0)
  targets = torch.tensor(batch['targets'][:3]).long()
  torch.nn.functional.cross_entropy(theirs.flatten(0, 1), targets.flatten()).backward()
  embedding = twin.transformer.wte if norm == 'before' else twin.transformer.tokens_embed
  want = embedding.weight.grad.numpy()
  np.testing.assert_allclose(grads['wte'][:61], want, atol=1e-4 * abs(want).max())
  want = twin.transformer.h[1].mlp.c_proj.weight.grad.numpy()
  np.testing.assert_allclose(grads['h']['mlp']['c_proj']['w'][1], want, atol=1e-4 * abs(want).max())


@pytest.mark.first_cases(1)
@pytest.mark.parametrize('norm', ['before', 'after'])
def test_no_position_sees_the_future(norm):
  config = tiny_config(**{'model.norm': norm})
  tokens = random_batch(config)['inputs'][:1]
  with mesh_of():
    model = perturbed(build(config))
    graph, state = nnx.split(model)
    params = nnx.to_pure_dict(state)

    def at(wpe, t):
      squares = nnx.merge(graph, {**params, 'wpe': wpe})(tokens) ** 2
      return jnp.where(jnp.arange(24)[:, None] == t, squares, 0).sum()

    for t in (0, 5, 23):
      touched = np.abs(jax.grad(at)(params['wpe'], t)).sum(-1) > 0
      assert touched[:t + 1].all() and not touched[t + 1:].any()


def test_fresh_weights_have_the_papers_spread():
  config = tiny_config(**{'model.n_embd': 256, 'model.n_layer': 6, 'model.n_vocab': 1000})
  with mesh_of():
    weights = nnx.to_pure_dict(nnx.state(build(config)))
  block = weights['h']
  residual = 0.02 / np.sqrt(2 * 6)
  for value, std in ((weights['wte'][:1000], 0.02), (weights['wpe'], 0.01),
                     (block['attn']['c_attn']['w'], 0.02), (block['mlp']['c_fc']['w'], 0.02),
                     (block['attn']['c_proj']['w'], residual), (block['mlp']['c_proj']['w'], residual)):
    assert abs(float(np.std(value)) / std - 1) < 0.03
    assert abs(float(np.mean(value))) < 0.05 * std
  layers = np.asarray(block['mlp']['c_fc']['w']).reshape(6, -1)
  assert np.abs(np.corrcoef(layers) - np.eye(6)).max() < 0.02, 'layers must not start alike'
  assert (block['ln_1']['g'] == 1).all() and (block['mlp']['c_fc']['b'] == 0).all()


def test_padding_of_the_vocabulary_is_never_seen():
  logits = []
  for pad in (1, 16, 128):
    config = tiny_config(**{'model.pad_vocab_to': pad})
    with mesh_of():
      model = build(config)
      assert not np.asarray(model.wte[...])[61:].any()
      logits.append(np.asarray(model(random_batch(config)['inputs'])))
  assert logits[0].shape[-1] == 61
  for other in logits[1:]:
    np.testing.assert_allclose(logits[0], other, atol=1e-6)


@pytest.mark.ci
@pytest.mark.parametrize('remat', ['none', 'full'])
def test_unrolled_layers_are_traced_once(monkeypatch, remat):
  traced, call = [], Block.__call__
  monkeypatch.setattr(Block, '__call__', lambda *arguments: traced.append(1) or call(*arguments))
  numbers = []
  for n_layer in (2, 5):
    config = tiny_config()
    config.model.update(n_layer=n_layer, scan=False, remat=remat)
    with mesh_of():
      model = unrolled(GPT(jax.random.key(0), config))
      traced.clear()
      jax.make_jaxpr(jax.grad(lambda model: model.features(jnp.zeros((2, 8), 'int32')).sum()))(model)
    numbers.append(len(traced))
  assert numbers[0] == numbers[1] > 0


def test_a_sequence_longer_than_the_context_is_refused():
  config = tiny_config()
  with mesh_of(), pytest.raises(ValueError, match=r'25 tokens is longer than config.model.n_ctx = 24'):
    build(config)(jnp.zeros((1, 25), jnp.int32))
