"""Adam and the schedule of the released fine-tuning code, compared with its equations in NumPy."""

import jax.numpy as jnp
import numpy as np
from conftest import tiny_config

from gptjax.model.parameters import Declaration
from gptjax.train import optimizer


def test_adam_is_that_of_the_released_code():
  config = tiny_config(**{'optimizer.name': 'openai_adam', 'optimizer.weight_decay': 0.1,
                          'optimizer.clip_norm': 0.0, 'optimizer.epsilon': 1e-3}).optimizer
  rng = np.random.default_rng(0)
  params = {'clf': {'w': rng.normal(size=(3, 2)), 'b': rng.normal(size=2)}}
  moments = {name: (0 * w, 0 * w) for name, w in params['clf'].items()}
  declared = {'clf': {'w': Declaration(('embed', None)), 'b': Declaration((None,), decays=False)}}
  transform = optimizer.make_optimizer(config, declared)
  ours = {'clf': {name: jnp.asarray(w, jnp.float32) for name, w in params['clf'].items()}}
  state = transform.init(ours)
  for t in range(1, 6):
    grads = {name: rng.normal(size=w.shape) for name, w in params['clf'].items()}
    lr_t = 0.01 * np.sqrt(1 - config.b2 ** t) / (1 - config.b1 ** t)
    for name, w in params['clf'].items():
      m, v = moments[name]
      m, v = config.b1 * m + (1 - config.b1) * grads[name], config.b2 * v + (1 - config.b2) * grads[name] ** 2
      moments[name] = m, v
      decay = lr_t * 0.1 * w if name == 'w' else 0
      params['clf'][name] = w - lr_t * m / (np.sqrt(v) + 1e-3) - decay
    grads = {'clf': {name: jnp.asarray(g, jnp.float32) for name, g in grads.items()}}
    updates, state = transform.update(grads, state, ours)
    ours = {'clf': {name: w - 0.01 * updates['clf'][name] for name, w in ours['clf'].items()}}
  for name, w in params['clf'].items():
    np.testing.assert_allclose(ours['clf'][name], w, rtol=1e-5)


def test_the_schedule_is_that_of_the_released_code():
  config = tiny_config(**{'optimizer.schedule': 'warmup_linear', 'optimizer.learning_rate': 0.5}).optimizer
  total = 5000
  def warmup_linear(x, warmup=0.002):
    return (x / warmup if x <= warmup else 1) * (1 - x)
  for t in (0, 1, 5, 10, 11, 2500, 4999):
    rate = optimizer.learning_rate(config, total, t)
    np.testing.assert_allclose(rate, 0.5 * warmup_linear(t / total), rtol=1e-5)
