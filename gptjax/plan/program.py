"""The compiled train step and its cost per device."""

import math
import time
from typing import NamedTuple

import jax

from gptjax.kernels import xla_presets
from gptjax.parallel import sharding
from gptjax.plan import hlo
from gptjax.pretrain.trace import step_shapes, trace_step


class Cost(NamedTuple):
  """The cost of a step per device, in bytes unless noted.

  flops: floating-point operations of matmuls, including rematerialization.
  collectives: [hlo.Collective] of a step.
  params, optimizer, batch: sizes of the inputs of the step.
  replicated: the part of params and optimizer that every device has completely.
  temporary: maximum of additional memory.
  peak: maximum of memory in use.
  seconds: duration of the compilation.
  """
  flops: int
  collectives: list
  params: int
  optimizer: int
  batch: int
  replicated: int
  temporary: int
  peak: int
  seconds: float


def compile_step(config, mesh, **options):
  """Compile the train step of a resolved config for a mesh, whose devices need not be present.

  Args:
    config: resolved; `train.steps` 0 counts as 1 (only the learning rate depends on it).
    mesh: of `sharding.make_mesh`.
    options: XLA compiler options, in addition to those of the config's preset.

  Returns:
    `jax.stages.Compiled`: call it with a state and a batch if the devices are present.

  Raises:
    ValueError: the config cannot be divided by the mesh.
    jax.errors.JaxRuntimeError: among others, RESOURCE_EXHAUSTED if a TPU has too little memory.
  """
  sharding.check(config, mesh)
  platform = mesh.devices.flat[0].platform
  traced = trace_step(config, mesh, config.train.steps or 1, step_shapes(config, mesh))
  with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
    lowered = traced.lower(lowering_platforms=(platform.replace('gpu', 'cuda'),))
    return lowered.compile(compiler_options=xla_presets.options(config.xla_preset, platform) | options)


def compile_and_cost(config, mesh, **options):
  """Return (compiled step, Cost); arguments and errors are those of `compile_step`."""
  began = time.monotonic()
  compiled = compile_step(config, mesh, **options)
  seconds = time.monotonic() - began
  text, memory = compiled.as_text(), compiled.memory_analysis()
  peak = memory.peak_memory_in_bytes
  if mesh.devices.flat[0].platform == 'cpu':  # its peak does not include temporaries
    peak = (memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
            - memory.alias_size_in_bytes)
  state, batch = step_shapes(config, mesh)
  whole = [x for x in jax.tree.leaves((state.params, state.opt_state)) if x.sharding.is_fully_replicated]
  return compiled, Cost(hlo.flops(text), hlo.collectives(text), bytes_per_device(state.params),
                        bytes_per_device(state.opt_state), bytes_per_device(batch), bytes_per_device(whole),
                        memory.temp_size_in_bytes, peak, seconds)


def bytes_per_device(tree):
  """Bytes per device of a tree of sharded shapes."""
  return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree))
