"""SciPy and scikit-learn are the judges."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as judge

from gptjax.finetune.tasks import metrics

BITS = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=2, max_size=40).map(np.array)
NUMBERS = st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), min_size=2, max_size=40).map(np.array)


@pytest.mark.filterwarnings('ignore:A single label was found')
@settings(max_examples=150, deadline=None)
@given(BITS)
def test_of_two_classes(pairs):
  predicted, true = pairs.T
  assert metrics.accuracy(predicted, true) == pytest.approx(judge.accuracy_score(true, predicted))
  assert metrics.f1(predicted, true) == pytest.approx(judge.f1_score(true, predicted, zero_division=0))
  assert metrics.matthews(predicted, true) == pytest.approx(
    judge.matthews_corrcoef(true, predicted), abs=1e-9)


@settings(max_examples=150, deadline=None)
@given(NUMBERS)
def test_of_numbers(pairs):
  predicted, true = pairs.T / 3
  if len(set(predicted)) == 1 or len(set(true)) == 1:
    assert metrics.pearson(predicted, true) == metrics.spearman(predicted, true) == 0
    return
  assert metrics.pearson(predicted, true) == pytest.approx(stats.pearsonr(predicted, true)[0], abs=1e-9)
  assert metrics.spearman(predicted, true) == pytest.approx(
    stats.spearmanr(predicted, true)[0], abs=1e-9)
