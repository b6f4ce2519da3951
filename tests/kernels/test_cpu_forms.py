"""Forms for XLA:CPU: the values and gradients of the plain ones, which other devices compute."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import mesh_of

from gptjax.kernels import cpu_forms


@pytest.mark.parametrize('axis', [0, 1, 2])
@pytest.mark.parametrize('devices', [1, 8])
def test_parts_and_their_gradients_are_those_of_slices(axis, devices):
  x, weights = jax.random.normal(jax.random.key(axis), (2, 3, 4, 5))
  plain = lambda x: [x[(slice(None),) * axis + (i,)] for i in range(x.shape[axis])]
  total = lambda parts: sum((part * w).sum() for part, w in zip(parts, plain(weights)))
  with mesh_of(data=devices):
    parts = cpu_forms.unstacked(x, axis)
    gradient = jax.grad(lambda x: total(cpu_forms.unstacked(x, axis)))(x)
  for part, expected in zip(parts, plain(x), strict=True):
    np.testing.assert_array_equal(part, expected)
  np.testing.assert_allclose(gradient, jax.grad(lambda x: total(plain(x)))(x), rtol=1e-6)


@pytest.mark.parametrize('devices', [1, 8])
def test_on_one_cpu_alone_the_gradient_of_parts_is_a_concatenation(devices):
  def gradient(x, y):
    return jax.vjp(lambda x: cpu_forms.unstacked(x, 1), x)[1](y)[0]
  with mesh_of(data=devices):
    text = jax.jit(gradient).lower(jnp.ones((4, 3, 5)), [jnp.ones((4, 5))] * 3).as_text()
  assert ('stablehlo.concatenate' in text, 'stablehlo.pad' in text) == (devices == 1, devices > 1)


@pytest.mark.parametrize('devices', [1, 8])
def test_on_one_cpu_alone_a_function_is_computed_in_float32(devices):
  seen, x = [], jnp.linspace(-4, 4, 40).astype('bfloat16')
  def f(x):
    seen.append(x.dtype)
    return jax.nn.gelu(x)
  with mesh_of(data=devices):
    y = cpu_forms.elementwise(f)(x)
  assert seen == ['float32' if devices == 1 else 'bfloat16'] and y.dtype == x.dtype
  expected = jax.nn.gelu(x.astype('float32')) if devices == 1 else jax.nn.gelu(x)
  np.testing.assert_array_equal(np.float32(y), np.float32(expected.astype('bfloat16')))
