"""Products of activations with weights. Letters: n tokens, i inputs, o outputs."""

import functools

import jax
import jax.numpy as jnp

# Without it, what is turned in memory would become a remark on the product that reads or writes it.
apart = jax.lax.optimization_barrier


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def product(x, w, out_sharding=None):
  """x [n, i] times w [i, o...]: [n, o...], as exact as x; the factors are of the dtype of w."""
  return jnp.einsum('ni,i...->n...', x.astype(w.dtype), w, preferred_element_type=x.dtype,
                    out_sharding=out_sharding)


def _product_bwd(out_sharding, saved, gradient):
  x, w = saved
  _, back = jax.vjp(lambda x, w: product.fun(x, w, out_sharding), x, w)
  of_x, of_w = back(gradient)
  return of_x, turned_on_cpu(of_w, x, gradient)


product.defvjp(lambda x, w, out_sharding: (product(x, w, out_sharding), (x, w)), _product_bwd)


def turned_on_cpu(gradient, x, y):
  """`gradient`, which is x^T y; where one CPU is all there is, computed anew with one factor turned first.

  XLA's fast products on CPUs want the sum along the left factor's rows. Another product does the others, at
  three quarters of the speed, or half where the right factor is narrow. Turning the narrower costs little.

  Args:
    gradient: [i, o...], a sum over n.
    x: [n, i].
    y: [n, o...].
  """
  if jax.sharding.get_abstract_mesh().size > 1:
    return gradient
  spec = jax.typeof(gradient).sharding.spec
  multiply = functools.partial(jnp.einsum, preferred_element_type=gradient.dtype)

  def turn_x(_, x, y):
    return multiply('in,n...->i...', apart(x.T), y, out_sharding=spec)

  def turn_y(_, x, y):
    place = jax.P(*spec.partitions[::-1], unreduced=spec.unreduced)
    return apart(multiply('on,ni->oi', apart(y.T), x, out_sharding=place)).T

  wide = y.ndim == 2 and x.shape[1] > y.shape[1]
  return jax.lax.platform_dependent(gradient, x, y, cpu=turn_y if wide else turn_x, default=lambda g, x, y: g)
