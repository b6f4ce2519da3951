"""What turns gradients into updates: schedule, clipping, AdamW or Muon, decay on matrices alone."""

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import GetAttrKey, keystr
from optax.contrib import MuonDimensionNumbers, muon

# The last part of each weight's name. Not its rank: biases of stacked layers have two dimensions too.
MATRICES = ('w', 'wte', 'wpe', 'lm_head', 'kernel', 'lora_a', 'lora_b')
VECTORS = ('b', 'g', 'bias')

# Which dimensions of a stacked weight are summed over, and which are outputs; the others (layers,
# and the query, key and value of c_attn) are matrices of their own.
MUON_DIMENSIONS = {
  ('attn', 'c_attn', 'w'): MuonDimensionNumbers(reduction_axis=(1,), output_axis=(3, 4)),
  ('attn', 'c_proj', 'w'): MuonDimensionNumbers(reduction_axis=(1, 2), output_axis=(3,)),
  ('mlp', 'c_fc', 'w'): MuonDimensionNumbers(reduction_axis=(1,), output_axis=(2,)),
  ('mlp', 'c_proj', 'w'): MuonDimensionNumbers(reduction_axis=(1,), output_axis=(2,)),
}


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


def decayed(params):
  """True for `MATRICES`, False for `VECTORS`.

  Args:
    params: nested dict of weights, or a module.

  Raises:
    ValueError: a weight is neither.
  """
  return jax.tree.map_with_path(lambda path, _: _is_matrix(_names(path)), params)


def _names(path):
  """Names in a path of `jax.tree`, whether of dicts or of modules, where it ends with the Param's `value`."""
  if path[-1] == GetAttrKey('value'):
    path = path[:-1]
  return tuple(keystr(path, simple=True, separator='/').split('/'))


def _is_matrix(names):
  if names[-1] not in MATRICES + VECTORS:
    raise ValueError(f'{"/".join(names)} is neither in optimizer.MATRICES nor in optimizer.VECTORS: add it')
  return names[-1] in MATRICES


def _dimensions(path):
  """MuonDimensionNumbers of a matrix of the blocks, None for all other weights and for LoRA's factors."""
  names = _names(path)
  if not _is_matrix(names) or 'h' not in names or 'lora' in names:
    return None
  if names[-3:] not in MUON_DIMENSIONS:
    raise ValueError(f'{"/".join(names)} is a matrix of the blocks, but not in optimizer.MUON_DIMENSIONS: '
                     'add it')
  return MUON_DIMENSIONS[names[-3:]]


def muon_dimensions(params):
  """Tree of MuonDimensionNumbers for the matrices of the blocks, None for all other weights."""
  return jax.tree.map_with_path(lambda path, _: _dimensions(path), params)


def make_optimizer(config):
  """An Optax chain that gives updates before they are scaled by minus the learning rate.

  Args:
    config: `config.optimizer`.
  """
  c = config
  adam = optax.scale_by_adam(c.b1, c.b2, c.epsilon)
  clip = optax.clip_by_global_norm(c.clip_norm) if c.clip_norm > 0 else optax.identity()
  if c.name == 'openai_adam':
    return optax.chain(clip, openai_adam(c.b1, c.b2, c.epsilon, c.weight_decay))
  direction = adam if c.name == 'adamw' else _muon_for_blocks(adam, c.muon_momentum)
  return optax.chain(clip, direction, optax.add_decayed_weights(c.weight_decay, decayed))


def openai_adam(b1, b2, epsilon, weight_decay):
  """Adam as in the released code of GPT-1's fine-tuning (`opt.py`).

  Unlike optax.adamw it adds epsilon to the root of the second moment before that is corrected for its bias,
  and the correction scales the decay too.
  """
  def init(params):
    zeros = jax.tree.map(jnp.zeros_like, params)
    return optax.ScaleByAdamState(jnp.zeros((), jnp.int32), zeros, zeros)

  def update(gradients, state, params):
    t = state.count + 1
    mu = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mu, gradients)
    nu = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, state.nu, gradients)
    corrected = jnp.sqrt(1 - b2 ** t.astype(jnp.float32)) / (1 - b1 ** t.astype(jnp.float32))
    def one(m, v, w, decays):
      return corrected * (m / (jnp.sqrt(v) + epsilon) + (weight_decay * w if decays else 0))
    return jax.tree.map(one, mu, nu, params, decayed(params)), optax.ScaleByAdamState(t, mu, nu)

  return optax.GradientTransformation(init, update)


def _muon_for_blocks(adam, momentum):
  """Orthogonalized momentum for the matrices of the blocks, `adam` for the rest.

  Muon's updates get the root mean square that AdamW's have, 0.2 (Liu et al., "Muon is scalable for
  LLM training", 2.2), so that one learning rate and one decay serve both.
  """
  def labels(params):
    known = lambda path, _: 'muon' if _dimensions(path) else 'adam'
    return jax.tree.map_with_path(known, params)
  orthogonalized = muon(learning_rate=-1.0, beta=momentum, consistent_rms=0.2,
                        muon_weight_dimension_numbers=muon_dimensions)
  return optax.partition({'adam': adam, 'muon': _partitioned_by_xla(orthogonalized)}, labels)


def _partitioned_by_xla(transformation):
  """Lets XLA choose shardings inside: Optax's reshapes and X X^T name none."""
  def update(updates, state, params=None):
    shardings = jax.tree.map(lambda x: jax.typeof(x).sharding.spec, (updates, state))
    inside = jax.sharding.auto_axes(transformation.update, out_sharding=shardings)
    return inside(updates, state, params)
  return optax.GradientTransformation(transformation.init, update)
