"""Matmuls of activations with weights, and a layout of their gradients that is fast on XLA:CPU.

Letters: n tokens, i inputs, o outputs.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

NAME = 'matmul'  # for rematerialization policies, which do not recognize a custom_vjp as a matmul

# Of `matmul_by_rows`, measured with jax 0.10.2 on an EPYC (blocks: Zen 1; bfloat16: Zen 4), see
# docs/explanation/speed_log.md.
FEW_ROWS = 32                   # of x; at 64, the next batch size, blocks gain little
MIN_BLOCK, MAX_BLOCK = 64, 1152  # rows of w

# Without the barrier XLA folds a transpose into the dot that reads or writes it.
barrier = jax.lax.optimization_barrier


def on_one_cpu():
  """Whether the mesh is one CPU device."""
  mesh = jax.sharding.get_abstract_mesh()
  return mesh.size == 1 and not mesh.empty and mesh.abstract_device.device_kind == 'cpu'


def result_dtype(dtype):
  """Dtype in which a matmul is asked for, before it is cast to `dtype`.

  XLA:CPU of jax 0.10 has no fast matmul of bfloat16 operands with a bfloat16 result; with a float32 result it
  is twice as fast.
  """
  return jnp.float32 if on_one_cpu() else dtype


def sum_over_rows(x, y, dtype):
  """x^T y [..., i, o] in `dtype` for x [..., n, i] and y [..., n, o] of one dtype.

  XLA:CPU sums over the rows of both operands in float32; in bfloat16, with x transposed first, it is faster.
  """
  if x.dtype == jnp.bfloat16 and on_one_cpu():
    x = barrier(jnp.swapaxes(x, -1, -2))
    return jnp.einsum('...in,...no->...io', x, y, preferred_element_type=dtype)
  return jnp.einsum('...ni,...no->...io', x, y, preferred_element_type=dtype)


def matmul(x, w, out_sharding=None):
  """x [n, i] times w [i, o...]: [n, o...] in x's dtype; operands are cast to w's dtype."""
  if on_one_cpu():
    return checkpoint_name(_on_one_cpu(x, w, out_sharding), NAME)
  return _matmul(x, w, out_sharding)


def _matmul(x, w, out_sharding):
  y = jnp.einsum('ni,i...->n...', x.astype(w.dtype), w, preferred_element_type=result_dtype(x.dtype),
                 out_sharding=out_sharding)
  return y.astype(x.dtype)


def matmul_by_rows(x, w):
  """x [..., i] times the rows of w [o, i]: y [..., o] = sum over i of x[..., i] w[o, i], in float32."""
  if not on_one_cpu():
    return jnp.einsum('...i,oi->...o', x, w, preferred_element_type=jnp.float32)
  spec = jax.P(*jax.typeof(x).sharding.spec[:-1], None)
  matrix, w = jax.reshard((x, w), jax.P())
  # With more than two dimensions XLA transposes w before a loop that multiplies by it.
  y = _rows_on_one_cpu(matrix.reshape(-1, x.shape[-1]), w)
  return jax.lax.reshape(y, (*x.shape[:-1], len(w)), out_sharding=spec)


def _rows_on_one_cpu(x, w):
  """x [n, i] times the rows of w [o, i]: [n, o].

  A single row in float32 is multiplied as it is. In bfloat16 XLA:CPU has a path of its own for it, which
  converts w to float32, so it is multiplied twice. For few rows in float32, as in decoding, XLA:CPU first
  rearranges all of w in memory; for 2 to 8 rows that takes longer than the sums. A batch of matmuls, each
  with a block of w, takes less.
  """
  (n, i), o = x.shape, len(w)
  if n == 1 and w.dtype == jnp.bfloat16:
    return _rows_on_one_cpu(jnp.concatenate([x, x]), w)[:1]
  block = _block_size(o)
  if not (block and 1 < n <= FEW_ROWS and w.dtype == jnp.float32):
    return jnp.einsum('ni,oi->no', x, w, preferred_element_type=jnp.float32)
  copies = barrier(jnp.broadcast_to(x, (o // block, n, i)))
  return jnp.einsum('boi,bni->bon', w.reshape(-1, block, i), copies).reshape(o, n).T


def _block_size(o):
  """The largest size from MIN_BLOCK to MAX_BLOCK that divides o into several blocks; 0: none."""
  sizes = range(min(MAX_BLOCK, o // 2), MIN_BLOCK - 1, -1)
  return next((size for size in sizes if o % size == 0), 0)


_on_one_cpu = jax.custom_vjp(_matmul, nondiff_argnums=(2,))


def _fwd(x, w, out_sharding):
  return _matmul(x, w, out_sharding), (x, w)


def _bwd(out_sharding, saved, gradient):
  x, w = saved
  grad_x = _matmul_by_outputs(gradient.astype(w.dtype), w, result_dtype(x.dtype), jax.typeof(x).sharding)
  _, vjp = jax.vjp(lambda w: _matmul(x, w, out_sharding), w)
  return grad_x.astype(x.dtype), weight_gradient(*vjp(gradient), x, gradient)


def _matmul_by_outputs(y, w, dtype, sharding):
  """y [n, o...] times w [i, o...]: [n, i]. XLA:CPU would transpose w to sum over more than one dimension."""
  y, w = (jax.lax.reshape(a, (len(a), math.prod(a.shape[1:])), out_sharding=jax.P())
          for a in jax.reshard((y, w), jax.P()))
  return jnp.einsum('no,io->ni', y, w, preferred_element_type=dtype, out_sharding=sharding)


_on_one_cpu.defvjp(_fwd, _bwd)


def weight_gradient(gradient, x, y):
  """Return `gradient`, which is x^T y; on one CPU device, compute it with one operand transposed first.

  XLA:CPU's fast matmul contracts the last dimension of the left operand. Other layouts take a slower path, at
  three quarters of the speed, or half where the right operand is narrow. Transposing an operand is cheap.

  Args:
    gradient: [i, o...], a sum over n.
    x: [n, i].
    y: [n, o...].
  """
  if not on_one_cpu():
    return gradient
  spec = jax.typeof(gradient).sharding.spec
  multiply = functools.partial(jnp.einsum, preferred_element_type=result_dtype(gradient.dtype))
  if y.ndim == 2 and transposes_result(x, y):
    transposed_spec = jax.P(*spec.partitions[::-1], unreduced=spec.unreduced)
    product = barrier(multiply('on,ni->oi', barrier(y.T), x, out_sharding=transposed_spec)).T
  else:
    product = multiply('in,n...->i...', barrier(x.T), y, out_sharding=spec)
  return product.astype(gradient.dtype)


def transposes_result(x, y):
  """Whether x^T y is computed as (y^T x)^T: y and the result have fewer elements to transpose than x.

  Args:
    x: [n, i].
    y: [n, o].
  """
  return x.size > y.size + x.shape[1] * y.shape[1]
