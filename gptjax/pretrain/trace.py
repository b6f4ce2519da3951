"""The train step traced for the shapes of a config, which needs neither weights nor a batch.

So a run compiles its step while the initial state is computed or restored, and `gptjax plan` compiles the
same program for devices that are not there.
"""

import functools

import jax
import numpy as np

from gptjax.data.corpus.packing import array_names
from gptjax.parallel import sharding
from gptjax.train import step as train


def step_shapes(config, mesh):
  """Return (TrainState, batch) of ShapeDtypeStruct, sharded over the mesh: arguments of the train step."""
  with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
    state = sharding.with_shardings(jax.eval_shape(functools.partial(train.init_state, config)), mesh)
    rows = jax.NamedSharding(mesh, sharding.compute_spec('batch'))
  array = jax.ShapeDtypeStruct((config.train.batch_size, config.data.seq_len), np.int32, sharding=rows)
  return state, dict.fromkeys(array_names(config.data), array)


def trace_step(config, mesh, steps, shapes):
  """Trace the train step for a mesh, whose devices need not be present; it donates the state.

  Args:
    config: resolved.
    mesh: of `sharding.make_mesh`.
    steps: updates in the whole run, see `train_step`.
    shapes: result of `step_shapes`.

  Returns:
    `jax.stages.Traced`; lowered and compiled, it is a function of (state, batch).
  """
  with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
    step = functools.partial(train.train_step, config=config, graphdef=train.graph(config), steps=steps)
    return jax.jit(step, donate_argnums=0).trace(*shapes)
