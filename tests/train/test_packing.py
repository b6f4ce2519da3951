"""Packed rows: the losses and gradients of their documents, each of which alone is the judge."""

import functools

import jax
import numpy as np
import pytest
from conftest import mesh_of, random_batch, tiny_config
from corpus_files import write_corpus
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from variants import VARIANTS

from gptjax.data.corpus import reader
from gptjax.data.corpus.packing import segment_arrays
from gptjax.parallel import sharding
from gptjax.train.step import dropout_keys, eval_step, features, graph, init_state, loss_and_grads

PACKED = {'data.packing': True, 'data.restart_positions': True}
T = 24  # of tiny_config
ROTARY = [name for name, changes in VARIANTS.items() if changes.get('model.positions') == 'rotary']
ATTENTIVE = [name for name, changes in VARIANTS.items() if 'model.architecture' not in changes]


def packed_batch(config, seed=0):
  """Rows of random documents of 1 to T tokens; some targets are ignored."""
  batch = random_batch(config, seed, ignored=0.2)
  begins = np.random.default_rng(seed).random(batch['inputs'].shape) < 0.2
  begins[0], begins[1] = False, True  # one document, and only documents of one token
  return batch | segment_arrays(begins, config.data.restart_positions)


def alone(batch, positions):
  """The documents of a packed batch, each in a row of its own; `positions`: None, or those of the row."""
  rows = []
  for row in range(len(batch['inputs'])):
    for number in range(1, batch['segments'][row, -1] + 1):
      own = np.flatnonzero(batch['segments'][row] == number)
      pad = (0, T - len(own))
      rows.append({'inputs': np.pad(batch['inputs'][row, own], pad),
                   'targets': np.pad(batch['targets'][row, own], pad, constant_values=-1)}
                  | ({'positions': np.pad(own.astype(np.int32), pad)} if positions else {}))
  return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def noisy_params(config):
  """Weights that are all far from 0 and 1, so that each one matters."""
  params, random = jax.jit(lambda: init_state(config).params)(), np.random.default_rng(1)
  return jax.tree.map(lambda w: jax.device_put(
    (w + 0.1 * random.standard_normal(w.shape)).astype(w.dtype), w.sharding), params)


def loss_and_gradients(config, batch, sizes=None):
  with mesh_of(**(sizes or {})) as mesh:
    params = noisy_params(config)
    step = jax.jit(lambda params, batch: loss_and_grads(
      params, batch, dropout_keys(config, 3), config, graph(config)))
    return jax.device_get(step(params, sharding.shard_batch(batch, mesh)))


def assert_close(found, expected):
  (loss, grads), (true_loss, true_grads) = found, expected
  np.testing.assert_allclose(loss, true_loss, rtol=1e-5)
  for path, true in jax.tree.leaves_with_path(true_grads):
    got = functools.reduce(lambda tree, key: tree[key.key], path, grads)
    np.testing.assert_allclose(got, true, atol=2e-5 * np.abs(true).max(), rtol=1e-4,
                               err_msg=str(path))


# Those whose attention or positions differ in the default run, all in the slow one.
@pytest.mark.first_cases(1)
@pytest.mark.parametrize('name', [
  pytest.param(name, marks=[pytest.mark.slow] * (name not in ('gpt2', *ROTARY[:1]))) for name in ATTENTIVE])
def test_the_loss_and_gradients_are_those_of_one_document_at_a_time(name):
  config = tiny_config(**VARIANTS[name], **PACKED)
  batch = packed_batch(config)
  assert_close(loss_and_gradients(config, batch), loss_and_gradients(config, alone(batch, positions=False)))


@pytest.mark.first_cases(1)
@pytest.mark.parametrize('name', ['gpt1', *ROTARY[:1]])
def test_positions_that_do_not_restart_are_those_of_the_row(name):
  """Rotary ones are relative, so that a document of any place gives the same."""
  config = tiny_config(**VARIANTS[name], **{'data.packing': True})
  batch = packed_batch(config)
  expected = loss_and_gradients(config, alone(batch, positions=name not in ROTARY))
  assert_close(loss_and_gradients(config, batch), expected)


