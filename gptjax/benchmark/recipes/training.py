"""Trains a config from random weights in this process; configs that differ in rate or seed compile once."""

import functools
import json
import time
from typing import Any, NamedTuple

import jax
import numpy as np

from gptjax.config import resolve as configs
from gptjax.data.corpus import mixture as mixtures
from gptjax.data.corpus import reader
from gptjax.defaults import Plain
from gptjax.parallel import sharding
from gptjax.pretrain.preparation import prepare_corpus
from gptjax.train.step import eval_step, graph, init_state, train_step

TURNS, TURN_STEPS = 5, 10  # of `step_times`


class Programs(NamedTuple):
  """The compiled functions of a config, whatever its rate and seed."""
  mesh: Any
  init: Any      # of seed: TrainState
  step: Any      # of (TrainState, batch, rate): TrainState
  evaluate: Any  # of (weights, batch): (sum of losses, number of targets)


def train(config, workdir):
  """Train for `train.steps`, then compute the held-out loss.

  Batches, weights and steps are those of `gptjax pretrain` with the same config; nothing is saved.

  Args:
    config: unresolved; it is resolved in place. `train.steps` and `eval.steps` are positive.
    workdir: folder of the corpus, unless the config names one; the corpus is prepared if it does not exist.

  Returns:
    {'loss': held-out loss in nats per token}.
  """
  corpus, programs = _prepare(config, workdir)
  with jax.set_mesh(programs.mesh):
    state = _steps(config, corpus, programs, programs.init(config.train.seed), 0, config.train.steps)
    return {'loss': _held_out_loss(config, corpus, programs, state)}


def step_times(runs, workdir):
  """CPU seconds of this process per step of each config, interleaved: in each turn all take some steps.

  CPU time is less affected by other programs on the machine than the time on the clock. On an accelerator it
  says nothing.

  Args:
    runs: list of configs, as for `train`.
    workdir: as for `train`.

  Returns:
    [[seconds per step in each turn] for each config].
  """
  prepared = [(config, *_prepare(config, workdir)) for config in runs]
  states, seconds = [], [[] for _ in runs]
  for config, corpus, programs in prepared:
    with jax.set_mesh(programs.mesh):
      states.append(_steps(config, corpus, programs, programs.init(config.train.seed), 0, 1))
  for turn in range(TURNS):
    for number, (config, corpus, programs) in enumerate(prepared):
      with jax.set_mesh(programs.mesh):
        start, first = time.process_time(), 1 + turn * TURN_STEPS
        states[number] = _steps(config, corpus, programs, states[number], first, first + TURN_STEPS)
        seconds[number].append((time.process_time() - start) / TURN_STEPS)
  return seconds


def _prepare(config, workdir):
  """(corpus, Programs) of a config, which is resolved in place."""
  configs.check_fields(config)
  configs.resolve(config, workdir)
  configs.check(config)
  prepare_corpus(config, workdir)
  return _opened(config.data.corpus), _programs(_plain_text(config))


def _steps(config, corpus, programs, state, first, end):
  """The state after the steps first, first + 1, ..., end - 1, which are complete."""
  for step in range(first, end):
    batch = sharding.shard_batch(_batch(config, corpus, step), programs.mesh)
    state = jax.block_until_ready(programs.step(state, batch, config.optimizer.learning_rate))
  return state


def _batch(config, corpus, step):
  """The batch of a step, as `gptjax.pretrain.loop` reads it."""
  c = config
  return reader.batch(corpus.train, corpus.weights, c.train.seed, step, c.train.batch_size, c.data.seq_len,
                      c.data.cross_documents, shift=c.data.shift_windows)


def _held_out_loss(config, corpus, programs, state):
  """The mean loss of the first `eval.steps` batches of the validation split, in nats per token."""
  held_out, rows, length = corpus.held_out[0], config.eval.batch_size, config.data.seq_len
  batches = min(config.eval.steps, reader.n_eval_batches(held_out, rows, length))
  sums = [jax.device_get(programs.evaluate(state.params, sharding.shard_batch(
    reader.eval_batch(held_out, number, rows, length), programs.mesh))) for number in range(batches)]
  total, count = np.sum(sums, axis=0, dtype=np.float64)
  return float(total / count)


@functools.lru_cache
def _opened(folder):
  """The mixture of one corpus."""
  return mixtures.open_mixture([folder], [1.0], verify=True)


def _plain_text(config):
  """JSON of a config without rate and seed, which are arguments of the programs."""
  fields = json.loads(config.to_json(sort_keys=True))
  del fields['optimizer']['learning_rate'], fields['train']['seed']
  return json.dumps(fields, sort_keys=True)


@functools.lru_cache(maxsize=4)
def _programs(text):
  """Programs of a resolved config, of `_plain_text`."""
  def config_with(rate, seed):
    config = json.loads(text, object_hook=lambda fields: Plain(**fields))
    config.optimizer.learning_rate, config.train.seed = rate, seed
    return config

  config = config_with(0.0, 0)
  mesh = sharding.make_mesh(config.mesh)
  with jax.set_mesh(mesh):
    graphdef = graph(config)

  def step(state, batch, rate):
    return train_step(state, batch, config=config_with(rate, 0), graphdef=graphdef,
                      steps=config.train.steps)[0]

  evaluate = functools.partial(eval_step, config=config, graphdef=graphdef)
  return Programs(mesh, jax.jit(lambda seed: init_state(config_with(0.0, seed))),
                  jax.jit(step, donate_argnums=0), jax.jit(evaluate))
