"""The mesh, and the mesh axes over which each logical axis is sharded. No other file uses names of mesh axes.

Weights and activations have the logical axes `vocab embed heads whole_heads mlp` and `batch`. Two tables map
them to mesh axes: STORAGE for weights, gradients and optimizer moments between steps, COMPUTE for all arrays
inside the step. They differ in `embed`, which makes training fully sharded (FSDP): the weights of a layer are
gathered just before they are used.

Gradients are sums over a batch that is sharded over devices. Their all-reduce is deferred: over `fsdp` to
where a weight was gathered, over `replica` and `data` to once per step. JAX's types track the pending sums:
the gradient of a `reduced` array is `unreduced`.
"""

import functools

import jax
import jax.numpy as jnp
from jax import P
from jax.experimental.mesh_utils import create_device_mesh, create_hybrid_device_mesh
from jax.sharding import AxisType

from gptjax.errors import InputError
from gptjax.text.words import plural

MESH_AXES = ('replica', 'data', 'fsdp', 'tensor')
BATCH_AXES = ('replica', 'data', 'fsdp')
DEFERRED_AXES = ('replica', 'data')  # over which gradients are summed once per step
HEADS = ('heads', 'whole_heads')  # logical axes; the second if the mesh does not divide the number of heads
ONE_CHANNEL = ('cpu',)  # kinds of device on which all collectives of `shard_map` share one channel

STORAGE = {'vocab': 'tensor', 'embed': 'fsdp', 'heads': 'tensor', 'mlp': 'tensor'}
COMPUTE = {'vocab': 'tensor', 'batch': BATCH_AXES, 'heads': 'tensor', 'mlp': 'tensor'}


