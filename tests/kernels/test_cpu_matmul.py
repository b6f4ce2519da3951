"""Matmuls on one CPU device: the gradients of plain ones, and results that XLA:CPU computes fast."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import mesh_of

from gptjax.kernels import cpu_matmul


def arrays(dtype, shape):
  keys = jax.random.split(jax.random.key(0), 3)
  x, w = (jax.random.normal(key, size, dtype) for key, size in zip(keys, [(24, shape[0]), shape]))
  return x, w, jax.random.normal(keys[2], (24, *shape[1:]), dtype)


def gradients(multiply, x, w, direction):
  y, vjp = jax.vjp(multiply, x, w)
  return y, *vjp(direction.astype(y.dtype))


@pytest.mark.parametrize('dtype, tolerance', [('float32', 1e-6), ('bfloat16', 1e-2)])
@pytest.mark.parametrize('shape', [(16, 40), (40, 16), (16, 3, 8)])
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


@pytest.mark.parametrize('shape', [(16, 40), (40, 16), (16, 3, 8)])
def test_all_matmuls_of_bfloat16_have_float32_results(shape):
  with mesh_of():
    text = jax.jit(lambda *a: gradients(cpu_matmul.matmul, *a)).lower(*arrays('bfloat16', shape)).as_text()
  dtype = r'tensor<[^>]*x(\w+)>'
  found = re.findall(rf'dot_general.*: \({dtype}, {dtype}\) -> {dtype}', text)
  assert set(found) == {('bf16', 'bf16', 'f32')} and len(found) >= 3
