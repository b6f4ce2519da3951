"""Initial and exported weights: transfer, merged LoRA, the LSTM, text; and overfitting of a small set."""

import functools
import json
import random
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import mesh_of, slow_except, tiny_config
from flax import nnx

import gptjax
from configs import gpt1_finetune
from finetune.tiny import batch_of, config_of
from gptjax.data.corpus import reader
from gptjax.data.tokenizers import loading
from gptjax.finetune import batches, data, results, run, step, studies, trainable, weights
from gptjax.finetune.tasks import examples, published, transforms
from gptjax.parallel import sharding
from gptjax.train.step import graph, init_state


def pretrained(**changes):
  """A config and fresh weights of a language model, every leaf different from a fresh one of seed 0."""
  config = tiny_config(**{'model.norm': 'after', 'train.seed': 5, **changes})
  return config, init_state(config).params


def source_of(params):
  return types.SimpleNamespace(read=lambda shapes: jax.tree.map(lambda p, s: p, params, shapes))


@pytest.mark.first_cases(2)
@pytest.mark.parametrize('n', [-1, 0, 1])
@pytest.mark.parametrize('mesh', [{}, dict(data=2, fsdp=2, tensor=2)])
def test_transferred_and_fresh_weights(n, mesh):
  with mesh_of(**mesh) as on:
    _, given = pretrained()
    config = config_of(**{'finetune.transfer_layers': n})
    fresh, made = (jax.device_get(weights.init_state(config, 'choice', 1, source, on).params['lm'])
                   for source in (None, source_of(given)))
    given = jax.device_get(given)
  np.testing.assert_array_equal(made['wte'][:61], given['wte'][:61])
  np.testing.assert_array_equal(made['wte'][61:], fresh['wte'][61:])
  assert (made['wte'][61:64] != 0).all() and (made['wte'][64:] == 0).all(), 'three new tokens, then padding'
  assert 0.01 < made['wte'][61:64].std() < 0.03
  np.testing.assert_array_equal(made['wpe'], given['wpe'])
  n = 2 if n == -1 else n
  for leaf, old, new in zip(*map(jax.tree.leaves, (made['h'], given['h'], fresh['h'])), strict=True):
    np.testing.assert_array_equal(leaf[:n], old[:n])
    np.testing.assert_array_equal(leaf[n:], new[n:])


@pytest.mark.first_cases(1)
@pytest.mark.parametrize('mode', ['full', 'last', 'lora'])
def test_the_exported_language_model_is_the_trained_one(mode):
  config = config_of(**{'finetune.train': mode})
  with mesh_of() as mesh:
    _, given = pretrained()
    state = weights.init_state(config, transforms.LANGUAGE_MODEL, 0, source_of(given), mesh)
    plain = nnx.merge(graph(tiny_config(**{'model.norm': 'after'})), given)
    tokens = jnp.arange(20)[None] % 61
    np.testing.assert_allclose(weights.export_language_model(state, config)(tokens), plain(tokens), atol=1e-6)
    noise = lambda path, w: w + 0.05 * jax.random.normal(jax.random.key(len(path)), w.shape)
    state = state._replace(params=jax.tree.map_with_path(noise, state.params))
    differentiated, constant = trainable.to_compute_form(state.params, state.frozen, config)
    graphdef = step.graph(config, transforms.LANGUAGE_MODEL, 0)
    model = trainable.build_classifier(graphdef, differentiated, constant, config)
    wanted = model.lm.logits(model.lm.features(tokens))[..., :61]
    np.testing.assert_allclose(weights.export_language_model(state, config)(tokens), wanted, atol=1e-4)


@pytest.mark.slow
def test_an_lstm_is_trained_over_any_mesh_and_read_back(corpus_folder, tmp_path):
  from gptjax.pretrain.loop import pretrain
  lstm = {'model.architecture': 'lstm', 'model.n_layer': 1, 'model.n_inner': 24}
  found = []
  for sizes in ({}, dict(data=2, fsdp=2, tensor=2)):
    config = config_of(**lstm, **{'model.dropout': 0.1})
    with mesh_of(**sizes) as mesh:
      state = weights.init_state(config, 'choice', 1, None, mesh)
      keys = jax.reshard(jax.random.split(jax.random.key(3), 8), sharding.compute_spec('batch'))
      f = functools.partial(step.loss_and_grads, config=config, graphdef=step.graph(config, 'choice', 1),
                            is_regression=False)
      found.append(jax.device_get(jax.jit(f)(state, sharding.shard_batch(batch_of(config, 3), mesh), keys)))
  for one, other in zip(*map(jax.tree.leaves, found), strict=True):
    np.testing.assert_allclose(one, other, rtol=2e-4, atol=2e-6)
  config = tiny_config(**lstm, **{'model.n_vocab': 290, 'data.corpus': str(corpus_folder), 'train.steps': 2,
                                  'log.tensorboard': False, 'mesh.data': 8, 'eval.every_steps': 0})
  assert pretrain(config, tmp_path / 'lstm') == 0
  with mesh_of():
    model, tokenizer = gptjax.load(tmp_path / 'lstm')
    assert model(jnp.zeros((1, 5), jnp.int32)).shape == (1, 5, 290)
    with pytest.raises(ValueError, match='transformers does not have this LSTM'):
      gptjax.save_pretrained(model, tokenizer, tmp_path / 'export')


