"""Rotary position embedding (Su et al. 2021): attention scores depend on the distance of two positions.

The pair (x_i, x_{i + k/2}) of a query or key of head size k at position p is rotated by the angle

    p base^(-2i / k),   i = 0 ... k/2 - 1

Which entries form a pair is a convention; this is that of Llama in `transformers`.
"""

import jax.numpy as jnp


def angles(positions, size, base):
  """Return (cos, sin), float32[b, t, 1, k / 2] each.

  Args:
    positions: int32[b, t]; b may be 1.
    size: head size k, even.
    base: of the powers.
  """
  frequencies = base ** (-jnp.arange(0, size, 2, dtype=jnp.float32) / size)
  angle = positions[..., None, None].astype(jnp.float32) * frequencies
  return jnp.cos(angle), jnp.sin(angle)


def rotated(x, rotation):
  """Rotate queries or keys [b, t, h, k] by `angles`, in float32; returns the dtype of x."""
  cos, sin = rotation
  first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
  y = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
  return y.astype(x.dtype)
