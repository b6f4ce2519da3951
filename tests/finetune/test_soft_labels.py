"""Numeric labels as distributions over the integers of their scale, as GPT-1's released code has them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import tiny_config
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune import published
from gptjax.data.tokenizers import loading
from gptjax.finetune import batches, data, results
from gptjax.finetune.step import task_losses
from gptjax.finetune.tasks import published as tasks

STSB = data.TaskData('stsb', tasks.find('stsb'), None, {}, {}, [], soft_labels=True)


def distribution(y):
  """float64[6] by the definition: floor(y) + 1 - y on floor(y), y - floor(y) on the next class."""
  p, low = np.zeros(6), int(np.floor(y))
  p[low] = low + 1 - y
  if y > low:
    p[low + 1] = y - low
  return p


@given(st.floats(0, 5, width=32), st.lists(st.floats(-8, 8, width=32), min_size=6, max_size=6))
@settings(max_examples=50, deadline=None)
def test_the_loss_is_the_cross_entropy_with_the_definition(y, scores):
  log_p = np.asarray(scores) - np.logaddexp.reduce(scores)
  loss = task_losses(jnp.float32([scores]), jnp.float32([y]), jnp.float32([1]), False)
  np.testing.assert_allclose(loss[0], -(distribution(y) * log_p).sum(), rtol=1e-4, atol=1e-5)


@given(st.floats(0, 5, width=32))
@settings(max_examples=50, deadline=None)
def test_the_expectation_of_the_distribution_is_the_label(y):
  with np.errstate(divide='ignore'):
    predicted = results.predictions(STSB, np.log(distribution(y))[None])
  np.testing.assert_allclose(predicted, [y], atol=1e-9)
  encoded = batches.Encoded(None, None, None, np.float32([y]), None)
  np.testing.assert_allclose(results.true_labels(STSB, encoded), [y], rtol=1e-6)


@pytest.mark.ci
def test_the_option_changes_the_head_and_the_labels(tmp_path, corpus_folder):
  sets = published.write(tmp_path, 'glue/stsb')
  found = {}
  for kind in ('regression', 'soft_label'):
    config = tiny_config(**{'data.tfds_dir': sets, 'model.n_ctx': 64, 'finetune.numeric_labels': kind})
    found[kind] = data.load('stsb', tasks.find('stsb'), loading.load(f'{corpus_folder}/tokenizer'), config)
  regression, soft = found.values()
  assert (regression.n_outputs, regression.is_regression) == (1, True)
  assert (soft.n_outputs, soft.is_regression, soft.is_numeric) == (6, False, True)
  assert {*soft.train.labels.tolist()} == {0, 2.5, 5} and {*regression.train.labels.tolist()} == {-1, 0, 1}
  for one in found.values():
    assert {*results.true_labels(one, one.train).tolist()} == {0, 2.5, 5}


def test_a_scale_between_other_numbers_is_refused():
  task = tasks.find('stsb')._replace(scale=(0.0, 1.5))
  with pytest.raises(ValueError, match=r'needs a scale between two integers.*not \(0\.0, 1\.5\)'):
    data.n_soft_classes(task)


def test_classes_are_learned_as_before():
  """An integer label is one class."""
  scores = jax.random.normal(jax.random.key(0), (8, 3))
  labels = np.arange(8) % 3
  wanted = -np.asarray(jax.nn.log_softmax(scores))[np.arange(8), labels]
  np.testing.assert_allclose(task_losses(scores, jnp.float32(labels), jnp.ones(8), False), wanted, rtol=1e-5)