KINDS = {'classification': ('text',), 'entailment': ('text', 'other'), 'similarity': ('text', 'other'),
         'choice': ('text',)}


@pytest.mark.ci
@pytest.mark.parametrize('kind', slow_except(KINDS, 'classification'))
def test_thirty_two_examples_are_memorized(corpus_folder, kind):
  rng, words = random.Random(1), ['tree', 'walks', 'under', 'blue', 'stone', 'never', 'sings', 'of', 'rain']
  say = lambda: ' '.join(rng.choices(words, k=rng.randint(2, 6)))
  found = [examples.Example(tuple(say() for _ in KINDS[kind]), (say(), say()) if kind == 'choice' else (),
                            rng.randrange(2), i) for i in range(32)]
  task = published.find('reviews')._replace(kind=kind, texts=KINDS[kind])
  config = config_of(**{'model.n_vocab': 290, 'train.batch_size': 32, 'train.steps': 100,
                        'optimizer.learning_rate': 3e-3, 'optimizer.schedule': 'constant'})
  config.model.n_vocab -= 3
  encoded = data.encode_examples(task, found, loading.load(f'{corpus_folder}/tokenizer'), config, 0, '')
  config = weights.with_task_tokens(config)
  outputs = 1 if kind == 'choice' else 2
  with mesh_of() as mesh:
    state = weights.init_state(config, kind, outputs, None, mesh)
    batch = sharding.shard_batch(batches.make_batch(encoded, np.arange(32), 24, 32, slice(0, 32)), mesh)
    graphdef = step.graph(config, kind, outputs)
    train = jax.jit(functools.partial(step.train_step, config=config, graphdef=graphdef, is_regression=False,
                                      steps=100))
    for _ in range(100):
      before, (state, metrics) = state, train(state, batch)
      if metrics['task_loss'] < 0.02:  # a loss is that of the weights before the step
        break
    scores = step.predict_step(before, batch, config=config, graphdef=graphdef)
  assert (np.asarray(scores).argmax(1) == encoded.labels).all()


@pytest.mark.slow
@pytest.mark.parametrize('mode', ['lora', 'last'])
def test_a_language_model_is_fine_tuned_on_text(corpus_folder, tmp_path, mode):
  """A language model is fine-tuned on text, exported, and loaded; only in part, yet the loss falls."""
  from gptjax.pretrain.loop import pretrain
  config = tiny_config(**{'model.n_vocab': 290, 'data.corpus': str(corpus_folder), 'train.steps': 2,
                          'log.tensorboard': False, 'mesh.data': 8})
  assert pretrain(config, tmp_path / 'pretrained') == 0
  with mesh_of():  # a folder as those of the released weights of GPT-2
    gptjax.save_pretrained(*gptjax.load(tmp_path / 'pretrained'), tmp_path / 'gpt2')
  config = studies.with_changes(gpt1_finetune.get_config('text'), {
    'init_from': str(tmp_path / 'gpt2'), 'data.corpus': str(corpus_folder), 'finetune.train': mode,
    'train.batch_size': 8, 'train.steps': 40, 'optimizer.learning_rate': 0.02, 'eval.every_steps': 20,
    'log.tensorboard': False, 'finetune.limit': 50})
  assert studies.run_job(config, tmp_path / 'text') == 0
  found = json.loads((tmp_path / 'text' / 'results.json').read_text())['tasks']['text']['perplexity']
  with mesh_of():
    model, tokenizer = gptjax.load(tmp_path / 'text' / 'export')
    before, _ = gptjax.load(tmp_path / 'pretrained')
    held_out = reader.open_corpus(str(corpus_folder), 'validation', verify=False)
    rows = held_out.tokens(0, 50 * 24).reshape(50, 24)
    logp = lambda m: np.take_along_axis(np.asarray(jax.nn.log_softmax(m(rows)))[:, :-1], rows[:, 1:, None], 2)
    perplexity = lambda m: np.exp(-logp(m).mean())
    np.testing.assert_allclose(found, perplexity(model), rtol=1e-4)
    assert found < 0.9 * perplexity(before) and tokenizer.n_vocab == model.n_vocab
  with pytest.raises(ValueError, match='has a fine-tuned classifier'):
    gptjax.load(tmp_path / 'text')


def test_patience(tmp_path):
  def over(scores, patience):
    config = config_of(**{'finetune.patience': patience})
    records = [{'step': i, 'eval/score': score} for i, score in enumerate(scores)]
    made = types.SimpleNamespace(config=config, folder=tmp_path)
    return run.patience_exhausted(made, types.SimpleNamespace(records=records))
  assert not over([1, 2, 2], 0) and not over([1, 2, 3], 1) and not over([3], 1)
  assert over([1, 2, 2], 1) and over([3, 1, 2], 2) and not over([3, 1, 4], 2)


def test_the_table_has_mean_median_and_spread():
  runs = {'sst2': [{'metrics': {'accuracy': value, 'test/accuracy': 0.5}} for value in (0.8, 0.9, 0.82)]}
  found = results.collect(runs, {'sst2': {'accuracy': 91.3}})
  assert found['tasks'] == {'sst2': {'accuracy': pytest.approx(0.84), 'test/accuracy': 0.5}}
  row = '| sst2 | accuracy | 3 | 84.0 | 82.0 | 80.0 to 90.0 | 5.3 | 50.0 | 50.0 | 91.3 |'
  assert results.table(found).splitlines()[2:] == [row]
