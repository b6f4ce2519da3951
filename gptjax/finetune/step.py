"""The state of fine-tuning, its loss L3 = L2 + lambda L1 (section 3.2), and the step as a pure function."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from gptjax.finetune import trainable
from gptjax.finetune.model import Classifier
from gptjax.model.compute import drop_embeddings, in_dtype
from gptjax.model.parameters import gathered
from gptjax.parallel import sharding
from gptjax.parallel.sharding import merge_axes
from gptjax.train.loss import next_token_loss
from gptjax.train.optimizer import learning_rate, make_optimizer
from gptjax.train.step import microbatches, sequence_keys


class State(NamedTuple):
  """The complete state of a fine-tuning run.

  step: int32[], number of updates tried so far, which is the number of the next batch.
  skipped: int32[], number of consecutive non-finite steps before this one, 0 after a finite step.
  seed: int32[], of dropout; part of the state and not of the config, so that one program serves all seeds.
  params, frozen: trained and frozen weights, see `trainable`.
  opt_state: Optax's state of the trained weights.
  """
  step: jax.Array
  skipped: jax.Array
  seed: jax.Array
  params: Any
  frozen: Any
  opt_state: Any


def graph(config, kind, outputs):
  """The `Classifier` without its weights."""
  return nnx.graphdef(nnx.eval_shape(lambda: Classifier(jax.random.key(0), config, kind, outputs)))


def init_state(config, graphdef, params):
  """The state before the first step, with the given weights of the `Classifier` of a `graph`."""
  trained, frozen = trainable.split_params(params, config)
  number = lambda n: jnp.full((), n, jnp.int32)
  opt_state = make_optimizer(config.optimizer, trainable.declarations(graphdef, params)).init(trained)
  return State(number(0), number(0), number(config.train.seed), trained, frozen, opt_state)


def task_losses(scores, labels, weights, is_regression):
  """float32[b]: cross-entropy of each example, or half its squared error; 0 where the weight is 0.

  Args:
    scores: float32[b, c], see `Classifier`.
    labels: float32[b]: class numbers, or values scaled to [-1, 1]. A class number between two integers is a
      soft label, p(i) = max(0, 1 - |i - label|), which for an integer is one-hot.
    weights: float32[b].
    is_regression: whether labels are real values (squared error), not classes (cross-entropy).
  """
  if is_regression:
    losses = (scores[:, 0] - labels) ** 2 / 2
  else:
    p = jnp.maximum(0, 1 - jnp.abs(jnp.arange(scores.shape[1])[None] - labels[:, None]))
    losses = jax.nn.logsumexp(scores, -1) - jnp.where(p > 0, p * scores, 0).sum(-1)
  return jnp.where(weights > 0, losses * weights, 0)


def language_loss(model, x, batch, config, n_vocab):
  """The sum over examples of weight times the mean loss per token, averaged over the example's sequences."""
  g = batch['tokens'].shape[1]
  n_targets = jnp.maximum((next_tokens(batch) >= 0).sum(1), 1)
  weights = merge_axes(batch['weights'][:, None] * jnp.ones((1, g)), 0) / (g * n_targets)
  return token_losses(model, x, batch, config, n_vocab, weights)[0]


def token_losses(model, x, batch, config, n_vocab, weights=None):
  """`next_token_loss` of the features x of all sequences of a batch."""
  return next_token_loss(x, gathered(model.unembedding), next_tokens(batch), n_vocab, config.loss.chunk,
                         weights, model.soft_cap)


def next_tokens(batch):
  """int32[n, t]: the token after each token; -1 after the last token and for padding."""
  tokens, lengths = merge_axes(batch['tokens'], 0), merge_axes(batch['lengths'], 0)
  shifted = jnp.concatenate([tokens[:, 1:], tokens[:, :1]], axis=1)
  return jnp.where(jnp.arange(tokens.shape[1])[None] < lengths[:, None] - 1, shifted, -1)


def compute_params(state, config, graphdef, keys=None):
  """(differentiated, constant) of `trainable.to_compute_form`, in the dtypes that the model computes in.

  With `keys` their embeddings are dropped as the config says (`drop_embeddings`).
  """
  def cast(params):
    return nnx.to_pure_dict(nnx.state(in_dtype(nnx.merge(graphdef, params), config.model.compute_dtype)))
  like = jax.eval_shape(cast, trainable.merge_params(state.params, state.frozen))
  trees = trainable.to_compute_form(state.params, state.frozen, config)
  return tuple(_cast(_drop(tree, config, keys), like) for tree in trees)


def _drop(tree, config, keys):
  """`drop_embeddings` of the language model in a tree of weights or gradients."""
  return {**tree, 'lm': drop_embeddings(tree['lm'], config, keys)} if 'lm' in tree else tree


