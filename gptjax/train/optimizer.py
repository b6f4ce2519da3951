"""What turns gradients into updates: schedule, clipping, AdamW or Muon, decay on matrices alone."""

import functools

import jax
import jax.numpy as jnp
import optax
from optax.contrib import MuonDimensionNumbers, muon


def learning_rate(config, steps, step):
  """Rate of update `step` (from 0) of a run of `steps`: warm-up from 0, then the named schedule.

  Args:
    config: `config.optimizer`.
    steps: updates in the whole run; the schedule is as long, unless `config.schedule_steps` says otherwise.
    step: int32[] or int.

  Returns:
    float32[].
  """
  steps = config.schedule_steps or steps
  step = jnp.minimum(jnp.asarray(step, jnp.float32), steps)  # after the schedule: its last rate
  if config.schedule == 'warmup_linear':  # OpenAI's name and form: the fall begins with the first step
    x, warmup = step / steps, config.warmup_fraction
    return config.learning_rate * jnp.where(x <= warmup, x / max(warmup, 1e-9), 1) * (steps - step) / steps
  warmup, final = config.warmup_steps, config.final_fraction
  # x: share of the way from the end of the warm-up to the end of the run.
  x = jnp.clip((step - warmup) / max(steps - warmup, 1), 0, 1)
  if config.schedule == 'cosine':
    fall = final + (1 - final) * (1 + jnp.cos(jnp.pi * x)) / 2
  elif config.schedule == 'linear':
    fall = 1 - (1 - final) * x
  elif config.schedule == 'wsd':
    decay_steps = max(config.decay_fraction * steps, 1)
    fall = 1 - (1 - final) * jnp.clip((step - (steps - decay_steps)) / decay_steps, 0, 1)
  else:
    fall = 1.0
  return config.learning_rate * jnp.where(step < warmup, step / max(warmup, 1), fall)


def decayed(params, declared):
  """True for each weight that weight decay applies to.

  Args:
    params: nested dict of weights, or of some of them.
    declared: nested dict of their Declarations, see `gptjax.model.parameters`.
  """
  return jax.tree.map_with_path(lambda path, _: _facts(path, declared).decays, params)


def muon_dimensions(params, declared):
  """Tree of MuonDimensionNumbers for the matrices of the blocks, None for all other weights."""
  return jax.tree.map_with_path(lambda path, w: _dimensions(_facts(path, declared), w), params)


def _facts(path, declared):
  for key in path:
    declared = declared[key.key]
  return declared


def _dimensions(facts, w):
  """MuonDimensionNumbers of a stacked matrix; None for a weight that is not stacked, or no matrix.

  Dimensions that are neither inputs nor outputs (layers; query, key and value) number separate matrices.
  """
  if not facts.inputs or w.ndim == len(facts.axes):
    return None
  stacked = lambda dimensions: tuple(d + 1 for d in dimensions)
  return MuonDimensionNumbers(reduction_axis=stacked(facts.inputs), output_axis=stacked(facts.outputs))


def make_optimizer(config, declared):
  """An Optax chain that returns ascent directions: the step multiplies them by minus the learning rate.

  Args:
    config: `config.optimizer`.
    declared: nested dict of the weights' Declarations (`gptjax.model.parameters.declarations`).
  """
  c, decays = config, functools.partial(decayed, declared=declared)
  adam = optax.scale_by_adam(c.b1, c.b2, c.epsilon)
  clip = optax.clip_by_global_norm(c.clip_norm) if c.clip_norm > 0 else optax.identity()
  if c.name == 'openai_adam':
    return optax.chain(clip, openai_adam(c.b1, c.b2, c.epsilon, c.weight_decay, decays))
  direction = adam if c.name == 'adamw' else _muon_for_blocks(adam, c.muon_momentum, declared)
  return optax.chain(clip, direction, optax.add_decayed_weights(c.weight_decay, decays))


def openai_adam(b1, b2, epsilon, weight_decay, decays):
  """Adam as in the released code of GPT-1's fine-tuning (`opt.py`).

  Unlike optax.adamw it adds epsilon to the root of the second moment before that is corrected for its bias,
  and the correction scales the decay too.

  Args:
    b1, b2, epsilon, weight_decay: floats.
    decays: function from a tree of weights to one of bools, which of them decay.
  """
  def init(params):
    zeros = jax.tree.map(jnp.zeros_like, params)
    return optax.ScaleByAdamState(jnp.zeros((), jnp.int32), zeros, zeros)

  def update(gradients, state, params):
    t = state.count + 1
    mu = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mu, gradients)
    nu = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, state.nu, gradients)
    corrected = jnp.sqrt(1 - b2 ** t.astype(jnp.float32)) / (1 - b1 ** t.astype(jnp.float32))
    def direction(m, v, w, decay):
      return corrected * (m / (jnp.sqrt(v) + epsilon) + (weight_decay * w if decay else 0))
    return jax.tree.map(direction, mu, nu, params, decays(params)), optax.ScaleByAdamState(t, mu, nu)

  return optax.GradientTransformation(init, update)


def _muon_for_blocks(adam, momentum, declared):
  """Orthogonalized momentum for the matrices of the blocks, `adam` for the rest.

  Muon's updates get the root mean square that AdamW's have, 0.2 (Liu et al., "Muon is scalable for
  LLM training", 2.2), so that one learning rate and one decay serve both.
  """
  dimensions = functools.partial(muon_dimensions, declared=declared)

  def labels(params):
    one = lambda path, w: 'muon' if _dimensions(_facts(path, declared), w) else 'adam'
    return jax.tree.map_with_path(one, params)

  orthogonalized = muon(learning_rate=-1.0, beta=momentum, consistent_rms=0.2,
                        muon_weight_dimension_numbers=dimensions)
  return optax.partition({'adam': adam, 'muon': _partitioned_by_xla(orthogonalized)}, labels)


def _partitioned_by_xla(transformation):
  """Lets XLA choose shardings inside: Optax's reshapes and X X^T name none."""
  def update(updates, state, params=None):
    shardings = jax.tree.map(lambda x: jax.typeof(x).sharding.spec, (updates, state))
    inside = jax.sharding.auto_axes(transformation.update, out_sharding=shardings)
    return inside(updates, state, params)
  return optax.GradientTransformation(transformation.init, update)
