"""Rounding to int8, and matmuls with it."""

import jax
import numpy as np
import pytest
from conftest import mesh_of
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from gptjax.kernels import int8

NORMAL = st.just(0.0) | st.floats(2.0**-99, 2.0**99, width=32) | st.floats(-2.0**99, -2.0**-99, width=32)


def rounded(w, axes=(0,)):
  return map(np.asarray, jax.jit(int8.rounded, static_argnums=1)(w, axes))


@settings(deadline=None, max_examples=50)
@given(arrays.arrays(np.float32, (5, 3), elements=NORMAL))
def test_no_weight_moves_by_more_than_half_a_scale(w):
  q, scale = rounded(w)
  assert q.dtype == np.int8 and scale.dtype == np.float32 and np.abs(q.astype(int)).max() <= 127
  assert (np.abs(w - q.astype(np.float64) * scale) <= scale * (0.5 + 1e-4)).all()
  np.testing.assert_allclose(scale * 127, np.abs(w).max(0), rtol=1e-6)
  negated, _ = rounded(-w)
  np.testing.assert_array_equal(negated, -q)


def test_a_column_of_zeros_stays_zero_and_an_outlier_costs_only_its_own_column():
  w = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
  _, usual = rounded(w)
  w[:, 1], w[7, 2] = 0, 100
  q, scale = rounded(w)
  assert not q[:, 1].any() and scale[1] == 0
  assert q[7, 2] == 127 and scale[2] == np.float32(100) / 127
  np.testing.assert_array_equal(scale[[0, 3]], usual[[0, 3]])


def test_all_summed_dimensions_share_a_scale():
  # Layer, heads, head size, output.
  w = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
  q, scale = rounded(w, (1, 2))
  assert q.shape == w.shape and scale.shape == (2, 5)
  merged, same = rounded(w[1].reshape(12, 5))
  np.testing.assert_array_equal(q[1].reshape(12, 5), merged)
  np.testing.assert_array_equal(scale[1], same)


# Inputs: fewer than a group, groups and a remainder. Outputs: within a block, blocks that overlap.
@pytest.mark.parametrize('n', [1, int8.FEW_ROWS, int8.FEW_ROWS + 1, 19])
@pytest.mark.parametrize('i, o', [(5, 7), (70, 33), (2048, 200)])
def test_every_form_of_the_matmul_is_that_of_the_rounded_weights(n, i, o):
  rng = np.random.default_rng(0)
  x, w = (rng.normal(size=size).astype(np.float32) for size in ((n, i), (i, o)))
  q, scale = rounded(w)
  want = x.astype(np.float64) @ (q * scale.astype(np.float64))
  for sizes in ({}, {'tensor': 2}):  # the second is not one device
    with mesh_of(**sizes):
      got = jax.jit(int8.matmul, static_argnums=3)(x, q, scale, jax.P(None, None))
    np.testing.assert_allclose(got, want, atol=1e-6 * np.abs(want).max())
