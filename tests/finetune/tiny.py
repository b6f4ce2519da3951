"""Tiny configs, batches and states for the fine-tuning tests."""

import functools

import jax
import numpy as np
from conftest import tiny_config

from gptjax.finetune import step, weights
from gptjax.finetune.model import Classifier  # noqa: F401 (for tests)

N_TASK_TOKENS = 3


def config_of(**changes):
  """A resolved config of a tiny classifier, with task tokens counted; dropout off by default."""
  changes = {'finetune.tasks': ('sst2',), 'finetune.head_dropout': 0.0, 'model.norm': 'after',
             'optimizer.name': 'openai_adam', 'optimizer.learning_rate': 0.01, **changes}
  config = tiny_config(**changes)
  config.job = 'finetune'
  return weights.with_task_tokens(config)


def batch_of(config, g=1, width=24, seed=0, labels=3, empty=1):
  """A random batch with g sequences per example; the last rows are empty."""
  rng = np.random.default_rng(seed)
  b = config.train.batch_size
  lengths = rng.integers(4, min(width, 20) + 1, (b, g)).astype(np.int32)
  tokens = rng.integers(0, config.model.n_vocab - N_TASK_TOKENS, (b, g, width)).astype(np.int32)
  tokens[..., 0] = config.model.n_vocab - 3
  for row in range(b):
    for k in range(g):
      tokens[row, k, lengths[row, k] - 1] = config.model.n_vocab - 1
      tokens[row, k, lengths[row, k]:] = 0
  weight = np.ones(b, np.float32)
  if empty:
    weight[-empty:], lengths[-empty:] = 0, 1
  return {'tokens': tokens, 'lengths': lengths, 'weights': weight,
          'labels': rng.integers(0, labels, b).astype(np.float32)}


def finetune_state(config, kind='classification', outputs=3, mesh=None):
  """A fresh state; call it under a mesh."""
  return weights.init_state(config, kind, outputs, None, mesh)


def grads_of(config, kind, outputs, batch, *, keys=None, is_regression=False, state=None):
  """((L3, L2, L1), gradients) as NumPy arrays."""
  graphdef = step.graph(config, kind, outputs)
  state = state or finetune_state(config, kind, outputs)
  f = functools.partial(step.loss_and_grads, config=config, graphdef=graphdef, is_regression=is_regression)
  return jax.device_get(jax.jit(f)(state, batch, keys))
