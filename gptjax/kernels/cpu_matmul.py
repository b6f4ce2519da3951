"""Products of activations with weights. Letters: n tokens, i inputs, o outputs."""

import functools

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

NAME = 'product'  # by which a policy of rematerialization finds what is no plain matmul

# Without it, what is turned in memory would become a remark on the product that reads or writes it.
apart = jax.lax.optimization_barrier


def on_one_cpu():
  """Whether the mesh is of one CPU."""
  mesh = jax.sharding.get_abstract_mesh()
  return mesh.size == 1 and not mesh.empty and mesh.abstract_device.device_kind == 'cpu'


def product(x, w, out_sharding=None):
  """x [n, i] times w [i, o...]: [n, o...], as exact as x; the factors are of the dtype of w."""
  if on_one_cpu():
    return checkpoint_name(_on_one_cpu(x, w, out_sharding), NAME)
  return _product(x, w, out_sharding)


def _product(x, w, out_sharding):
  return jnp.einsum('ni,i...->n...', x.astype(w.dtype), w, preferred_element_type=x.dtype,
                    out_sharding=out_sharding)


_on_one_cpu = jax.custom_vjp(_product, nondiff_argnums=(2,))


def _fwd(x, w, out_sharding):
  return _product(x, w, out_sharding), (x, w)


def _bwd(out_sharding, saved, gradient):
  x, w = saved
  _, back = jax.vjp(lambda x, w: _product(x, w, out_sharding), x, w)
  of_x, of_w = back(gradient)
  return of_x, turned_on_cpu(of_w, x, gradient)


_on_one_cpu.defvjp(_fwd, _bwd)


def turned_on_cpu(gradient, x, y):
  """`gradient`, which is x^T y; where one CPU is all there is, computed anew with one factor turned first.

  XLA's fast products on CPUs want the sum along the left factor's rows. Another product does the others, at
  three quarters of the speed, or half where the right factor is narrow. Turning the narrower costs little.

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
    place = jax.P(*spec.partitions[::-1], unreduced=spec.unreduced)
    return apart(multiply('on,ni->oi', apart(y.T), x, out_sharding=place)).T
  return multiply('in,n...->i...', apart(x.T), y, out_sharding=spec)
