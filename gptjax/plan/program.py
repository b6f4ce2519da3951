"""The train step as a compiled program, and what it costs each device."""

import functools
import math
import time
from typing import NamedTuple

import jax
import numpy as np

from gptjax.kernels import xla_presets
from gptjax.parallel import sharding
from gptjax.plan import hlo
from gptjax.train import step as train


class Cost(NamedTuple):
  """What a step takes on each device; bytes unless it says otherwise.

  flops: of matrix products, those of rematerialization included, a step.
  collectives: [hlo.Collective] a step.
  params, optimizer, batch: what is at rest there.
  whole: what of params and optimizer every device has all of.
  temporary: the most that the step needs beside them.
  peak: the most that is in use at a time.
  seconds: that compiling took.
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


def step_shapes(config, mesh):
  """(TrainState, batch) of ShapeDtypeStruct, sharded over the mesh: what the step is compiled for."""
  with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
    state = sharding.with_shardings(jax.eval_shape(functools.partial(train.init_state, config)), mesh)
    rows = jax.NamedSharding(mesh, sharding.compute_spec('batch'))
  shape = config.train.batch_size, config.data.seq_len
  return state, dict.fromkeys(('inputs', 'targets'), jax.ShapeDtypeStruct(shape, np.int32, sharding=rows))


def compile_step(config, mesh, **options):
  """The train step of a resolved config, compiled for the mesh; its devices need not be here.

  Args:
    config: resolved; `train.steps` 0 counts as 1 (only the learning rate depends on it).
    mesh: of `sharding.make_mesh`.
    options: compiler options of XLA, beside those of the config's preset.

  Returns:
    `jax.stages.Compiled`: call it with a state and a batch where the devices are here.

  Raises:
    ValueError: the mesh cannot divide the config.
    jax.errors.JaxRuntimeError: among others, RESOURCE_EXHAUSTED where a TPU has not the memory.
  """
  sharding.check(config, mesh)
  state, batch = step_shapes(config, mesh)
  platform = mesh.devices.flat[0].platform.replace('gpu', 'cuda')
  with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
    step = functools.partial(train.train_step, config=config, graphdef=train.graph(config),
                             steps=config.train.steps or 1)
    traced = jax.jit(step, donate_argnums=0).trace(state, batch)
    lowered = traced.lower(lowering_platforms=(platform,))
    return lowered.compile(compiler_options=xla_presets.options(config.xla_preset) | options)


def compile_and_cost(config, mesh, **options):
  """(compiled, Cost) of the step; arguments and errors are those of `compile_step`."""
  began = time.monotonic()
  compiled = compile_step(config, mesh, **options)
  seconds = time.monotonic() - began
  text, memory = compiled.as_text(), compiled.memory_analysis()
  peak = memory.peak_memory_in_bytes
  if mesh.devices.flat[0].platform == 'cpu':  # its peak leaves temporaries out
    peak = (memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
            - memory.alias_size_in_bytes)
  state, batch = step_shapes(config, mesh)
  whole = [x for x in jax.tree.leaves((state.params, state.opt_state)) if x.sharding.is_fully_replicated]
  return compiled, Cost(hlo.flops(text), hlo.collectives(text), bytes_per_device(state.params),
                        bytes_per_device(state.opt_state), bytes_per_device(batch), bytes_per_device(whole),
                        memory.temp_size_in_bytes, peak, seconds)


def bytes_per_device(tree):
  """Bytes of a tree of sharded shapes on each device."""
  return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree))
