"""Attention by its equation, keys and values repeated for each query head, to compare kernels with."""

import jax
import jax.numpy as jnp
import numpy as np

# (query heads per head of keys and values, window, whether rows have segments)
CASES = ((1, 0, True), (1, 7, False), (2, 0, False), (2, 1, True), (2, 40, False), (4, 0, True), (4, 7, True),
         (4, 500, False))
ALL_CASES = [(g, window, segmented) for g in (1, 2, 4) for window in (0, 1, 7, 40, 500)
             for segmented in (False, True)]


def inputs(t, group, b=2, h=4, k=16, place=None):
  """(q [b, t, h, k], k and v [b, t, h / group, k]), random."""
  keys = jax.random.split(jax.random.key(t), 3)
  return [jax.random.normal(key, (b, t, heads, k), out_sharding=place)
          for key, heads in zip(keys, (h, h // group, h // group))]


def segments(t, b=2):
  """int32[b, t]: some texts per row, of random lengths, numbered from 1."""
  starts = np.random.default_rng(t).random((b, t)) < 4 / t
  return jnp.asarray(1 + starts.cumsum(1), jnp.int32)


def attention(q, k, v, window=0, segments=None, kept=True, rate=0.0):
  """The result [b, t, h, k]; only the weights in `kept`, bool[b, h, t, t], are not dropped."""
  k, v = (jnp.repeat(x, q.shape[2] // k.shape[2], axis=2) for x in (k, v))
  distance = np.subtract.outer(np.arange(q.shape[1]), np.arange(q.shape[1]))
  attended = (distance >= 0) & (distance < (window or q.shape[1]))
  if segments is not None:
    attended = attended & (segments[:, None, :, None] == segments[:, None, None, :])
  scores = jnp.einsum('bthk,bshk->bhts', q, k) * q.shape[-1] ** -0.5
  weights = jax.nn.softmax(jnp.where(attended, scores, -jnp.inf))
  return jnp.einsum('bhts,bshk->bthk', jnp.where(kept, weights / (1 - rate), 0), v)


def with_gradients(attend, *x):
  """(y, gradients of the sum of its squares with respect to q, k and v) of attend(q, k, v)."""
  square = lambda *x: (attend(*x).astype(jnp.float32) ** 2).sum()
  return jax.jit(lambda *x: (attend(*x), jax.grad(square, argnums=(0, 1, 2))(*x)))(*x)


def check(attend, *x, **options):
  """Compare a kernel with the equation, the output and all gradients."""
  compare(with_gradients(attend, *x), with_gradients(lambda *x: attention(*x, **options), *x))


def compare(found, right):
  """Compare two results of `with_gradients`."""
  (y, gradient), (want, wanted) = found, right
  np.testing.assert_allclose(y, want, atol=2e-6)
  for found, right in zip(gradient, wanted):
    np.testing.assert_allclose(found, right, atol=3e-5, rtol=1e-5)


def kernel_inputs(attend, *x):
  """For each Pallas kernel of attend(q, k, v) and its gradients: the shapes of its floating-point inputs."""
  def calls(jaxpr):
    for equation in jaxpr.eqns:
      if equation.primitive.name == 'pallas_call':
        yield [one.aval.shape for one in equation.invars if jnp.issubdtype(one.aval.dtype, jnp.floating)]
      else:
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: hasattr(x, 'eqns')):
          if hasattr(inner, 'eqns') or hasattr(inner, 'jaxpr'):
            yield from calls(getattr(inner, 'jaxpr', inner))
  return list(calls(jax.make_jaxpr(lambda *x: with_gradients(attend, *x))(*x).jaxpr))
