"""Learning-rate schedules, gradient clipping, AdamW, Muon and weight decay."""

import functools

import jax
import jax.numpy as jnp
import optax
from optax.contrib import MuonDimensionNumbers, muon


def learning_rate(config, steps, step):
  """Return the learning rate of update `step` (from 0): linear warm-up from 0, then `config.schedule`.

  Args:
    config: `config.optimizer`.
    steps: updates in the whole run, the length of the schedule unless `config.schedule_steps` is set.
    step: int32[] or int.

  Returns:
    float32[].
  """
  steps = config.schedule_steps or steps
  step = jnp.minimum(jnp.asarray(step, jnp.float32), steps)  # after the schedule ends, its last value
  if config.schedule == 'warmup_linear':  # OpenAI's name and formula: the decay begins at step 0
    x, warmup = step / steps, config.warmup_fraction
    return config.learning_rate * jnp.where(x <= warmup, x / max(warmup, 1e-9), 1) * (steps - step) / steps
  warmup, final = config.warmup_steps, config.final_fraction
  # x: fraction of the schedule after warm-up.
  x = jnp.clip((step - warmup) / max(steps - warmup, 1), 0, 1)
  if config.schedule == 'cosine':
    decay = final + (1 - final) * (1 + jnp.cos(jnp.pi * x)) / 2
  elif config.schedule == 'linear':
    decay = 1 - (1 - final) * x
  elif config.schedule == 'wsd':
    decay_steps = max(config.decay_fraction * steps, 1)
    decay = 1 - (1 - final) * jnp.clip((step - (steps - decay_steps)) / decay_steps, 0, 1)
  else:
    decay = 1.0
  return config.learning_rate * jnp.where(step < warmup, step / max(warmup, 1), decay)


def decay_mask(params, declared):
  """Return the mask of weight decay: a tree of bools, True where it applies.

  Args:
    params: nested dict of weights, or a part of it.
    declared: nested dict of their Declarations, see `gptjax.model.parameters`.
  """
  return jax.tree.map_with_path(lambda path, _: _declaration(path, declared).decays, params)


def muon_dimensions(params, declared):
  """Return a tree of MuonDimensionNumbers for the matrices of blocks, None for all other weights."""
  return jax.tree.map_with_path(lambda path, w: _dimensions(_declaration(path, declared), w), params)


def _declaration(path, declared):
  """The Declaration of the weight at a path."""
  for key in path:
    declared = declared[key.key]
  return declared


def _dimensions(declaration, w):
  """MuonDimensionNumbers of a stacked matrix, else None.

  Dimensions that are neither inputs nor outputs (layers; query, key and value) are batch dimensions.
  """
  if not declaration.inputs or w.ndim == len(declaration.axes):
    return None
  stacked = lambda dimensions: tuple(d + 1 for d in dimensions)
  return MuonDimensionNumbers(reduction_axis=stacked(declaration.inputs),
                              output_axis=stacked(declaration.outputs))


def make_optimizer(config, declared):
  """Return an Optax chain of ascent directions: the step multiplies them by -learning_rate.

  Args:
    config: `config.optimizer`.
    declared: nested dict of Declarations (`gptjax.model.parameters.declarations`).
  """
  c, decays = config, functools.partial(decay_mask, declared=declared)
  adam = optax.scale_by_adam(c.b1, c.b2, c.epsilon)
  clip = clip_by_global_norm(c.clip_norm) if c.clip_norm > 0 else optax.identity()
  if c.name == 'openai_adam':
    optimizer = optax.chain(clip, openai_adam(c.b1, c.b2, c.epsilon, c.weight_decay, decays))
  else:
    direction = adam if c.name == 'adamw' else _muon_for_blocks(adam, c.muon_momentum, declared)
    optimizer = optax.chain(clip, direction, optax.add_decayed_weights(c.weight_decay, decays))
  return optimizer if c.embedding_rate == 1 else _faster_embeddings(optimizer, c.embedding_rate, declared)


def clip_by_global_norm(largest):
  """Scale gradients g whose norm is too large: g min(1, largest / |g|), with the norm |g| over all weights.

  Optax divides each gradient by |g|, for which XLA:CPU writes another copy of all; a factor is fused.
  """
  def update(gradients, state, params=None):
    del params
    factor = jnp.minimum(1, largest / optax.tree.norm(gradients))
    return jax.tree.map(lambda g: factor * g, gradients), state
  return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def _faster_embeddings(optimizer, factor, declared):
  """Multiply the updates of embeddings, decay included, by a factor: that of a learning rate of their own."""
  def update(updates, state, params=None):
    updates, state = optimizer.update(updates, state, params)
    scaled = lambda path, u: factor * u if _declaration(path, declared).looked_up else u
    return jax.tree.map_with_path(scaled, updates), state
  return optax.GradientTransformation(optimizer.init, update)


def openai_adam(b1, b2, epsilon, weight_decay, decays):
  """Adam as in the released code of GPT-1's fine-tuning (`opt.py`).

  Unlike optax.adamw it adds epsilon to the square root of the second moment before bias correction, and the
  correction also scales the weight decay.

  Args:
    b1, b2, epsilon, weight_decay: floats.
    decays: function from a tree of weights to a tree of bools, True where weight decay applies.
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
  """Muon for the matrices of blocks, `adam` for all other weights.

  Muon's updates are scaled to the root mean square of AdamW's, 0.2 (Liu et al., "Muon is scalable for LLM
  training", 2.2), so that both use one learning rate and one weight decay.
  """
  dimensions = functools.partial(muon_dimensions, declared=declared)

  def labels(params):
    label = lambda path, w: 'muon' if _dimensions(_declaration(path, declared), w) else 'adam'
    return jax.tree.map_with_path(label, params)

  orthogonalized = muon(learning_rate=-1.0, beta=momentum, consistent_rms=0.2,
                        muon_weight_dimension_numbers=dimensions)
  return optax.partition({'adam': adam, 'muon': _partitioned_by_xla(orthogonalized)}, labels)


def _partitioned_by_xla(transformation):
  """Let XLA choose the shardings inside: Optax's reshapes and X X^T do not specify them."""
  def update(updates, state, params=None):
    shardings = jax.tree.map(lambda x: jax.typeof(x).sharding.spec, (updates, state))
    auto_update = jax.sharding.auto_axes(transformation.update, out_sharding=shardings)
    return auto_update(updates, state, params)
  return optax.GradientTransformation(transformation.init, update)
