"""The mesh, and which of its axes each logical axis lies on. No other file names a mesh axis.

Weights and activations speak of `vocab embed heads whole_heads mlp` and `batch`. Two tables say where
those lie: STORAGE for weights, gradients and optimizer moments at rest, COMPUTE for everything
inside the step. Their difference, `embed`, is what fully sharded training means: a layer's weights
are gathered just before they are used.

Gradients are sums over a batch that lies on many devices. They are added up late: over `fsdp` where a
weight was gathered, over `replica` and `data` once a step (JAX's types say of what a sum still is a part:
the gradient of a `reduced` array is an `unreduced` one).
"""

import functools

import jax
import jax.numpy as jnp
from jax import P
from jax.experimental.mesh_utils import create_hybrid_device_mesh
from jax.sharding import AxisType

from gptjax.errors import InputError
from gptjax.text.words import plural

MESH_AXES = ('replica', 'data', 'fsdp', 'tensor')
BATCH_AXES = ('replica', 'data', 'fsdp')
DEFERRED_AXES = ('replica', 'data')  # over which gradients are summed once a step
HEADS = ('heads', 'whole_heads')  # logical axes; the second where the mesh cannot divide the heads
ONE_CHANNEL = ('cpu',)  # kinds of device where all collectives of `shard_map` have one channel between them

STORAGE = {'vocab': 'tensor', 'embed': 'fsdp', 'heads': 'tensor', 'mlp': 'tensor'}
COMPUTE = {'vocab': 'tensor', 'batch': BATCH_AXES, 'heads': 'tensor', 'mlp': 'tensor'}


