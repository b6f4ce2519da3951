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

IN_FLIGHT = 2  # steps between which the host waits


class Programs(NamedTuple):
  """The compiled functions of a config, whatever its rate and seed."""
  mesh: Any
  init: Any      # of seed: TrainState
  step: Any      # of (TrainState, batch, rate): (TrainState, loss)
  evaluate: Any  # of (weights, batch): (sum of losses, number of targets)


def train(config, workdir):
  """Train for `train.steps`, then compute the held-out loss.

  Batches, weights and steps are those of `gptjax pretrain` with the same config; nothing is saved.

  Args:
    config: unresolved; it is resolved in place. `train.steps` and `eval.steps` are positive.
    workdir: folder of the corpus, unless the config names one; the corpus is prepared if it does not exist.

  Returns:
    {'loss': held-out loss in nats per token, 'seconds': of all steps but the first, per step, 'processor':
    the same in CPU seconds of this process}.
  """
  configs.check_fields(config)
  configs.resolve(config, workdir)
  configs.check(config)
  prepare_corpus(config, workdir)
  corpus = _opened(config.data.corpus)
  programs = _programs(_plain_text(config))
  with jax.set_mesh(programs.mesh):
    state, rate = programs.init(config.train.seed), config.optimizer.learning_rate
    losses, started = [], None
    for step in range(config.train.steps):
      batch = sharding.shard_batch(_batch(config, corpus, step), programs.mesh)
      state, loss = programs.step(state, batch, rate)
      losses.append(loss)
      jax.block_until_ready(losses[-IN_FLIGHT:][0])
      started = started or (jax.block_until_ready(loss), time.perf_counter(), time.process_time())
    jax.block_until_ready(state)
    seconds, processor = time.perf_counter() - started[1], time.process_time() - started[2]
    steps = max(config.train.steps - 1, 1)
    return {'loss': _held_out_loss(config, corpus, programs, state), 'seconds': seconds / steps,
            'processor': processor / steps}


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
    state, metrics = train_step(state, batch, config=config_with(rate, 0), graphdef=graphdef,
                                steps=config.train.steps)
    return state, metrics['loss']

  evaluate = functools.partial(eval_step, config=config, graphdef=graphdef)
  return Programs(mesh, jax.jit(lambda seed: init_state(config_with(0.0, seed))),
                  jax.jit(step, donate_argnums=0), jax.jit(evaluate))
