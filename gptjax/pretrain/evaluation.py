"""The held-out loss of a pretraining run."""

import functools

import jax
import numpy as np

from gptjax.data.corpus import reader
from gptjax.parallel import sharding
from gptjax.train.step import eval_step


class Evaluation:
  """Computes the held-out loss; compiled once, called many times."""

  def __init__(self, run):
    self.run = run
    self.step = jax.jit(functools.partial(eval_step, config=run.config, graphdef=run.graphdef))

  def __call__(self, params):
    """Return {corpus name: mean loss in nats per token}; None if a stop is requested meanwhile."""
    run, config, data = self.run, self.run.config, self.run.config.data
    rows = sharding.local_rows(config.eval.batch_size, run.mesh)
    losses = {}
    for name, corpus in zip(run.mixture.names, run.mixture.held_out, strict=True):
      if not corpus:
        continue
      n = reader.n_eval_batches(corpus, config.eval.batch_size, data.seq_len)
      sums = []
      for i in range(min(n, config.eval.steps) if config.eval.steps else n):
        if run.stop.requested():
          return None
        batch = reader.eval_batch(corpus, i, config.eval.batch_size, data.seq_len, rows, data.packing,
                                  data.restart_positions)
        sums.append(self.step(params, sharding.shard_batch(batch, run.mesh)))
        jax.block_until_ready(sums[-2:-1])  # limits the batches in flight, so that the watchdog sees progress
        run.watchdog.progress()
      total, count = np.sum(jax.device_get(sums), axis=0, dtype=np.float64)
      losses[name] = float(total / count)
    return losses