def make_mesh(sizes, devices=None):
  """An Explicit mesh over all devices, or over `devices`.

  Args:
    sizes: `config.mesh`: how many devices lie along each axis; one of them may be -1, "the rest".
    devices: list of JAX devices; None for all.

  Raises:
    ValueError: the sizes do not multiply to the number of devices.
  """
  devices = jax.devices() if devices is None else devices
  shape = {axis: getattr(sizes, axis) for axis in MESH_AXES}
  free = [axis for axis, size in shape.items() if size == -1]
  if len(free) > 1 or any(size < 1 and size != -1 for size in shape.values()):
    raise InputError(f'config.mesh {shape}: sizes are positive, and at most one is -1 (the rest)')
  known = 1
  for size in shape.values():
    known *= max(size, 1)
  if free and len(devices) % known == 0:
    shape[free[0]] = len(devices) // known
  elif known != len(devices):
    raise InputError(f'config.mesh {shape} takes {plural(known, "device")} (-1: a multiple of them), '
                     f'but there are {len(devices)}')
  slices, explicit = slice_count(devices), (AxisType.Explicit,) * len(MESH_AXES)
  if slices > 1 and shape['replica'] % slices == 0:  # only gradients cross the network between slices
    inside = shape | {'replica': shape['replica'] // slices}
    by_host = len({device.slice_index for device in devices}) == 1
    arranged = create_hybrid_device_mesh(tuple(inside.values()), (slices, 1, 1, 1), devices,
                                         process_is_granule=by_host)
    return jax.sharding.Mesh(arranged, MESH_AXES, axis_types=explicit)
  return jax.make_mesh(tuple(shape.values()), MESH_AXES, axis_types=explicit, devices=devices)


def slice_count(devices):
  """Number of groups of devices with a fast network of their own: TPU slices, NVLink domains; 1 on CPUs."""
  return len({slice_index(device) for device in devices})


def slice_index(device):
  """Number of the group with a fast network of its own in which a device lies, or None where all do."""
  if device.platform == 'gpu' and device.local_hardware_id is None:
    return device.process_index  # a GPU that is only described, for a plan: XLA says slice 0 of them all
  return getattr(device, 'slice_index', None)


def single_mesh():
  """A mesh of this process's first device."""
  return jax.make_mesh((1,) * len(MESH_AXES), MESH_AXES, axis_types=(AxisType.Explicit,) * len(MESH_AXES),
                       devices=jax.local_devices()[:1])


def abstract_mesh():
  """Context of a mesh of one device, which need not exist: for shapes, which depend on no mesh."""
  if not jax.sharding.get_mesh().empty:  # an abstract mesh may not have another size
    return jax.set_mesh(single_mesh())
  axis_types = (AxisType.Explicit,) * len(MESH_AXES)
  return jax.sharding.use_abstract_mesh(
    jax.sharding.AbstractMesh((1,) * len(MESH_AXES), MESH_AXES, axis_types=axis_types))


def ensure_mesh():
  """The mesh that is set; where none is, one of one device is set, for this thread and from now on.

  Raises:
    ValueError: the mesh that is set is not one of `make_mesh`.
  """
  mesh = jax.sharding.get_mesh()
  if mesh.empty:
    mesh = single_mesh()
    jax.set_mesh(mesh)
  if mesh.axis_names != MESH_AXES or set(mesh.axis_types) != {AxisType.Explicit}:
    raise InputError(f'the mesh that is set has axes {mesh.axis_names}, not Explicit {MESH_AXES}: set one '
                     'made by gptjax.parallel.sharding.make_mesh')
  return mesh


def batch_shards(mesh):
  """Over how many devices the rows of a batch are dealt out."""
  sizes = mesh.shape
  return sizes['replica'] * sizes['data'] * sizes['fsdp']


def check(config, mesh):
  """Refuses a model or batch that this mesh cannot divide (ValueError, one line)."""
  check_model(config.model, mesh)
  train, shards = config.train, batch_shards(mesh)
  _divide((
      ('train.batch_size', train.batch_size, shards, 'mesh.replica * mesh.data * mesh.fsdp'),
      ('train.microbatch_size', train.microbatch_size, shards,
       'mesh.replica * mesh.data * mesh.fsdp'),
      ('eval.batch_size', config.eval.batch_size, shards, 'mesh.replica * mesh.data * mesh.fsdp')))


def check_model(model, mesh):
  """Refuses a `config.model` that this mesh cannot divide (ValueError, one line)."""
  fsdp, tensor = mesh.shape['fsdp'], mesh.shape['tensor']
  _divide((
      ('model.n_embd', model.n_embd, fsdp, 'mesh.fsdp'),
      ('model.n_inner', model.n_inner, tensor, 'mesh.tensor'),
      ('model.pad_vocab_to', model.pad_vocab_to, tensor, 'mesh.tensor')))


def mesh_warnings(config, mesh):
  """What a user should know about this mesh, a list of lines."""
  said, n_head, tensor = [], config.model.n_head, mesh.shape['tensor']
  slices = slice_count(mesh.devices.flat)
  if n_head % tensor:
    said.append(f'{n_head} heads cannot be divided by config.mesh.tensor = {tensor}: attention is whole on '
                'each of them, the rest is split')
  if mesh.shape['replica'] % slices:
    said.append(f'config.mesh.replica = {mesh.shape["replica"]} is no multiple of the {slices} slices: more '
                'than gradients crosses the network between them')
  return said


def head_axis(n_head):
  """The logical axis of heads: `heads`, or `whole_heads` where the mesh cannot divide them."""
  return 'whole_heads' if n_head % jax.sharding.get_abstract_mesh().shape['tensor'] else 'heads'


def _divide(demands):
  for name, value, size, axis in demands:
    if value % size:
      raise InputError(f'config.{name} = {value} cannot be divided by config.{axis} = {size}: '
                       'change one of them')


def _spec(axes, table):
  return P(*(table.get(axis) for axis in axes))


def storage_spec(*axes):
  """Where a weight with these logical axes rests: a PartitionSpec."""
  return _spec(axes, STORAGE)


def compute_spec(*axes):
  """Where an array with these logical axes lies inside the step: a PartitionSpec."""
  return _spec(axes, COMPUTE)


def reduced_spec(*axes):
  """Where a weight with these logical axes lies inside the step: its gradient is then `unreduced_spec`."""
  return P(*_spec(axes, COMPUTE), reduced=set(BATCH_AXES))


def gather(w, *axes):
  """The weight w where the step computes with it (`reduced_spec`); its gradient is scattered.

  By name, and shard by shard on a dimension of their own: what `jax.reshard` amounts to, a sum and a cut, the
  TPU's compiler makes a scatter only where the shards are whole tiles (GPT-2 XL's are not); a sum sends twice
  as much. Where all such collectives have one channel (`ONE_CHANNEL`), two that run at once would take each
  other's parts: there it is a reshard after all.
  """
  place = _place(w)
  mesh = jax.sharding.get_abstract_mesh()
  if 'fsdp' not in place or mesh.shape['fsdp'] == 1 or mesh.abstract_device.device_kind in ONE_CHANNEL:
    return jax.reshard(w, reduced_spec(*axes))
  stored, cut = P(*place, reduced=set(DEFERRED_AXES)), place.index('fsdp')

  def whole(shard):
    shards = jnp.moveaxis(jax.lax.all_gather(shard, 'fsdp', to='reduced'), 0, cut)
    return shards.reshape(*shard.shape[:cut], -1, *shard.shape[cut + 1:])
  return jax.shard_map(whole, in_specs=stored, out_specs=reduced_spec(*axes))(jax.reshard(w, stored))


def unreduced_spec(*axes):
  """Like `compute_spec`, for a sum over the batch of which each device still holds only its part."""
  return P(*_spec(axes, COMPUTE), unreduced=set(BATCH_AXES))


def defer_grad_sum(weights):
  """The weights, marked so that their gradients stay unreduced over replicas until `finish_grad_sum`."""
  return jax.tree.map(lambda x: jax.reshard(x, P(*_place(x), reduced=set(DEFERRED_AXES))), weights)


def finish_grad_sum(gradients):
  """The sums of the parts that gradients with respect to `defer_grad_sum` weights are."""
  return jax.tree.map(lambda x: jax.reshard(x, P(*_place(x))), gradients)


def replicated(tree):
  """Weights as every device has all of them, for code that knows nothing of shardings."""
  return jax.tree.map(lambda x: jax.reshard(x, P()), tree)


def zero_gradient(x, dtype):
  """Zeros to which gradients with respect to x can be added."""
  return jnp.zeros(x.shape, dtype, out_sharding=_of_gradient(x))


def reduced_scalar(scalar, x):
  """A scalar in the form that may be multiplied with x, if that is `unreduced_spec`."""
  return jax.reshard(scalar, P(reduced=jax.typeof(x).sharding.spec.unreduced))


def _of_gradient(x):
  return P(*_place(x), unreduced=jax.typeof(x).sharding.spec.reduced)


def _place(x):
  """Mesh axes of each dimension of x, a tuple."""
  return jax.typeof(x).sharding.spec.partitions


def broadcast(w, x):
  """A bias or gain w [...], or one for each position, for each row of x [n, ...]: of the shape of x."""
  n = x.ndim - w.ndim
  return _broadcast(w, x.shape[:n], P(*_place(x)[:n]))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _broadcast(w, sizes, spec):
  n, place = len(sizes), _place(w)
  return jax.lax.broadcast_in_dim(jax.reshard(w, P(*place)), (*sizes, *w.shape), range(n, n + w.ndim),
                                  out_sharding=P(*spec, *place))


def _broadcast_bwd(sizes, spec, w, gradient):
  del spec
  total = jax.lax.reduce_sum(gradient.astype(jnp.float32), range(len(sizes)), out_sharding=_of_gradient(w))
  return total.astype(w.dtype),


_broadcast.defvjp(lambda w, sizes, spec: (_broadcast(w, sizes, spec), w), _broadcast_bwd)


def merge_axes(x, axis):
  """[..., i, j, ...] -> [..., i j, ...] at `axis`; j must be whole on each device."""
  spec, reduced = _place(x), jax.typeof(x).sharding.spec.reduced
  shape = *x.shape[:axis], x.shape[axis] * x.shape[axis + 1], *x.shape[axis + 2:]
  return jax.lax.reshape(x, shape, out_sharding=P(*spec[:axis + 1], *spec[axis + 2:], reduced=reduced))


def split_axis(x, axis, sizes):
  """The inverse of `merge_axes`: dimension `axis` becomes two, of these sizes, the first one sharded."""
  spec, reduced = _place(x), jax.typeof(x).sharding.spec.reduced
  shape = *x.shape[:axis], *sizes, *x.shape[axis + 1:]
  return jax.lax.reshape(x, shape, out_sharding=P(*spec[:axis + 1], None, *spec[axis + 1:], reduced=reduced))


def split_into_blocks(x, size, value=0):
  """[v, ...] -> [blocks, rows, ...], of at most `size` rows on each device; `value` fills the last block.

  Rows stay on their devices: a block has some of each shard.
  """
  place, mesh = _place(x)[0], jax.sharding.get_abstract_mesh()
  shards = mesh.shape[place] if place else 1
  n = -(-x.shape[0] // (shards * size))
  size = -(-x.shape[0] // (shards * n))
  x = split_axis(x, 0, (shards, x.shape[0] // shards))
  x = jnp.pad(x, ((0, 0), (0, n * size - x.shape[1]), *((0, 0),) * (x.ndim - 2)), constant_values=value)
  return merge_axes(jnp.swapaxes(split_axis(x, 1, (n, size)), 0, 1), 1)


def flatten_batch(x):
  """[b, t, ...] -> [n, ...].

  As [n, d] [d, f] the gradient of a weight is one matmul on every backend; as [b, t, d] [d, f] XLA
  transposes it on a CPU, at less than half the speed. So are heads merged before they meet a weight.
  """
  return merge_axes(x, 0)


def shard_batch(arrays, mesh):
  """This host's rows of a batch (a tree of NumPy arrays [rows, ...]) as arrays of the whole batch."""
  rows = jax.NamedSharding(mesh, compute_spec('batch'))
  return jax.tree.map(lambda x: jax.make_array_from_process_local_data(rows, x), arrays)


def with_shardings(abstract, mesh):
  """The tree of `jax.eval_shape` with shardings on the real mesh, to restore or compile with."""
  def one(x):
    spec = x.sharding.spec if x.sharding is not None else P()
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=jax.NamedSharding(mesh, spec))
  return jax.tree.map(one, abstract)


def local_rows(batch_size, mesh):
  """Which rows of a batch the devices of this process hold: a slice, the same for hosts that share them.

  Raises:
    ValueError: the rows do not lie together: the mesh orders the devices of this process otherwise.
  """
  batch = jax.NamedSharding(mesh, compute_spec('batch'))
  places = batch.addressable_devices_indices_map((batch_size,)).values()
  bounds = sorted({(rows.start or 0, batch_size if rows.stop is None else rows.stop) for rows, in places})
  first, last = bounds[0][0], bounds[-1][1]
  if sum(stop - start for start, stop in bounds) != last - first:
    raise InputError(f'config.mesh = {dict(mesh.shape)} gives this process rows of a batch that do not lie '
                     'together: choose sizes that divide the devices of a host, or are multiples of them')
  return slice(first, last)
