"""Matmuls of activations with weights, and a layout of their gradients that is fast on XLA:CPU.

Letters: n tokens, i inputs, o outputs.
"""

import functools

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

NAME = 'matmul'  # for rematerialization policies, which do not recognize a custom_vjp as a matmul

# Without the barrier XLA folds a transpose into the dot that reads or writes it.
barrier = jax.lax.optimization_barrier


def on_one_cpu():
  """Whether the mesh is one CPU device."""
  mesh = jax.sharding.get_abstract_mesh()
  return mesh.size == 1 and not mesh.empty and mesh.abstract_device.device_kind == 'cpu'


def matmul(x, w, out_sharding=None):
  """x [n, i] times w [i, o...]: [n, o...] in x's dtype; operands are cast to w's dtype."""
  if on_one_cpu():
    return checkpoint_name(_on_one_cpu(x, w, out_sharding), NAME)
  return _matmul(x, w, out_sharding)


def _matmul(x, w, out_sharding):
  return jnp.einsum('ni,i...->n...', x.astype(w.dtype), w, preferred_element_type=x.dtype,
                    out_sharding=out_sharding)


_on_one_cpu = jax.custom_vjp(_matmul, nondiff_argnums=(2,))


def _fwd(x, w, out_sharding):
  return _matmul(x, w, out_sharding), (x, w)


def _bwd(out_sharding, saved, gradient):
  x, w = saved
  _, vjp = jax.vjp(lambda x, w: _matmul(x, w, out_sharding), x, w)
  grad_x, grad_w = vjp(gradient)
  return grad_x, weight_gradient(grad_w, x, gradient)


_on_one_cpu.defvjp(_fwd, _bwd)


def weight_gradient(gradient, x, y):
  """Return `gradient`, which is x^T y; on one CPU device, compute it with one operand transposed first.

  XLA:CPU's fast matmul contracts the last dimension of the left operand. Other layouts take a slower path, at
  three quarters of the speed, or half where the right operand is narrow. Transposing the narrower operand is
  cheap.

  Args:
    gradient: [i, o...], a sum over n.
    x: [n, i].
    y: [n, o...].
  """
  if not on_one_cpu():
    return gradient
  spec = jax.typeof(gradient).sharding.spec
  multiply = functools.partial(jnp.einsum, preferred_element_type=gradient.dtype)
  if y.ndim == 2 and x.shape[1] > y.shape[1]:
    transposed_spec = jax.P(*spec.partitions[::-1], unreduced=spec.unreduced)
    return barrier(multiply('on,ni->oi', barrier(y.T), x, out_sharding=transposed_spec)).T
  return multiply('in,n...->i...', barrier(x.T), y, out_sharding=spec)
