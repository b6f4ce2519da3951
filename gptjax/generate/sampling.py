"""Samples the next token: temperature, top-k and top-p.

Dimensions: b rows, v vocabulary. Temperature is applied first, then top-k, then top-p to the remaining
tokens. Ties with the last remaining token are also retained, as in OpenAI's code. There is no sorting: a CPU
takes longer to sort a vocabulary than to compute its logits.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gptjax.parallel import sharding


class SamplingOptions(NamedTuple):
  """How to sample. Changing a number does not recompile; None disables a part, which does.

  temperature: float; None: always the most likely token.
  top_k: int, sample from this many of the most likely tokens.
  top_p: float in (0, 1), sample from the smallest set of most likely tokens with at least this total
    probability (Holtzman et al. 2020; OpenAI's code omits the last one of them).
  n_vocab: only the first n_vocab tokens may be sampled.
  """
  temperature: float | None
  top_k: int | None
  top_p: float | None
  n_vocab: int


def sample_tokens(logits, keys, choice):
  """Sample one token per row.

  Args:
    logits: float32[b, v].
    keys: key[b], one PRNG key per row: a sample only depends on the logits and the key of its row.
    choice: SamplingOptions.

  Returns:
    int32[b]; -1 for rows with NaN logits, so that the caller can detect them.
  """
  scores = jnp.where(jnp.arange(logits.shape[1]) < choice.n_vocab, logits, -jnp.inf)
  if choice.temperature is not None:
    # Gumbel-max trick: the argmax of logits with this noise is a sample from their softmax.
    noise = jax.vmap(lambda key: jax.random.gumbel(key, logits.shape[1:], out_sharding=jax.P(None)))(keys)
    # Subtract the maximum first: a low temperature must result in zeros and -inf, never in inf - inf.
    scores = (scores - scores.max(-1, keepdims=True)) / choice.temperature
    scores = truncate_logits(scores, choice.top_k, choice.top_p) + noise
  damaged = jnp.isnan(logits).any(-1)
  return jnp.where(damaged, -1, jnp.argmax(scores, -1)).astype(jnp.int32)


def truncate_logits(logits, top_k, top_p):
  """Return the logits [b, v] with -inf for excluded tokens; None disables top_k or top_p."""
  if top_k is not None:
    ranks = _ranks(logits)
    threshold = _largest(ranks, lambda mask: mask.sum(-1) >= top_k)
    logits = jnp.where(ranks >= threshold, logits, -jnp.inf)
  if top_p is not None:
    ranks, probabilities = _ranks(logits), jax.nn.softmax(logits, -1)
    threshold = _largest(ranks, lambda mask: jnp.where(mask, probabilities, 0).sum(-1) >= top_p)
    logits = jnp.where(ranks >= threshold, logits, -jnp.inf)
  return logits


def _ranks(logits):
  """Return int32[b, v] with the same order and ties as the logits."""
  unsigned_zero = jnp.where(logits == 0, 0.0, logits)
  bits = jax.lax.bitcast_convert_type(unsigned_zero, jnp.int32)
  return jnp.where(bits < 0, bits ^ 0x7fffffff, bits)


def _largest(ranks, holds):
  """Return int32[b, 1]: by bisection, the largest rank for which `holds(ranks >= rank)`, or the minimum."""
  def halve(_, bounds):
    low, high = bounds
    middle = (low >> 1) + (high >> 1) + ((low | high) & 1)  # rounded up, no overflow
    valid = holds(ranks >= middle)[:, None]
    return jnp.where(valid, middle, low), jnp.where(valid, high, middle - 1)

  # Not constants: JAX 0.11 forgets the sharding of a `full_like` of one element.
  return jax.lax.fori_loop(0, 32, halve, (ranks.min(-1, keepdims=True), ranks.max(-1, keepdims=True)))[0]


@jax.jit
def row_keys(seed, prompts, samples):
  """Return key[b], one PRNG key per row, from the seed, the prompt's checksum and the index of the sample.

  Args:
    seed: uint32[].
    prompts: uint32[b], checksums.
    samples: int32[b], indices.
  """
  prompt_key = lambda prompt: jax.random.fold_in(jax.random.key(seed), prompt)
  fold = jax.vmap(lambda prompt, sample: jax.random.fold_in(prompt_key(prompt), sample))
  return fold(*(jax.reshard(x, sharding.compute_spec('batch')) for x in (prompts, samples)))
