"""The loss L3, its gradients and the step against NumPy, across meshes, microbatches, widths and modes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import mesh_of, slow_except
from flax import nnx
from variants import VARIANTS

from finetune.tiny import batch_of, config_of, finetune_state, grads_of
from gptjax.finetune import step, trainable
from gptjax.finetune.model import Classifier
from gptjax.parallel import sharding

KINDS = {'classification': (1, 3), 'entailment': (1, 2), 'similarity': (2, 2), 'choice': (3, 1)}
MODES = {'full': {}, 'last': {'finetune.train': 'last'}, 'lora': {'finetune.train': 'lora'}}


def put(batch, mesh):
  return sharding.shard_batch(batch, mesh)


def classifier(config, kind, outputs):
  """The model of the first state, put together from all its weights."""
  state = finetune_state(config, kind, outputs)
  differentiated, constant = trainable.to_compute_form(state.params, state.frozen, config)
  return trainable.build_classifier(step.graph(config, kind, outputs), differentiated, constant, config)


def softmax_loss(logits, label):
  logits = np.asarray(logits, np.float64)
  return np.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits[label]


@pytest.mark.parametrize('train', ['full', 'last', 'lora'])
def test_a_fresh_state_is_of_the_types_of_a_restored_one(train):
  config = config_of(**{'finetune.train': train})
  with mesh_of():
    state = jax.eval_shape(lambda: finetune_state(config))
  assert not any(x.weak_type for x in jax.tree.leaves(state))


@pytest.mark.ci
@pytest.mark.parametrize('kind, variant', [*((kind, 'gpt2') for kind in KINDS), ('similarity', 'everything')])
def test_the_loss_is_the_papers(kind, variant):
  g, outputs = KINDS[kind]
  config = config_of(**{'train.batch_size': 4, **VARIANTS[variant]})
  batch = batch_of(config, g, labels=g if kind == 'choice' else outputs)
  with mesh_of() as mesh:
    (both, task, language), _ = grads_of(config, kind, outputs, put(batch, mesh))
    model = classifier(config, kind, outputs)
    w, b = np.asarray(model.clf.w[...], np.float64), np.asarray(model.clf.b[...], np.float64)
    tasks, languages = [], []
    for tokens, lengths, label, weight in zip(*(batch[name] for name in ('tokens', 'lengths', 'labels',
                                                                         'weights'))):
      if not weight:
        continue
      ends, rows = [], []
      for ids, length in zip(tokens, lengths):
        ids = ids[:length]  # each sequence alone, without padding
        x = model.lm.features(jnp.array(ids[None]))
        logits = np.asarray(model.lm.logits(x))[0]
        assert logits.shape[1] == config.model.n_vocab
        rows.append(np.mean([softmax_loss(logits[i], ids[i + 1]) for i in range(length - 1)]))
        ends.append(np.asarray(x[0, -1], np.float64))
      languages.append(np.mean(rows))
      scores = {'similarity': lambda: sum(ends) @ w + b,
                'choice': lambda: np.stack(ends) @ w[:, 0] + b}.get(kind, lambda: ends[0] @ w + b)()
      tasks.append(softmax_loss(scores, int(label)))
  np.testing.assert_allclose(task, np.mean(tasks), rtol=1e-5)
  np.testing.assert_allclose(language, np.mean(languages), rtol=1e-5)
  np.testing.assert_allclose(both, np.mean(tasks) + 0.5 * np.mean(languages), rtol=1e-5)


def test_the_loss_of_numeric_labels_is_the_squared_error():
  config = config_of(**{'finetune.lm_coef': 0.0})
  batch = batch_of(config, 2)
  batch['labels'] = np.linspace(-1, 1, 8, dtype=np.float32)
  with mesh_of() as mesh:
    (both, task, _), _ = grads_of(config, 'similarity', 1, put(batch, mesh), is_regression=True)
    model = classifier(config, 'similarity', 1)
    _, scores = jax.jit(lambda m, b: m(b['tokens'], b['lengths']))(model, put(batch, mesh))
  wanted = ((np.asarray(scores)[:7, 0] - batch['labels'][:7]) ** 2).mean() / 2
  np.testing.assert_allclose([both, task], wanted, rtol=1e-5)


@pytest.mark.ci
def test_gradients_are_those_of_finite_differences():
  config = config_of(**{'model.dropout': 0.1, 'finetune.head_dropout': 0.1})
  batch = batch_of(config, 3, labels=3)
  with mesh_of() as mesh:
    batch, state = put(batch, mesh), finetune_state(config, 'choice', 1)
    keys = jax.random.split(jax.random.key(3), 8)
    run = functools.partial(grads_of, config, 'choice', 1, batch, keys=keys)
    _, grads = run(state=state)
    towards = jax.tree.map(lambda g: g / np.sqrt(sum((g ** 2).sum() for g in jax.tree.leaves(grads))), grads)
    size = 1e-2
    ahead, behind = (run(state=state._replace(params=jax.tree.map(
      lambda w, d: w + sign * size * d, state.params, towards)))[0][0] for sign in (1, -1))
  slope = sum((g * d).sum() for g, d in zip(jax.tree.leaves(grads), jax.tree.leaves(towards)))
  np.testing.assert_allclose((ahead - behind) / (2 * size), slope, rtol=2e-2)


@pytest.mark.ci
@pytest.mark.parametrize('mode', slow_except(MODES, 'lora'))
def test_a_mesh_changes_nothing(mode):
  config = config_of(**MODES[mode], **{'model.dropout': 0.1, 'finetune.head_dropout': 0.1})
  found = []
  for sizes in ({}, dict(data=2, fsdp=2, tensor=2)):
    with mesh_of(**sizes) as on:
      keys = jax.random.split(jax.random.key(3), 8)
      keys = jax.reshard(keys, sharding.compute_spec('batch'))
      found.append(grads_of(config, 'choice', 1, put(batch_of(config, 3), on), keys=keys))
  for one, other in zip(*map(jax.tree.leaves, found), strict=True):
    np.testing.assert_allclose(one, other, rtol=2e-4, atol=2e-6)


@pytest.mark.ci
@pytest.mark.parametrize('mode', slow_except(MODES, 'full'))
def test_neither_microbatches_nor_widths_change_anything(mode):
  found = []
  for size, width in ((8, 24), (2, 20)):
    config = config_of(**MODES[mode], **{'train.microbatch_size': size, 'loss.chunk': 5})
    with mesh_of(data=2) as mesh:
      batch = batch_of(config, 2, width=24)
      batch['tokens'] = batch['tokens'][..., :width]
      found.append(grads_of(config, 'similarity', 3, put(batch, mesh)))
  for one, other in zip(*map(jax.tree.leaves, found), strict=True):
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def steps(config, n, kind='classification', outputs=3, batch=None):
  """The states before and after n steps."""
  run = jax.jit(functools.partial(step.train_step, config=config, graphdef=step.graph(config, kind, outputs),
                                  is_regression=False, steps=10))
  first = state = finetune_state(config, kind, outputs)
  for _ in range(n):
    state, metrics = run(state, batch)
  return first, state, metrics


def predicted(config, state, batch):
  run = functools.partial(step.predict_step, config=config, graphdef=step.graph(config, 'classification', 3))
  return jax.device_get(jax.jit(run)(state, batch))


@pytest.mark.ci
@pytest.mark.parametrize('mode', slow_except(MODES, 'last'))
def test_trained_weights_move_and_frozen_weights_do_not(mode):
  config = config_of(**MODES[mode])
  with mesh_of() as mesh:
    # The first update has rate 0, and LoRA's second factors start at 0: the first factors move in the third.
    first, last, _ = steps(config, 3, batch=put(batch_of(config), mesh))
    before, plain = (predicted(c, state, put(batch_of(c), mesh)) for c, state in (
      (config, first), (config_of(), finetune_state(config_of()))))
  names = {jax.tree_util.keystr(path, simple=True, separator='/') for path, _ in
           jax.tree.leaves_with_path(last.params)}
  moved = jax.tree.map(lambda a, b: bool((a != b).any()), first.params, last.params)
  assert all(jax.tree.leaves(moved)), 'all that is trained moves'
  for one, other in zip(jax.tree.leaves(first.frozen), jax.tree.leaves(last.frozen), strict=True):
    np.testing.assert_array_equal(one, other)
  assert jax.tree.structure(last.opt_state[1].mu) == jax.tree.structure(last.params), 'no other moments'
  np.testing.assert_allclose(before, plain, atol=1e-6, err_msg='at first the model is the same in each mode')
  wanted = {'full': {'lm/wte', 'lm/wpe', 'lm/h/attn/c_attn/w', 'clf/w', 'clf/b'},
            'last': {'marks/wte', 'lm/h/attn/c_attn/w', 'clf/w'},
            'lora': {'marks/wte', 'lm/h/attn/c_attn/lora/lora_a', 'lm/h/mlp/c_proj/lora/lora_b', 'clf/w'}}
  assert wanted[mode] <= names
  if mode != 'full':
    assert 'lm/wte' not in names and 'lm/wpe' not in names
  if mode == 'last':
    assert last.params['lm']['h']['attn']['c_attn']['w'].shape[0] == 1


def test_the_order_of_two_texts_does_not_matter():
  config = config_of()
  batch = batch_of(config, 2)
  turned = {**batch, 'tokens': batch['tokens'][:, ::-1], 'lengths': batch['lengths'][:, ::-1]}
  with mesh_of() as mesh:
    model = classifier(config, 'similarity', 3)
    one, other = (np.asarray(model(*(put(b, mesh)[name] for name in ('tokens', 'lengths')))[1])
                  for b in (batch, turned))
  np.testing.assert_allclose(one, other, rtol=1e-6)


def test_the_choices_of_an_example_share_the_mask_of_the_head():
  config = config_of(**{'finetune.head_dropout': 0.5})
  batch = batch_of(config, 3)
  for name in ('tokens', 'lengths'):
    batch[name] = batch[name][:, :1].repeat(3, 1)
  with mesh_of() as mesh:
    _, scores = classifier(config, 'choice', 1)(*(put(batch, mesh)[name] for name in ('tokens', 'lengths')),
                                                jax.random.split(jax.random.key(0), 8))
  scores = np.asarray(scores)
  np.testing.assert_allclose(scores, scores[:, :1].repeat(3, 1), rtol=1e-6)
  assert len(np.unique(scores[:, 0].round(6))) > 4


def test_a_step_that_is_not_finite_changes_nothing():
  config = config_of(**MODES['lora'])
  with mesh_of() as mesh:
    batch = batch_of(config)
    batch['labels'][0] = np.nan
    batch['weights'][0] = np.nan
    first, last, metrics = steps(config, 1, batch=put(batch, mesh))
  assert int(metrics['skipped']) == 1 and int(last.step) == 1
  for one, other in zip(jax.tree.leaves(first[2:]), jax.tree.leaves(last[2:]), strict=True):
    np.testing.assert_array_equal(one, other)


def test_lora_is_flax_own():
  with mesh_of():
    model = nnx.eval_shape(lambda: Classifier(jax.random.key(0), config_of(**MODES['lora']), 'choice', 1))
  assert type(model.lm.h.attn.c_attn.lora) is nnx.LoRA
