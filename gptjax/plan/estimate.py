"""Roofline estimate of a compiled step: each kernel is limited by compute or by memory bandwidth.

A roofline is an upper bound on speed: no kernel reaches its ceilings, and no network is without latency. A
plan is a bound for comparing choices, not a prediction.
"""

import re
from collections import Counter
from typing import NamedTuple

import jax
import numpy as np
from flax import nnx

from gptjax.errors import InputError
from gptjax.model import size
from gptjax.model.compute import in_dtype
from gptjax.parallel import sharding
from gptjax.plan import hlo, program, traffic
from gptjax.pretrain.trace import step_shapes
from gptjax.train import step

SPARE_MEMORY = 0.08  # of the memory: for the runtime, network buffers and fragmentation


class TooLarge(InputError):
  """The compiler cannot fit the step into the device's memory."""


class Plan(NamedTuple):
  """The cost of a step on each device of a mesh.

  memory: {kind: bytes}: params, optimizer, batch, gradients, activations, temporaries; peak.
  flops: of matmuls, per step and device.
  model_flops: the same without rematerialization, with causal attention.
  sent: {(network, kind of collective): bytes per step}; the network is 'intra' or 'inter' (between slices or
    hosts).
  seconds: {'compute', 'memory': at these ceilings; 'kernels': each kernel at its lower ceiling,
    'memory_bound': the part of that in kernels that memory limits; 'intra', 'inter': the networks; 'step':
    kernels and networks overlapped; 'serial': without overlap}.
  mfu: of the step, in the convention of the PaLM paper.
  tokens_per_second: of all devices.
  compile_seconds: duration of the compilation.
  """
  memory: dict
  flops: int
  model_flops: float
  sent: dict
  seconds: dict
  mfu: float
  tokens_per_second: float
  compile_seconds: float

  def fits(self, device):
    """Whether the peak leaves SPARE_MEMORY of the device free."""
    return self.memory['peak'] <= (1 - SPARE_MEMORY) * device.memory


def plan(config, mesh, device):
  """Compile the train step and estimate its cost.

  Args:
    config: resolved.
    mesh: of devices from `topology.describe`.
    device: `hardware.Device`, the kind of these devices.

  Returns:
    A Plan.

  Raises:
    TooLarge: the step does not fit into the device's memory.
    ValueError: the config cannot be divided by the mesh.
  """
  try:
    compiled, cost = program.compile_and_cost(config, mesh)
  except jax.errors.JaxRuntimeError as error:
    if 'RESOURCE_EXHAUSTED' not in str(error):
      raise
    used = re.search(r'([\d.]+[KMGT])\)? (?:of|exceeds available HBM) \(?([\d.]+[KMGT])', str(error))
    sizes = f' ({used[1]}iB of {used[2]}iB)' if used else ''
    raise TooLarge(f'the step does not fit into the memory of a device{sizes}: raise config.mesh.fsdp, set '
                   'config.model.remat=full, lower config.train.microbatch_size, or try --search') from None
  sent = Counter()
  for collective in cost.collectives:
    network = 'inter' if crosses_networks(collective, mesh) else 'intra'
    sent[network, collective.kind] += hlo.sent_bytes(collective)
  seconds = step_seconds(traffic.kernels(compiled.as_text()), sent, device)
  tokens = config.train.batch_size * config.data.seq_len
  flops = size.flops_per_token(config.model, config.data.seq_len)
  speed = tokens / seconds['step']
  return Plan(memory_by_kind(config, mesh, cost), cost.flops, flops['causal'] * tokens / mesh.size,
              dict(sent), seconds, speed / mesh.size * flops['palm'] / device.flops, speed, cost.seconds)


def step_seconds(kernels, sent, device):
  """Return `Plan.seconds` from [traffic.Kernel] and `Plan.sent`."""
  compute = [kernel.runs * kernel.flops / device.flops for kernel in kernels]
  memory = [kernel.runs * kernel.bytes / device.bandwidth for kernel in kernels]
  network = {name: sum(value for (where, _), value in sent.items() if where == name) / bandwidth
             for name, bandwidth in (('intra', device.intra_bandwidth), ('inter', device.inter_bandwidth))}
  kernel_seconds = sum(map(max, compute, memory))
  memory_bound = sum(at_memory for at_compute, at_memory in zip(compute, memory) if at_memory > at_compute)
  return {'compute': sum(compute), 'memory': sum(memory), 'kernels': kernel_seconds,
          'memory_bound': memory_bound, **network,
          'step': max(kernel_seconds, *network.values()), 'serial': kernel_seconds + sum(network.values())}


def crosses_networks(collective, mesh):
  """Whether a collective joins devices of different slices, or of hosts with separate networks."""
  islands = np.array([sharding.slice_index(device) for device in mesh.devices.flat])
  first_of_group = islands[collective.groups[:, :1]]
  return collective.between_slices or bool((islands[collective.groups] != first_of_group).any())


def memory_by_kind(config, mesh, cost):
  """Return {kind: bytes} of one device.

  Params, optimizer state, batch and peak are the compiler's. Gradients (float32 sums over microbatches or
  devices, otherwise one set in the compute dtype) and activations are known from the program before it is
  compiled; the rest of the peak is called temporaries.
  """
  summed = (config.train.microbatch_size < config.train.batch_size
            or any(mesh.shape[axis] > 1 for axis in sharding.DEFERRED_AXES))
  width = 4 if summed else np.dtype(config.model.compute_dtype).itemsize
  gradients = cost.params * width // 4
  activations = activation_bytes(config, mesh)
  rest = max(cost.peak - cost.params - cost.optimizer - cost.batch - gradients - activations, 0)
  return {'params': cost.params, 'optimizer': cost.optimizer, 'batch': cost.batch, 'gradients': gradients,
          'activations': activations, 'temporaries': rest, 'peak': cost.peak}


def activation_bytes(config, mesh):
  """Bytes of activations per device that the forward pass of a microbatch saves for the backward pass."""
  state, batch = step_shapes(config, mesh)
  with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
    graphdef, rows = step.graph(config), sharding.compute_spec('batch')
    shape = config.train.microbatch_size, config.data.seq_len
    sharded = jax.NamedSharding(mesh, rows)
    batch = {name: jax.ShapeDtypeStruct(shape, x.dtype, sharding=sharded) for name, x in batch.items()}
    keys = jax.eval_shape(lambda: step.dropout_keys(config, 0))
    if keys is not None:
      keys = jax.ShapeDtypeStruct(shape[:1], keys.dtype, sharding=sharded)

    def residuals(params, batch, keys):
      model = in_dtype(nnx.merge(graphdef, params), config.model.compute_dtype)
      return jax.vjp(lambda model: step.features(model, batch, keys), model)[1]
    residual_shapes = jax.tree.leaves(jax.eval_shape(residuals, state.params, batch, keys))
    of_batch = set(sharding.BATCH_AXES)
    saved = [x for x in residual_shapes
             if not jax.dtypes.issubdtype(x.dtype, jax.dtypes.extended) and x.sharding and any(
               of_batch <= set(axes) for axes in x.sharding.spec.partitions if isinstance(axes, tuple))]
  return program.bytes_per_device(sharding.with_shardings(saved, mesh))
