"""Sampling from a model."""

import jax
import jax.numpy as jnp

from gptjax import sharding
from gptjax.model import gathered


def sample(model, prompt, n_tokens, key, top_k):
  """Draws tokens one by one from the k likeliest, reading the whole text again for each.

  Args:
    model: a GPT, under `jax.set_mesh`.
    prompt: int32[p], at least one token.
    n_tokens: how many to draw; p + n_tokens must not exceed the context.
    key: JAX random key.
    top_k: ties with the k-th likeliest stay in, as in OpenAI's code.

  Returns:
    int32[p + n_tokens].

  Raises:
    ValueError: prompt and sample are longer than the context.
  """
  p, total = len(prompt), len(prompt) + n_tokens
  if total > model.n_ctx:
    raise ValueError(f'{p} prompt tokens and {n_tokens} new ones are more than the context of '
                     f'{model.n_ctx}: ask for fewer')
  rows = sharding.batch_shards(jax.sharding.get_abstract_mesh())  # a batch must divide

  @jax.jit
  def draw(model, key):
    tokens = jnp.zeros((rows, total), jnp.int32, out_sharding=sharding.compute('batch', None))
    tokens = tokens.at[:, :p].set(jnp.asarray(prompt, jnp.int32))

    def step(i, tokens):
      x = model.features(tokens)[:, i - 1]
      logits = jnp.einsum('bd,vd->bv', x, gathered(model.unembedding), preferred_element_type=jnp.float32)
      logits = jax.reshard(logits, sharding.compute('batch', None))[:, :model.n_vocab]
      least = jax.lax.top_k(logits, min(top_k, model.n_vocab))[0][:, -1:]
      logits = jnp.where(logits < least, -jnp.inf, logits)
      drawn = jax.random.categorical(jax.random.fold_in(key, i), logits)
      return tokens.at[:, i].set(drawn.astype(jnp.int32))

    return jax.reshard(jax.lax.fori_loop(p, total, step, tokens), jax.P())

  return jax.device_get(draw(model, key))[0]
