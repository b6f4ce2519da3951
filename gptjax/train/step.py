"""The training state, the step as a pure function of it, and evaluation."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from gptjax.model.compute import drop_embeddings, gathered_once, in_dtype, stacked, unrolled
from gptjax.model.keys import named
from gptjax.model.lstm import language_model
from gptjax.model.parameters import declarations, gathered
from gptjax.parallel import sharding
from gptjax.train.loss import next_token_loss
from gptjax.train.optimizer import learning_rate, make_optimizer

LOSS_EMA = 0.9  # decay per step of the running mean of the loss; it averages about ten steps


class TrainState(NamedTuple):
  """Everything that a step changes.

  step: int32[], number of updates so far, skipped ones included; the index of the next batch.
  skipped: int32[], number of consecutive steps up to the last one that were skipped because they were not
    finite.
  loss_ema: float32[], exponential moving average of the losses of finite steps, to detect loss spikes;
    initially inf.
  params: nested dict of float32 weights under OpenAI's names.
  opt_state: Optax's.
  """
  step: jax.Array
  skipped: jax.Array
  loss_ema: jax.Array
  params: Any
  opt_state: Any


def init_state(config):
  """Return the initial state, drawn from `train.seed`.

  Call it under `jax.set_mesh`, best inside `jax.jit`.
  """
  model = language_model(jax.random.key(config.train.seed), config)
  return first_state(config, nnx.to_pure_dict(nnx.state(model)))


def first_state(config, params):
  """Return the state before the first step with these weights."""
  declared = declarations(nnx.merge(graph(config), params))
  opt_state, zero = make_optimizer(config.optimizer, declared).init(params), lambda: jnp.zeros((), jnp.int32)
  return TrainState(zero(), zero(), jnp.full((), jnp.inf, jnp.float32), params, opt_state)


def graph(config):
  """Return the model without its weights: `nnx.merge(graph(config), params)` is a GPT."""
  return nnx.graphdef(nnx.eval_shape(lambda: language_model(jax.random.key(0), config)))


def dropout_keys(config, step):
  """key[batch_size], one PRNG key per sequence, a function of seed, step and row; None without dropout."""
  return sequence_keys(config.train, config.train.seed, step) if config.model.dropout else None


def sequence_keys(config, seed, step):
  """key[batch_size], one PRNG key per row of the batch of a step.

  Args:
    config: `config.train`; `batch_size` and `dropout_branch` are read.
    seed: int or int32[].
    step: int32[].
  """
  rows = jnp.arange(config.batch_size, out_sharding=sharding.compute_spec('batch'))
  # Weights are drawn from the seed's key itself, so dropout has its own branch.
  key = jax.random.key(seed)
  branch = named(key, 'dropout') if config.dropout_branch == 'named' else jax.random.fold_in(key, 1)
  key = jax.random.fold_in(branch, step)
  return jax.vmap(jax.random.fold_in, (None, 0))(key, rows)


def microbatches(tree, n):
  """Split arrays [batch, ...] into n microbatches [n, batch / n, ...]; rows stay on their devices."""
  def cut(x):
    spec = jax.typeof(x).sharding.spec
    x = jax.lax.reshape(x, (x.shape[0] // n, n, *x.shape[1:]),
                        out_sharding=jax.P(spec[0], None, *spec[1:]))
    return jnp.moveaxis(x, 1, 0)
  return jax.tree.map(cut, tree)


def features(model, batch, keys=None):
  """Return the features [b, t, d] of the inputs of a batch.

  Args:
    model: in its compute dtype.
    batch: {'inputs': int32[b, t]}; of packed documents also 'segments' and, if positions restart,
      'positions', int32[b, t] each (see `GPT.features`).
    keys: key[b] for dropout, or None.
  """
  of_documents = {name: batch[name] for name in ('positions', 'segments') if name in batch}
  return model.features(batch['inputs'], keys, **of_documents)


def loss_and_grads(params, batch, keys, config, graphdef):
  """Return the mean loss over all counted targets of the batch, and its gradient.

  Weights pass through these forms (`gptjax.model.compute`): params -> dropped embeddings, if the config has
  them -> module -> compute dtype -> unrolled, unless `config.model.scan` -> deferred gradient sum; the
  gradient passes back through them.

  On each device the gradients of a microbatch, and their reduce-scatter over `fsdp`, have the compute dtype
  of the weight. They are summed over microbatches, `replica` and `data` in float32.

  Args:
    params: float32 weights.
    batch: {'inputs': int32[b, t], 'targets': int32[b, t]}, negative targets not counted; optionally as for
      `features`.
    keys: key[b] for dropout, or None.

  Returns:
    (float32[] in nats per token, float32 tree like params).
  """
  count = jnp.maximum((batch['targets'] >= 0).sum(dtype=jnp.float32), 1)

  def loss(model, batch, keys):
    model = gathered_once(model)
    x = features(model, batch, keys)
    total, _ = next_token_loss(x, gathered(model.unembedding), batch['targets'], model.n_vocab,
                               config.loss.chunk, soft_cap=model.soft_cap)
    return total / count

  # Drop, cast and unroll once per step, not per microbatch.
  model = in_dtype(nnx.merge(graphdef, drop_embeddings(params, config, keys)), config.model.compute_dtype)
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
  grads = jax.tree.map(lambda g, w: g.astype(w.dtype), grads, params)
  return value, drop_embeddings(grads, config, keys)


def train_step(state, batch, *, config, graphdef, steps):
  """One update; a pure function of its arguments.

  If the loss or the gradient norm is not finite, weights and optimizer state are returned unchanged and only
  the counters advance.

  Args:
    state: TrainState.
    batch: as for `loss_and_grads`, b is `batch_size`.
    config: the resolved config.
    graphdef: `graph(config)`.
    steps: updates in the whole run, the length of the schedule.

  Returns:
    (TrainState, {'loss', 'loss_ema' (before this step), 'grad_norm', 'learning_rate', 'skipped': scalars}).
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
  ema = state.loss_ema
  new_ema = jnp.where(jnp.isinf(ema), loss, LOSS_EMA * ema + (1 - LOSS_EMA) * loss)
  new = TrainState(state.step + 1, skipped, keep(new_ema, ema), keep(params, state.params),
                   keep(opt_state, state.opt_state))
  return new, {'loss': loss, 'loss_ema': ema, 'grad_norm': norm, 'learning_rate': rate,
               'skipped': skipped}


def eval_step(params, batch, *, config, graphdef):
  """Return the sum of losses over the counted targets of a batch, without dropout, and their number."""
  model = in_dtype(nnx.merge(graphdef, params), config.model.compute_dtype)
  return next_token_loss(features(model, batch), gathered(model.unembedding), batch['targets'],
                         model.n_vocab, config.loss.chunk, soft_cap=model.soft_cap)
