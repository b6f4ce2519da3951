"""Which token comes next: temperature, top-k, top-p, and the draw.

Letters: b rows, v vocabulary. Temperature comes first, then top-k, then top-p of what is left; tokens
that are as likely as the last one that stays, stay too, as in OpenAI's code. No sorting: a CPU takes longer
to sort a vocabulary than to compute its logits.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gptjax.parallel import sharding


class SamplingOptions(NamedTuple):
  """How to choose. Numbers, which change no compiled program; None turns a part off, which does.

  temperature: float; None: always the likeliest token.
  top_k: int, how many of the likeliest tokens to draw from.
  top_p: float in (0, 1): draw from the fewest likeliest tokens that together have at least this probability
    (Holtzman et al. 2020; OpenAI's code leaves the last one of them out).
  n_vocab: tokens that may be drawn: the first so many.
  """
  temperature: float | None
  top_k: int | None
  top_p: float | None
  n_vocab: int


def sample_tokens(logits, keys, choice):
  """A token for each row.

  Args:
    logits: float32[b, v].
    keys: key[b], one a row: what is drawn depends on the row's own logits and key alone.
    choice: Choice.

  Returns:
    int32[b]; -1 where logits are NaN, which no token should hide.
  """
  drawn = jnp.where(jnp.arange(logits.shape[1]) < choice.n_vocab, logits, -jnp.inf)
  if choice.temperature is not None:
    # Gumbel's trick: the largest of logits with this noise is a draw from their softmax.
    noise = jax.vmap(lambda key: jax.random.gumbel(key, logits.shape[1:], out_sharding=jax.P(None)))(keys)
    # From the largest on: a low temperature must give zeros and minus infinities, never inf - inf.
    drawn = (drawn - drawn.max(-1, keepdims=True)) / choice.temperature
    drawn = truncate_logits(drawn, choice.top_k, choice.top_p) + noise
  damaged = jnp.isnan(logits).any(-1)
  return jnp.where(damaged, -1, jnp.argmax(drawn, -1)).astype(jnp.int32)


def truncate_logits(logits, top_k, top_p):
  """The logits [b, v], those that are not to be drawn replaced by -inf; top_k or top_p None: not cut."""
  if top_k is not None:
    ranks = _ranks(logits)
    least = _largest(ranks, lambda kept: kept.sum(-1) >= top_k)
    logits = jnp.where(ranks >= least, logits, -jnp.inf)
  if top_p is not None:
    ranks, shares = _ranks(logits), jax.nn.softmax(logits, -1)
    least = _largest(ranks, lambda kept: jnp.where(kept, shares, 0).sum(-1) >= top_p)
    logits = jnp.where(ranks >= least, logits, -jnp.inf)
  return logits


def _ranks(logits):
  """int32[b, v], ordered as the logits are, and equal where they are."""
  one_zero = jnp.where(logits == 0, 0.0, logits)
  bits = jax.lax.bitcast_convert_type(one_zero, jnp.int32)
  return jnp.where(bits < 0, bits ^ 0x7fffffff, bits)


def _largest(ranks, holds):
  """int32[b, 1]: largest of a row's ranks for which `holds(ranks >= it)`, by bisection, or the least."""
  def halve(_, bounds):
    low, high = bounds
    middle = (low >> 1) + (high >> 1) + ((low | high) & 1)  # rounded up, no overflow
    good = holds(ranks >= middle)[:, None]
    return jnp.where(good, middle, low), jnp.where(good, high, middle - 1)

  # Not constants: JAX 0.11 forgets the sharding of a `full_like` of one element.
  return jax.lax.fori_loop(0, 32, halve, (ranks.min(-1, keepdims=True), ranks.max(-1, keepdims=True)))[0]


@jax.jit
def row_keys(seed, prompts, samples):
  """key[b], one a row, from the seed, the prompt's checksum and the number of its sample alone.

  Args:
    seed: uint32[].
    prompts: uint32[b].
    samples: int32[b].
  """
  of_prompt = lambda prompt: jax.random.fold_in(jax.random.key(seed), prompt)
  fold = jax.vmap(lambda prompt, sample: jax.random.fold_in(of_prompt(prompt), sample))
  return fold(*(jax.reshard(x, sharding.compute_spec('batch')) for x in (prompts, samples)))