def _cast(tree, like):
  """Weights, with layers stacked or as a list, in the dtypes of the leaves with the same names in `like`."""
  if isinstance(tree, dict):
    return {name: _cast(value, like[name]) for name, value in tree.items()}
  return [_cast(layer, like) for layer in tree] if isinstance(tree, list) else tree.astype(like.dtype)


def loss_and_grads(state, batch, keys, config, graphdef, is_regression):
  """L3 of a batch and its gradient with respect to the trained weights; sums are float32, as in `train`.

  Args:
    state: State.
    batch: of `batches.make_batch`.
    keys: key[b] for dropout, or None.
    config: the resolved config.
    graphdef: of `graph`.
    is_regression: whether labels are real values (squared error), not classes (cross-entropy).

  Returns:
    ((L3, L2, L1) float32[] each, tree like `state.params`).
  """
  count = jnp.maximum(batch['weights'].sum(), 1)
  differentiated, constant = compute_params(state, config, graphdef, keys)

  def loss(differentiated, batch, keys):
    model = trainable.build_classifier(graphdef, differentiated, constant, config)
    x, scores = model(batch['tokens'], batch['lengths'], keys)
    if scores is None:  # the text has no task tokens: exclude the last three logits
      language = language_loss(model.lm, x, batch, config, model.lm.n_vocab - 3) / count
      return language, (language, jnp.zeros_like(language), language)
    task = task_losses(scores, batch['labels'], batch['weights'], is_regression).sum() / count
    if config.finetune.lm_coef == 0:
      return task, (task, task, jnp.zeros_like(task))
    language = language_loss(model.lm, x, batch, config, model.lm.n_vocab) / count
    total = task + config.finetune.lm_coef * language
    return total, (total, task, language)

  value_and_grad = jax.value_and_grad(loss, has_aux=True)
  differentiated = sharding.defer_grad_sum(differentiated)
  n = config.train.batch_size // config.train.microbatch_size
  if n == 1:
    (_, values), grads = value_and_grad(differentiated, batch, keys)
    grads = jax.tree.map(lambda g: g.astype(jnp.float32), grads)
  else:
    def accumulate(totals, part):
      (_, values), grads = value_and_grad(differentiated, *part)
      return jax.tree.map(lambda t, x: t + x.astype(t.dtype), totals, (values, grads)), None

    zeros = jax.tree.map(lambda x: sharding.zero_gradient(x, jnp.float32), ((count,) * 3, differentiated))
    (values, grads), _ = jax.lax.scan(accumulate, zeros, microbatches((batch, keys), n))
  return values, trainable.to_storage_form(_drop(sharding.finish_grad_sum(grads), config, keys), config)


def train_step(state, batch, *, config, graphdef, is_regression, steps):
  """Update the state with one batch; a pure function of its arguments.

  A step whose loss or gradient norm is not finite changes no weight and no moment; only its number is
  counted.

  Args:
    state: State.
    batch: of `batches.make_batch`.
    steps: number of updates in the whole run.
    config, graphdef, is_regression: see `loss_and_grads`.

  Returns:
    (State, {'loss', 'task_loss', 'lm_loss', 'grad_norm', 'learning_rate', 'skipped': scalars}).
  """
  dropout = config.model.dropout or config.finetune.head_dropout
  keys = sequence_keys(config.train, state.seed, state.step) if dropout else None
  (loss, task, language), grads = loss_and_grads(state, batch, keys, config, graphdef, is_regression)
  norm = optax.tree.norm(grads)
  rate = learning_rate(config.optimizer, steps, state.step)
  declared = trainable.declarations(graphdef, trainable.merge_params(state.params, state.frozen))
  optimizer = make_optimizer(config.optimizer, declared)
  updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
  params = jax.tree.map(lambda w, u: w - rate * u, state.params, updates)
  finite = jnp.isfinite(loss) & jnp.isfinite(norm)
  keep = lambda new, old: jax.tree.map(lambda n, o: jnp.where(finite, n, o), new, old)
  skipped = jnp.where(finite, 0, state.skipped + 1)
  new = State(state.step + 1, skipped, state.seed, keep(params, state.params), state.frozen,
              keep(opt_state, state.opt_state))
  return new, {'loss': loss, 'task_loss': task, 'lm_loss': language, 'grad_norm': norm,
               'learning_rate': rate, 'skipped': skipped}


def predict_step(state, batch, *, config, graphdef):
  """The head's output for each example, without dropout: float32[b, c], replicated on all devices.

  Without a head, float32[b, 2]: the total loss and the number of target tokens of the batch, each divided
    equally among its examples, so that the sum over rows is the total.
  """
  differentiated, constant = compute_params(state, config, graphdef)
  model = trainable.build_classifier(graphdef, differentiated, constant, config)
  x, scores = model(batch['tokens'], batch['lengths'])
  if scores is None:
    sums = token_losses(model.lm, x, batch, config, model.lm.n_vocab - 3)
    scores = jnp.stack(sums)[None] * (batch['weights'] / batch['weights'].sum())[:, None]
  return jax.reshard(scores, jax.P())
