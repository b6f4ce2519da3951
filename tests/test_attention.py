"""Causal attention against JAX's own, and dropout that depends on its sequence alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import mesh_of

from gptjax.attention import attention, check, dropout


def qkv(t, b=2, h=3, k=8):
  return jax.random.normal(jax.random.key(t), (3, b, t, h, k))


@pytest.mark.parametrize('t', [1, 2, 127, 128, 129, 300])
def test_equals_the_plain_computation(t):
  x = qkv(t)
  plain = lambda x: jax.nn.dot_product_attention(*x, is_causal=True)
  ours = lambda x: attention(*x, kernel='xla', rate=0.0, keys=None)
  both = lambda f: jax.jit(lambda x: (f(x), jax.grad(lambda x: (f(x) ** 2).sum())(x)))
  with mesh_of():
    (y, gradient), (want, wanted_gradient) = both(ours)(x), both(plain)(x)
  np.testing.assert_allclose(y, want, atol=2e-6)
  np.testing.assert_allclose(gradient, wanted_gradient, atol=2e-5)


def test_weights_dropped_at_the_given_rate_and_scaled():
  t = 200
  q, k, v = qkv(t)
  v = jnp.ones_like(v)  # each output is then the sum of the weights that are left
  keys = jax.random.split(jax.random.key(0), 2)
  with mesh_of():
    out = attention(q, k, v, kernel='xla', rate=0.25, keys=keys)
  assert abs(float(out.mean()) - 1) < 0.02
  assert float(out.std()) > 0.01


def test_a_mask_depends_on_its_sequence_alone():
  x = jax.random.normal(jax.random.key(0), (8, 5, 6))
  keys = jax.random.split(jax.random.key(1), 8)
  with mesh_of():
    whole = dropout(x, 0.5, keys)
    parts = jnp.concatenate([dropout(x[i:i + 2], 0.5, keys[i:i + 2]) for i in range(0, 8, 2)])
    assert (whole == parts).all()
    assert (dropout(x, 0.5, keys[::-1]) != whole).any()
    kept = np.asarray(whole != 0)
  np.testing.assert_array_equal(np.asarray(whole)[kept], np.asarray(x * 2)[kept])
  assert 0.3 < kept.mean() < 0.7


@pytest.mark.parametrize('kernel', ['cudnn', 'splash', 'flash'])
def test_a_kernel_that_cannot_be_had_is_refused_by_name(kernel):
  with pytest.raises(ValueError, match=f"config.attention.kernel = '{kernel}'"):
    check(kernel)