@functools.cache
def on_one_device():
  config = tiny_config(**PACKED, **{'train.batch_size': 16})
  return loss_and_gradients(config, packed_batch(config))


@pytest.mark.ci
@pytest.mark.parametrize('scan, microbatch_size, sizes', [
  (True, 8, dict(data=2, fsdp=2, tensor=2)), (False, 8, dict(replica=2, fsdp=4)), (True, 4, dict(data=4))])
def test_meshes_microbatches_and_scan_change_nothing(scan, microbatch_size, sizes):
  config = tiny_config(**PACKED, **{'model.scan': scan, 'train.batch_size': 16,
                                    'train.microbatch_size': microbatch_size})
  assert_close(loss_and_gradients(config, packed_batch(config), sizes), on_one_device())


@pytest.mark.parametrize('name', ['gpt2', *ROTARY[:1]])
@pytest.mark.parametrize('restart', [False, True])
def test_a_document_changes_nothing_in_another_one(name, restart):
  config = tiny_config(**VARIANTS[name], **{**PACKED, 'data.restart_positions': restart})
  batch = packed_batch(config)
  with mesh_of():
    params = noisy_params(config)
    def logits(inputs):
      model = nnx.merge(graph(config), params)
      return model.logits(features(model, batch | {'inputs': inputs}))
    logits = jax.jit(logits)
    before = np.asarray(logits(batch['inputs']))
    for number in (1, 2, 3):
      own = batch['segments'] == number
      changed = np.where(own, (batch['inputs'] + 7) % config.model.n_vocab, batch['inputs'])
      after = np.asarray(logits(changed))
      np.testing.assert_array_equal(after[~own], before[~own])
      assert (after[own] != before[own]).any(-1).all()


@functools.cache
def judge_and_evaluation():
  """(config, log probabilities [T, n_vocab] of a text of T tokens, eval_step of a batch): compiled once."""
  config = tiny_config(**PACKED)
  with mesh_of():
    params = noisy_params(config)
    model = nnx.merge(graph(config), params)
    step = jax.jit(functools.partial(eval_step, config=config, graphdef=graph(config)))
  return config, lambda tokens: np.asarray(jax.nn.log_softmax(model(tokens[None])[0])), (
    lambda batch: step(params, batch))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 999), lengths=st.lists(st.integers(1, 12), min_size=2).filter(
  lambda lengths: sum(lengths) <= T + 1))
def test_held_out_documents_have_the_losses_of_their_texts_alone(tmp_path_factory, seed, lengths):
  """From the files of a corpus to its held-out loss; `GPT.__call__` scores the documents one at a time."""
  config, log_probabilities, evaluate = judge_and_evaluation()
  end, random = config.model.n_vocab - 1, np.random.default_rng(seed)
  documents = [np.append(random.integers(0, end, n - 1), end) for n in lengths]
  folder = write_corpus(tmp_path_factory.mktemp('c') / 'c', documents, validation=documents, n_vocab=end + 1)
  corpus = reader.open_corpus(folder, 'validation', verify=True)
  assert reader.n_eval_batches(corpus, 8, T) == 1
  with mesh_of() as mesh:
    batch = reader.eval_batch(corpus, 0, 8, T, slice(None), True, True)
    total, count = evaluate(sharding.shard_batch(batch, mesh))
    expected = 0.0
    for text in (documents[0], *(np.append(end, document) for document in documents[1:])):
      log_p = log_probabilities(np.pad(text, (0, T + 1 - len(text)))[:T].astype(np.int32))
      expected -= log_p[np.arange(len(text) - 1), text[1:]].sum()
  assert count == corpus.n_tokens - 1
  np.testing.assert_allclose(total, expected, rtol=1e-5)
