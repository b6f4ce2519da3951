"""Matmuls on one CPU device: the gradients of plain ones, and results that XLA:CPU computes fast."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import mesh_of
from hypothesis import given, settings
from hypothesis import strategies as st

from gptjax.kernels import cpu_matmul

# Of these, the gradient of (80, 16) is computed transposed.
SHAPES = (16, 40), (40, 16), (80, 16), (16, 3, 8)


def arrays(dtype, shape):
  keys = jax.random.split(jax.random.key(0), 3)
  x, w = (jax.random.normal(key, size, dtype) for key, size in zip(keys, [(24, shape[0]), shape]))
  return x, w, jax.random.normal(keys[2], (24, *shape[1:]), dtype)


def gradients(multiply, x, w, direction):
  y, vjp = jax.vjp(multiply, x, w)
  return y, *vjp(direction.astype(y.dtype))


@pytest.mark.parametrize('dtype, tolerance', [('float32', 1e-6), ('bfloat16', 1e-2)])
@pytest.mark.parametrize('shape', SHAPES)
def test_results_and_gradients_are_those_of_a_plain_matmul(dtype, tolerance, shape):
  x, w, direction = arrays(dtype, shape)
  plain = lambda x, w: jnp.tensordot(x.astype(jnp.float32), w.astype(jnp.float32), 1)
  with mesh_of():
    assert cpu_matmul.on_one_cpu()
    found = jax.jit(lambda *a: gradients(cpu_matmul.matmul, *a))(x, w, direction)
  expected = gradients(plain, x, w, direction)
  for a, b in zip(found, expected, strict=True):
    assert a.dtype == dtype
    np.testing.assert_allclose(np.float32(a), np.float32(b), rtol=tolerance, atol=tolerance * np.abs(b).max())


@pytest.mark.parametrize('shape', SHAPES)
def test_all_matmuls_of_bfloat16_have_float32_results(shape):
  with mesh_of():
    text = jax.jit(lambda *a: gradients(cpu_matmul.matmul, *a)).lower(*arrays('bfloat16', shape)).as_text()
  dtype = r'tensor<[^>]*x(\w+)>'
  found = re.findall(rf'dot_general.*: \({dtype}, {dtype}\) -> {dtype}', text)
  assert set(found) == {('bf16', 'bf16', 'f32')} and len(found) >= 3


def test_the_gradient_of_a_tall_matrix_is_computed_transposed():
  found = {}
  for shape in SHAPES:
    x, w, direction = arrays('float32', shape)
    if w.ndim == 2:
      found[shape] = cpu_matmul.transposes_result(x, direction)
  assert found == {(16, 40): False, (40, 16): False, (80, 16): True}


def by_rows(n, o, i, dtype='float32'):
  """(jitted function, x, w) of a matmul of n rows with the transposed w [o, i]."""
  rng = np.random.default_rng(n + o + i)
  x, w = (jnp.asarray(rng.standard_normal(shape), dtype) for shape in [(n, i), (o, i)])
  return jax.jit(cpu_matmul.matmul_by_rows), x, w


@given(n=st.integers(1, 40), o=st.sampled_from([1, 63, 127, 128, 131, 384, 1000, 1179, 2304]),
       i=st.integers(1, 50), leading=st.booleans())
@settings(max_examples=30, deadline=None)
def test_a_matmul_by_rows_is_the_plain_product(n, o, i, leading):
  multiply, x, w = by_rows(n, o, i)
  expected = np.float64(x) @ np.float64(w).T
  with mesh_of():
    found = multiply(x[:, None] if leading else x, w)
  assert found.dtype == jnp.float32 and found.shape == ((n, 1, o) if leading else (n, o))
  np.testing.assert_allclose(np.asarray(found).reshape(n, o), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('shape', [(1,), (1, 1)])
def test_one_row_in_bfloat16_is_multiplied_twice(shape):
  multiply, x, w = by_rows(1, 384, 48, 'bfloat16')
  x = x.reshape(*shape, 48)
  with mesh_of():
    text, found = multiply.lower(x, w).as_text(), multiply(x, w)
  assert re.search(r'dot_general.*tensor<(1x)?2x48xbf16>', text)
  assert found.dtype == jnp.float32 and found.shape == (*shape, 384)
  expected = np.float64(x).reshape(1, 48) @ np.float64(w).T
  np.testing.assert_allclose(np.asarray(found).reshape(1, 384), expected, rtol=1e-5, atol=1e-5)


def test_gradients_of_a_matmul_by_rows_are_those_of_the_plain_product():
  _, x, w = by_rows(4, 768, 24)
  direction = jnp.cos(jnp.arange(4 * 768.0)).reshape(4, 768)
  with mesh_of():
    found = jax.jit(lambda x, w: gradients(cpu_matmul.matmul_by_rows, x, w, direction))(x, w)
  for a, b in zip(found, (x @ w.T, direction @ w, direction.T @ x), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize('n, o, dtype, n_blocks', [
  (1, 768, 'float32', 0), (2, 768, 'float32', 2), (32, 3072, 'float32', 3), (33, 3072, 'float32', 0),
  (8, 50304, 'float32', 48), (8, 127, 'float32', 0), (8, 1579, 'float32', 0), (8, 768, 'bfloat16', 0)])
def test_a_few_rows_multiply_blocks_of_the_weights(n, o, dtype, n_blocks):
  multiply, x, w = by_rows(n, o, 16, dtype)
  with mesh_of():
    text = multiply.lower(x, w).as_text()
  batch = re.search(r'dot_general.*batching_dims = \[0\] x \[0\].*\(tensor<(\d+)x', text)
  assert int(batch[1] if batch else 0) == n_blocks


def test_on_several_devices_a_matmul_by_rows_is_a_plain_one():
  multiply, x, w = by_rows(8, 768, 16)
  with mesh_of(data=8):
    x, w = jax.reshard((x, w), (jax.P('data', None), jax.P()))
    text = multiply.lower(x, w).as_text()
    found = multiply(x, w)
  assert 'batching_dims' not in text
  np.testing.assert_allclose(found, x @ w.T, rtol=1e-5, atol=1e-5)
