"""The draw against distributions that NumPy computes by sorting, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import mesh_of
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from gptjax.generate.sampling import SamplingOptions, row_keys, sample_tokens, truncate_logits

V, DRAWS = 40, 20_000


def exact(logits, temperature, top_k, top_p):
  """float64[v]: the probabilities, from the definitions."""
  logits = np.asarray(logits, np.float64) / temperature
  if top_k:
    logits = np.where(logits >= np.sort(logits)[-top_k], logits, -np.inf)
  shares = np.exp(logits - logits.max())
  shares /= shares.sum()
  if top_p:
    order = np.argsort(-shares)
    n = np.searchsorted(np.cumsum(shares[order]), top_p) + 1
    shares = np.where(shares >= shares[order[n - 1]], shares, 0)
  return shares / shares.sum()


@pytest.mark.parametrize('temperature, top_k, top_p', [
  (1.0, None, None), (0.5, None, None), (2.5, None, None), (1.0, 7, None), (1.0, 1, None), (1.0, None, 0.6),
  (0.7, 12, 0.8), (1.3, None, 0.95), (1.0, V, 0.999)])
def test_draws_have_the_exact_distribution(temperature, top_k, top_p):
  logits = np.random.default_rng(0).normal(0, 2, V).astype(np.float32)
  choice = SamplingOptions(temperature, top_k, top_p, V)
  with mesh_of():
    keys = row_keys(np.uint32(1), np.zeros(DRAWS, np.uint32), np.arange(DRAWS, dtype=np.int32))
    drawn = np.asarray(jax.jit(sample_tokens)(jnp.broadcast_to(logits, (DRAWS, V)), keys, choice))
  shares, counts = exact(logits, temperature, top_k, top_p), np.bincount(drawn, minlength=V)
  assert not counts[shares == 0].any()
  # Classes that are too rare for the test are counted as one.
  common = shares * DRAWS >= 5
  pool = lambda x: np.append(x[common], x[~common].sum())
  seen, wanted = pool(counts), pool(shares * DRAWS)
  kept = wanted > 0
  if kept.sum() > 1:
    assert stats.chisquare(seen[kept], wanted[kept]).pvalue > 1e-3


cut = jax.jit(truncate_logits)
numbers = st.lists(st.floats(-50, 50, width=32, allow_subnormal=False), min_size=2, max_size=30)


@settings(deadline=None, max_examples=60)
@given(numbers, st.integers(1, 40), st.floats(0.01, 0.99))
def test_what_stays_is_what_sorting_says(logits, top_k, top_p):
  n, logits = len(logits), np.array(logits, np.float32)
  top_k = min(top_k, n)
  padded = np.append(logits, np.full(30 - n, -np.inf, np.float32))[None]
  with mesh_of():
    by_k = np.asarray(cut(padded, np.int32(top_k), None))[0, :n]
    by_p = np.asarray(cut(padded, None, np.float32(top_p)))[0, :n]
  np.testing.assert_array_equal(np.isfinite(by_k), logits >= np.sort(logits)[-top_k])
  np.testing.assert_array_equal(by_k[np.isfinite(by_k)], logits[np.isfinite(by_k)])
  shares = np.exp(np.float64(logits) - logits.max())
  shares, stays = shares / shares.sum(), np.isfinite(by_p)
  slack = 1e-5  # float32 sums
  assert shares[stays].sum() >= top_p - slack
  assert shares[shares > shares[stays].min()].sum() < top_p + slack  # one fewer would not do
  assert stays[logits >= logits[stays].min()].all()


def test_top_k_and_top_p_change_no_program_and_padding_is_never_drawn():
  logits = np.zeros((4, V), np.float32)
  logits[:, 30:] = 9
  step = jax.jit(lambda *arguments: sample_tokens(*arguments))  # with a cache of its own
  with mesh_of():
    keys = row_keys(np.uint32(0), np.zeros(4, np.uint32), np.arange(4, dtype=np.int32))
    for k, p, temperature in ((3, 0.5, 1.0), (30, 0.9, 0.1), (1, 0.1, 1e-6)):
      assert (np.asarray(step(logits, keys, SamplingOptions(temperature, k, p, 30))) < 30).all()
    assert step._cache_size() == 1
    assert (np.asarray(step(logits, keys, SamplingOptions(None, None, None, 30))) == 0).all()


def test_the_coldest_draw_is_the_greedy_one_and_what_is_no_number_is_told():
  logits = np.random.default_rng(0).normal(0, 30, (8, V)).astype(np.float32)
  logits[3, 5] = np.nan
  with mesh_of():
    keys = row_keys(np.uint32(0), np.zeros(8, np.uint32), np.arange(8, dtype=np.int32))
    for options in ((1e-6, None, None), (1e-6, 5, 0.9), (None, None, None)):
      choice = SamplingOptions(*options, V)
      drawn = np.asarray(jax.jit(sample_tokens)(logits, keys, choice))
      assert drawn[3] == -1
      np.testing.assert_array_equal(np.delete(drawn, 3), np.delete(logits, 3, 0).argmax(1))


def test_a_row_draws_the_same_whatever_stands_beside_it():
  rng = np.random.default_rng(0)
  logits = rng.normal(0, 2, (8, V)).astype(np.float32)
  prompts, samples = rng.integers(0, 2**32, 8, dtype=np.uint32), np.arange(8, dtype=np.int32)
  choice = SamplingOptions(1.0, 20, 0.9, V)
  with mesh_of():
    together = np.asarray(jax.jit(sample_tokens)(logits, row_keys(np.uint32(3), prompts, samples), choice))
    for i in range(8):
      row = slice(i, i + 1)
      alone = jax.jit(sample_tokens)(logits[row], row_keys(np.uint32(3), prompts[row], samples[row]), choice)
      assert np.asarray(alone)[0] == together[i]
  with mesh_of(data=4, tensor=2):
    np.testing.assert_array_equal(jax.jit(sample_tokens)(
      jax.reshard(logits, jax.P(('replica', 'data', 'fsdp'), None)),
      row_keys(np.uint32(3), prompts, samples), choice), together)