def make_mesh(sizes, devices=None):
  """Return a mesh with Explicit axes over all devices, or over `devices`.

  Args:
    sizes: `config.mesh`, the size of each axis; one may be -1: all remaining devices.
    devices: list of JAX devices; None for all.

  Raises:
    InputError: the product of the sizes is not the number of devices, or `replica` is not a multiple of the
      number of TPU slices.
  """
  devices = jax.devices() if devices is None else devices
  shape = {axis: getattr(sizes, axis) for axis in MESH_AXES}
  free = [axis for axis, size in shape.items() if size == -1]
  if len(free) > 1 or any(size < 1 and size != -1 for size in shape.values()):
    raise InputError(f'config.mesh {shape}: sizes must be positive, and at most one may be -1 (the rest)')
  known = 1
  for size in shape.values():
    known *= max(size, 1)
  if free and len(devices) % known == 0:
    shape[free[0]] = len(devices) // known
  elif known != len(devices):
    raise InputError(f'config.mesh {shape} takes {plural(known, "device")} (-1: a multiple of them), '
                     f'but there are {len(devices)}')
  # An axis like fsdp=8 on 4x4x4 chips takes a part of a dimension of the torus.
  slices, split = slice_count(devices), {'allow_split_physical_axes': True}
  if slices > 1 and shape['replica'] % slices == 0:  # only gradients cross the network between slices
    inside = shape | {'replica': shape['replica'] // slices}
    by_host = len({device.slice_index for device in devices}) == 1
    arranged = create_hybrid_device_mesh(tuple(inside.values()), (slices, 1, 1, 1), devices,
                                         process_is_granule=by_host, **split)
  elif slices > 1 and devices[0].platform == 'tpu':
    raise InputError(f'config.mesh.replica = {shape["replica"]} is not a multiple of the {slices} slices, '
                     f'between which only gradients are sent: set it to {slices}')
  else:
    arranged = create_device_mesh(tuple(shape.values()), devices, **split)
  return jax.sharding.Mesh(arranged, MESH_AXES, axis_types=(AxisType.Explicit,) * len(MESH_AXES))


def slice_count(devices):
  """Return the number of slices: groups of devices with a fast interconnect (TPU slices, NVLink domains)."""
  return len({slice_index(device) for device in devices})


def slice_index(device):
  """Return the index of the slice of a device; None if there is only one slice."""
  if device.platform == 'gpu' and device.local_hardware_id is None:
    return device.process_index  # a GPU of an AOT topology, for a plan: XLA gives slice 0 for all
  return getattr(device, 'slice_index', None)


def single_mesh():
  """Return a mesh of the first device of this process."""
  return jax.make_mesh((1,) * len(MESH_AXES), MESH_AXES, axis_types=(AxisType.Explicit,) * len(MESH_AXES),
                       devices=jax.local_devices()[:1])


def abstract_mesh():
  """Context manager that sets an abstract mesh of one device, to compute shapes without devices."""
  if not jax.sharding.get_mesh().empty:  # an abstract mesh may not have another size
    return jax.set_mesh(single_mesh())
  axis_types = (AxisType.Explicit,) * len(MESH_AXES)
  return jax.sharding.use_abstract_mesh(
    jax.sharding.AbstractMesh((1,) * len(MESH_AXES), MESH_AXES, axis_types=axis_types))


def ensure_mesh():
  """Return the current mesh; if there is none, set a mesh of one device for this thread.

  Raises:
    ValueError: the current mesh was not created by `make_mesh`.
  """
  mesh = jax.sharding.get_mesh()
  if mesh.empty:
    mesh = single_mesh()
    jax.set_mesh(mesh)
  if mesh.axis_names != MESH_AXES or set(mesh.axis_types) != {AxisType.Explicit}:
    raise InputError(f'the current mesh has axes {mesh.axis_names}, not Explicit {MESH_AXES}: set one '
                     'created by gptjax.parallel.sharding.make_mesh')
  return mesh


def batch_shards(mesh):
  """Return the number of shards of a batch."""
  sizes = mesh.shape
  return sizes['replica'] * sizes['data'] * sizes['fsdp']


def check(config, mesh):
  """Check that the mesh divides the model and the batch (ValueError with one line)."""
  check_model(config.model, mesh)
  train, shards = config.train, batch_shards(mesh)
  _divide((
      ('train.batch_size', train.batch_size, shards, 'mesh.replica * mesh.data * mesh.fsdp'),
      ('train.microbatch_size', train.microbatch_size, shards,
       'mesh.replica * mesh.data * mesh.fsdp'),
      ('eval.batch_size', config.eval.batch_size, shards, 'mesh.replica * mesh.data * mesh.fsdp')))


def check_model(model, mesh):
  """Check that the mesh divides the dimensions of `config.model` (ValueError with one line)."""
  fsdp, tensor = mesh.shape['fsdp'], mesh.shape['tensor']
  _divide((
      ('model.n_embd', model.n_embd, fsdp, 'mesh.fsdp'),
      ('model.n_inner', model.n_inner, tensor, 'mesh.tensor'),
      ('model.pad_vocab_to', model.pad_vocab_to, tensor, 'mesh.tensor')))


def mesh_warnings(config, mesh):
  """Return warnings about this mesh, a list of lines."""
  warnings, tensor = [], mesh.shape['tensor']
  n_head, name = (config.model.n_head, 'heads') if not config.model.n_kv_head else (
    config.model.n_kv_head, 'heads of keys and values')
  slices = slice_count(mesh.devices.flat)
  if n_head % tensor:
    warnings.append(f'{n_head} {name} cannot be divided by config.mesh.tensor = {tensor}: attention is '
                    'replicated across `tensor`, everything else is sharded')
  if mesh.shape['replica'] % slices and mesh.shape['fsdp'] * tensor > 1:
    warnings.append(f'config.mesh.replica = {mesh.shape["replica"]} is not a multiple of the {slices} '
                    'slices or hosts: weights or activations, not only gradients, are sent over the network '
                    'between them')
  return warnings


def head_axis(n_head):
  """Return the logical axis of heads: `heads`, or `whole_heads` if the mesh does not divide them."""
  return 'whole_heads' if n_head % jax.sharding.get_abstract_mesh().shape['tensor'] else 'heads'


def _divide(requirements):
  for name, value, size, axis in requirements:
    if value % size:
      raise InputError(f'config.{name} = {value} cannot be divided by config.{axis} = {size}: '
                       'change one of them')


def _spec(axes, table):
  return P(*(table.get(axis) for axis in axes))


def storage_spec(*axes):
  """Return the PartitionSpec of a stored weight with these logical axes."""
  return _spec(axes, STORAGE)


def compute_spec(*axes):
  """Return the PartitionSpec of an array with these logical axes inside the step."""
  return _spec(axes, COMPUTE)


def reduced_spec(*axes):
  """Return the PartitionSpec of a weight inside the step; its gradient then has `unreduced_spec`."""
  return P(*_spec(axes, COMPUTE), reduced=set(BATCH_AXES))


def gather(w, *axes):
  """All-gather a stored weight for the step (`reduced_spec`); its gradient is reduce-scattered.

  Uses an explicit all_gather onto a new axis, whose transpose is a reduce-scatter. The transpose of
  `jax.reshard` is an all-reduce and a slice. XLA:TPU turns these into a reduce-scatter only if the shards are
  whole tiles (those of GPT-2 XL are not), and an all-reduce sends twice as much. On devices where all such
  collectives share one channel (`ONE_CHANNEL`), two concurrent ones would receive each other's data, so
  `jax.reshard` is used there.
  """
  partitions = _partitions(w)
  mesh = jax.sharding.get_abstract_mesh()
  if 'fsdp' not in partitions or mesh.shape['fsdp'] == 1 or mesh.abstract_device.device_kind in ONE_CHANNEL:
    return jax.reshard(w, reduced_spec(*axes))
  stored, axis = P(*partitions, reduced=set(DEFERRED_AXES)), partitions.index('fsdp')

  def all_gather(shard):
    shards = jnp.moveaxis(jax.lax.all_gather(shard, 'fsdp', to='reduced'), 0, axis)
    return shards.reshape(*shard.shape[:axis], -1, *shard.shape[axis + 1:])
  return jax.shard_map(all_gather, in_specs=stored, out_specs=reduced_spec(*axes))(jax.reshard(w, stored))


def unreduced_spec(*axes):
  """Return `compute_spec` for a sum over the batch that is not yet reduced across devices."""
  return P(*_spec(axes, COMPUTE), unreduced=set(BATCH_AXES))


def defer_grad_sum(weights):
  """Mark weights so that their gradients stay unreduced over replicas until `finish_grad_sum`."""
  return jax.tree.map(lambda x: jax.reshard(x, P(*_partitions(x), reduced=set(DEFERRED_AXES))), weights)


def finish_grad_sum(gradients):
  """Reduce the gradients with respect to the weights of `defer_grad_sum`."""
  return jax.tree.map(lambda x: jax.reshard(x, P(*_partitions(x))), gradients)


def replicated(tree):
  """Replicate weights on every device, for code that is not written for sharded arrays."""
  return jax.tree.map(lambda x: jax.reshard(x, P()), tree)


def zero_gradient(x, dtype):
  """Return zeros to which gradients with respect to x can be added."""
  return jnp.zeros(x.shape, dtype, out_sharding=_gradient_spec(x))


def reduced_scalar(scalar, x):
  """Reshard a scalar so that it can be multiplied with x, if x has `unreduced_spec`."""
  return jax.reshard(scalar, P(reduced=jax.typeof(x).sharding.spec.unreduced))


def _gradient_spec(x):
  return P(*_partitions(x), unreduced=jax.typeof(x).sharding.spec.reduced)


def _partitions(x):
  """The mesh axes of each dimension of x, a tuple."""
  return jax.typeof(x).sharding.spec.partitions


def broadcast(w, x):
  """Broadcast a bias or gain w [...], which may have a position axis, to the shape of x [n, ...]."""
  n = x.ndim - w.ndim
  return _broadcast(w, x.shape[:n], P(*_partitions(x)[:n]))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _broadcast(w, sizes, spec):
  n, partitions = len(sizes), _partitions(w)
  return jax.lax.broadcast_in_dim(jax.reshard(w, P(*partitions)), (*sizes, *w.shape), range(n, n + w.ndim),
                                  out_sharding=P(*spec, *partitions))


def _broadcast_bwd(sizes, spec, w, gradient):
  del spec
  total = jax.lax.reduce_sum(gradient.astype(jnp.float32), range(len(sizes)), out_sharding=_gradient_spec(w))
  return total.astype(w.dtype),


_broadcast.defvjp(lambda w, sizes, spec: (_broadcast(w, sizes, spec), w), _broadcast_bwd)


def merge_axes(x, axis):
  """[..., i, j, ...] -> [..., i j, ...] at `axis`; j must not be sharded."""
  spec, reduced = _partitions(x), jax.typeof(x).sharding.spec.reduced
  shape = *x.shape[:axis], x.shape[axis] * x.shape[axis + 1], *x.shape[axis + 2:]
  return jax.lax.reshape(x, shape, out_sharding=P(*spec[:axis + 1], *spec[axis + 2:], reduced=reduced))


def split_axis(x, axis, sizes):
  """The inverse of `merge_axes`: split `axis` into two of these sizes; the first keeps the sharding."""
  spec, reduced = _partitions(x), jax.typeof(x).sharding.spec.reduced
  shape = *x.shape[:axis], *sizes, *x.shape[axis + 1:]
  return jax.lax.reshape(x, shape, out_sharding=P(*spec[:axis + 1], None, *spec[axis + 1:], reduced=reduced))


def split_into_blocks(x, size, value=0):
  """[v, ...] -> [blocks, rows, ...] with at most `size` rows per device; the last block is padded by `value`.

  Rows stay on their devices: a block has rows of each shard.
  """
  mesh_axis, mesh = _partitions(x)[0], jax.sharding.get_abstract_mesh()
  shards = mesh.shape[mesh_axis] if mesh_axis else 1
  rows = x.shape[0] // shards
  n = count_blocks(rows, size)
  size = -(-rows // n)
  x = split_axis(x, 0, (shards, rows))
  x = jnp.pad(x, ((0, 0), (0, n * size - x.shape[1]), *((0, 0),) * (x.ndim - 2)), constant_values=value)
  return merge_axes(jnp.swapaxes(split_axis(x, 1, (n, size)), 0, 1), 1)


def count_blocks(rows, size):
  """Number of blocks of at most `size` rows, equal ones if that takes less than twice as many."""
  least = -(-rows // size)
  return next((n for n in range(least, 2 * least) if rows % n == 0), least)


def flatten_batch(x):
  """[b, t, ...] -> [n, ...].

  With [n, d] [d, f] the gradient of a weight is one matmul on every backend; with [b, t, d] [d, f] XLA:CPU
  transposes it, at less than half the speed. Heads are merged before a matmul for the same reason.
  """
  return merge_axes(x, 0)


def shard_batch(arrays, mesh):
  """Return global arrays of a batch from this process's rows (a tree of NumPy arrays [rows, ...])."""
  rows = jax.NamedSharding(mesh, compute_spec('batch'))
  return jax.tree.map(lambda x: jax.make_array_from_process_local_data(rows, x), arrays)


def with_shardings(abstract, mesh):
  """Return the tree of `jax.eval_shape` with shardings on a concrete mesh, to restore or compile with."""
  def with_sharding(x):
    spec = x.sharding.spec if x.sharding is not None else P()
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=jax.NamedSharding(mesh, spec))
  return jax.tree.map(with_sharding, abstract)


def local_rows(batch_size, mesh):
  """Return the slice of a batch that the devices of this process hold; hosts may share a slice.

  Raises:
    ValueError: the rows are not contiguous, because of the mesh's order of devices.
  """
  batch = jax.NamedSharding(mesh, compute_spec('batch'))
  places = batch.addressable_devices_indices_map((batch_size,)).values()
  bounds = sorted({(rows.start or 0, batch_size if rows.stop is None else rows.stop) for rows, in places})
  first, last = bounds[0][0], bounds[-1][1]
  if sum(stop - start for start, stop in bounds) != last - first:
    raise InputError(f'config.mesh = {dict(mesh.shape)} gives this process rows of a batch that are not '
                     'contiguous: choose sizes that divide the devices of a host, or are multiples of them')
  return slice(first, last)
