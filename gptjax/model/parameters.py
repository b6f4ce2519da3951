"""Weights: what is true of each is declared once, where it is created; and how many there are."""


import jax
import jax.numpy as jnp
from flax import nnx

from gptjax.parallel import sharding


def weight(key, shape, axes, std, compute_dtype=None):
  """Declares a weight: N(0, std) of this shape, born sharded as its logical axes say.

  Args:
    key: JAX random key.
    shape: tuple.
    axes: its logical axes, see `sharding`.
    std: standard deviation.
    compute_dtype: the dtype in which the step computes with it; None: `config.model.compute_dtype`.
  """
  return nnx.Param(_normal(key, shape, axes, std), axes=axes, compute_dtype=compute_dtype)


def _normal(key, shape, axes, std):
  return std * jax.random.normal(key, shape, out_sharding=sharding.storage(*axes))


def constant(value, shape, axes, compute_dtype=None):
  """Declares a bias or gain that starts as `value`; arguments as for `weight`."""
  return nnx.Param(jnp.full(shape, value, jnp.float32, out_sharding=sharding.storage(*axes)),
                   axes=axes, compute_dtype=compute_dtype)


def gathered(param):
  """A weight where the step computes with it (see `sharding`)."""
  return sharding.gather(param[...], *param.axes)


def embedding(key, config):
  """Declares a weight [v, d] with a row a token; the rows that pad the vocabulary are 0."""
  axes = ('vocab', 'embed')
  drawn = _normal(key, (padded_vocab(config), config.n_embd), axes, config.init_std)
  real = jnp.arange(padded_vocab(config), out_sharding=sharding.storage('vocab')) < config.n_vocab
  return nnx.Param(jnp.where(real[:, None], drawn, 0), axes=axes, compute_dtype=None)


def inner_width(model_config):
  """Width of the MLP inside."""
  return model_config.n_inner or 4 * model_config.n_embd


def padded_vocab(model_config):
  """Rows of the embedding matrix: n_vocab rounded up to a multiple of `pad_vocab_to`."""
  return -(-model_config.n_vocab // model_config.pad_vocab_to) * model_config.pad_vocab_to


def n_params(model_config):
  """Number of parameters, padding apart: what the papers' sizes count."""
  c = model_config
  d, f = c.n_embd, inner_width(c)
  if c.architecture == 'lstm':  # the cell's four gates, and the projection
    return c.n_vocab * d + 4 * f * (d + f + 1) + f * d + d
  block = 4 * d * d + 4 * d + 2 * d * f + f + d + 4 * d
  norm = 2 * d if c.norm == 'before' else 0
  vocabularies = 1 if c.tie_word_embeddings else 2
  return (vocabularies * c.n_vocab + c.n_ctx) * d + c.n_layer * block + norm


def flops_per_token(model_config, seq_len):
  """Training FLOPs a token, forward and backward, in the two usual conventions.

  N counts the parameters that multiply (not positions, nor an untied embedding), L layers, C width, T tokens:
    palm:   6 N + 12 L C T    attention over the full square (PaLM appendix B; nanoGPT)
    causal: 6 N + 6 L C T     only the half that a causal model needs

  Returns:
    {'palm': int, 'causal': int}
  """
  c = model_config
  if c.architecture == 'lstm':
    return dict.fromkeys(('palm', 'causal'), 6 * n_params(c))
  looked_up = c.n_ctx + (0 if c.tie_word_embeddings else c.n_vocab)
  n = n_params(c) - looked_up * c.n_embd
  square = 12 * c.n_layer * c.n_embd * seq_len
  return {'palm': 6 * n + square, 'causal': 6 * n + square // 2}
