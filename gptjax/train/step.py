"""The training state, the step as a pure function of it, and evaluation."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from gptjax.model.compute import gathered_once, in_dtype, stacked, unrolled
from gptjax.model.keys import named
from gptjax.model.lstm import language_model
from gptjax.model.parameters import declarations, gathered
from gptjax.parallel import sharding
from gptjax.train.loss import next_token_loss
from gptjax.train.optimizer import learning_rate, make_optimizer

MEMORY = 0.9  # of the running mean of the loss, a step: it looks back some ten steps


class TrainState(NamedTuple):
  """All that changes from step to step; everything else is config.

  step: int32[], updates tried so far, and the number of the batch that comes next.
  skipped: int32[], steps in a row, up to the last one, that were not finite and changed nothing.
  usual_loss: float32[], running mean of the losses of finite steps, by which a spike is told; at first inf.
  params: nested dict of float32 weights under OpenAI's names.
  opt_state: Optax's.
  """
  step: jax.Array
  skipped: jax.Array
  usual_loss: jax.Array
  params: Any
  opt_state: Any


def init_state(config):
  """A fresh state, drawn from `train.seed`; call it under `jax.set_mesh`, best inside `jax.jit`."""
  model = language_model(jax.random.key(config.train.seed), config)
  return first_state(config, nnx.to_pure_dict(nnx.state(model)))


def first_state(config, params):
  """The state before the first step, with these weights."""
  declared = declarations(nnx.merge(graph(config), params))
  opt_state, zero = make_optimizer(config.optimizer, declared).init(params), lambda: jnp.zeros((), jnp.int32)
  return TrainState(zero(), zero(), jnp.full((), jnp.inf, jnp.float32), params, opt_state)


def graph(config):
  """The model without its weights: `nnx.merge(graph(config), params)` is a GPT."""
  return nnx.graphdef(nnx.eval_shape(lambda: language_model(jax.random.key(0), config)))


def dropout_keys(config, step):
  """key[batch_size], one a sequence: from seed, step and row alone; None without dropout."""
  return sequence_keys(config.train, config.train.seed, step) if config.model.dropout else None


def sequence_keys(config, seed, step):
  """key[batch_size], one for each place in the batch of a step.

  Args:
    config: `config.train`; `batch_size` and `dropout_branch` are read.
    seed: int or int32[].
    step: int32[].
  """
  rows = jnp.arange(config.batch_size, out_sharding=sharding.compute_spec('batch'))
  # Weights are drawn from the seed itself, so dropout takes a branch of its own.
  key = jax.random.key(seed)
  branch = named(key, 'dropout') if config.dropout_branch == 'named' else jax.random.fold_in(key, 1)
  key = jax.random.fold_in(branch, step)
  return jax.vmap(jax.random.fold_in, (None, 0))(key, rows)


def microbatches(tree, n):
  """Cuts arrays [batch, ...] into n parts [n, batch / n, ...], every device keeping its own rows."""
  def cut(x):
    spec = jax.typeof(x).sharding.spec
    x = jax.lax.reshape(x, (x.shape[0] // n, n, *x.shape[1:]),
                        out_sharding=jax.P(spec[0], None, *spec[1:]))
    return jnp.moveaxis(x, 1, 0)
  return jax.tree.map(cut, tree)


def loss_and_grads(params, batch, keys, config, graphdef):
  """Mean loss over all counted targets of the batch, and its gradient.

  On each device, gradients of a microbatch have the dtype that the weight computes in, and so has their
  reduce-scatter over `fsdp`. They are summed over microbatches, `replica` and `data` in float32.

  Args:
    params: float32 weights.
    batch: {'inputs': int32[b, t], 'targets': int32[b, t]}, negative targets not counted.
    keys: key[b] for dropout, or None.

  Returns:
    (float32[] in nats a token, float32 tree like params).
  """
  count = jnp.maximum((batch['targets'] >= 0).sum(dtype=jnp.float32), 1)

  def loss(model, batch, keys):
    model = gathered_once(model)
    x = model.features(batch['inputs'], keys)
    total, _ = next_token_loss(x, gathered(model.unembedding), batch['targets'], model.n_vocab,
                               config.loss.chunk)
    return total / count

  # One cast, and where layers are unrolled one cut, a step and not a microbatch.
  model = in_dtype(nnx.merge(graphdef, params), config.model.compute_dtype)
  model = sharding.defer_grad_sum(model if config.model.scan else unrolled(model))
  value_and_grad = jax.value_and_grad(loss)
  n = config.train.batch_size // config.train.microbatch_size
  if n == 1:
    value, grads = value_and_grad(model, batch, keys)
    grads = jax.tree.map(lambda g: g.astype(jnp.float32), grads)
  else:
    def accumulate(total, part):
      result = value_and_grad(model, *part)
      return jax.tree.map(lambda t, x: t + x.astype(t.dtype), total, result), None

    zeros = jax.tree.map(lambda x: sharding.zero_gradient(x, jnp.float32), (count, model))
    (value, grads), _ = jax.lax.scan(accumulate, zeros, microbatches((batch, keys), n))
  grads = nnx.to_pure_dict(nnx.state(stacked(sharding.finish_grad_sum(grads))))
  return value, jax.tree.map(lambda g, w: g.astype(w.dtype), grads, params)


def train_step(state, batch, *, config, graphdef, steps):
  """One update; a pure function of its arguments.

  A step whose loss or gradient norm is not finite leaves weights and optimizer state bit for bit as
  they were; it only counts.

  Args:
    state: TrainState.
    batch: {'inputs': int32[batch_size, t], 'targets': the same}.
    config: the resolved config.
    graphdef: `graph(config)`.
    steps: updates in the whole run (the schedule's length).

  Returns:
    (TrainState, {'loss', 'usual_loss' (before this step), 'grad_norm', 'learning_rate', 'skipped': scalars}).
  """
  keys = dropout_keys(config, state.step)
  loss, grads = loss_and_grads(state.params, batch, keys, config, graphdef)
  norm = optax.tree.norm(grads)
  rate = learning_rate(config.optimizer, steps, state.step)
  optimizer = make_optimizer(config.optimizer, declarations(nnx.merge(graphdef, state.params)))
  updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
  params = jax.tree.map(lambda w, u: w - rate * u, state.params, updates)

  finite = jnp.isfinite(loss) & jnp.isfinite(norm)
  keep = lambda new, old: jax.tree.map(lambda n, o: jnp.where(finite, n, o), new, old)
  skipped = jnp.where(finite, 0, state.skipped + 1)
  usual = state.usual_loss
  usual_now = jnp.where(jnp.isinf(usual), loss, MEMORY * usual + (1 - MEMORY) * loss)
  new = TrainState(state.step + 1, skipped, keep(usual_now, usual), keep(params, state.params),
                   keep(opt_state, state.opt_state))
  return new, {'loss': loss, 'usual_loss': usual, 'grad_norm': norm, 'learning_rate': rate,
               'skipped': skipped}


def eval_step(params, batch, *, config, graphdef):
  """Sum of losses over the counted targets of a batch, without dropout, and their number."""
  model = in_dtype(nnx.merge(graphdef, params), config.model.compute_dtype)
  return next_token_loss(model.features(batch['inputs']), gathered(model.unembedding),
                         batch['targets'], model.n_vocab, config.loss.chunk)
