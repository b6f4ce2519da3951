"""Scores do not depend on the batch, and every token of a text is scored exactly once."""

import math
import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import mesh_of, tiny_config
from hypothesis import given, settings
from hypothesis import strategies as st
from variants import VARIANTS

from gptjax.evaluate.scoring import scores as scoring
from gptjax.evaluate.scoring.evaluated_model import make_request
from gptjax.evaluate.tasks.language_modelling import windows
from gptjax.evaluate.texts.sources import NotRun
from gptjax.model.gpt import GPT
from gptjax.model.parameters import declare
from gptjax.parallel import sharding

RNG = np.random.default_rng(0)


def model_of(config):
  return jax.jit(lambda: GPT(jax.random.key(0), config))()


def some_requests(n=23, n_vocab=61, longest=25):
  lengths = RNG.integers(2, longest + 1, n)
  return [scoring.Request(RNG.integers(0, n_vocab, length), int(RNG.integers(1, length)))
          for length in lengths]


REQUESTS = some_requests()


LARGE = {'model.init_std': 0.3}  # so that attention is not nearly uniform


def found(requests, batch_size=2, barred=None, changes=None, **axes):
  config = tiny_config(**LARGE, **(changes or {}))
  with mesh_of(**axes):
    return scoring.score_requests(model_of(config), requests, batch_size, excluded=barred)


@pytest.fixture(scope='module')
def expected():
  return scores_from_logits({})


def scores_from_logits(changes):
  """Scores from the model's logits, one request at a time."""
  config = tiny_config(**LARGE, **changes)
  scores = []
  with mesh_of():
    model = model_of(config)
    for ids, start in REQUESTS:
      logits = np.asarray(model(np.resize(ids[:-1], (1, 24)).astype(np.int32)), np.float64)[0, :len(ids) - 1]
      log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
      mine = log_probs[np.arange(len(ids) - 1), ids[1:]][start - 1:]
      hits = (logits.argmax(-1) == ids[1:])[start - 1:]
      scores.append((mine.sum(), mine[-1], hits.all(), hits[-1]))
  return scores


def check(scores, expected):
  np.testing.assert_allclose([score[:2] for score in scores], [one[:2] for one in expected], rtol=1e-5)
  assert [score[2:4] for score in scores] == [one[2:4] for one in expected]


@pytest.mark.first_cases(1)
@pytest.mark.parametrize('batch_size', [1, 3, 64])
def test_scores_are_those_of_one_request_at_a_time(batch_size, expected):
  check(found(REQUESTS, batch_size), expected)


@pytest.mark.first_cases(1)
@pytest.mark.parametrize('name', ['soft cap', 'sliding window', 'everything'])
def test_scores_of_a_variant_are_those_of_its_logits(name):
  check(found(REQUESTS, changes=VARIANTS[name]), scores_from_logits(VARIANTS[name]))


@pytest.mark.first_cases(1)
@pytest.mark.parametrize('axes', [dict(data=2, fsdp=2, tensor=2), dict(data=8)])
def test_scores_do_not_depend_on_the_mesh(axes, expected):
  check(found(REQUESTS, **axes), expected)


def test_scores_do_not_depend_on_the_order(expected):
  order = RNG.permutation(len(REQUESTS))
  check(found([REQUESTS[i] for i in order]), [expected[i] for i in order])


def test_excluded_tokens_are_ignored_as_competitors():
  plain = found(REQUESTS)
  single = [scoring.Request(ids, len(ids) - 1) for ids, _ in REQUESTS]
  with mesh_of():
    model = model_of(tiny_config(**{'model.init_std': 0.3}))
    logits = [np.array(model(np.resize(ids[:-1], (1, 24)).astype(np.int32))[0, len(ids) - 2])
              for ids, _ in single]
  first, second = (np.argsort(logits)[:, -1 - place].tolist() for place in (0, 1))
  masks = np.zeros((3, 61), bool)
  masks[1, first[0]], masks[2] = True, True
  chosen = [i % 3 for i in range(len(single))]
  barred = scoring.ExcludedTokens(masks, [np.array([number], np.int32) for number in chosen])
  of = lambda tokens: [scoring.Request(np.append(ids[:-1], token), len(ids) - 1)
                       for (ids, _), token in zip(single, tokens)]
  for axes in {}, dict(data=2, tensor=2):
    assert all(score.is_greedy_allowed for score in found(of(first), barred=barred, **axes))
    scores = found(of(second), barred=barred, **axes)
    assert [score.is_greedy_allowed for score in scores] == [
      masks[number, best] for number, best in zip(chosen, first)]
    assert not any(score.is_greedy for score in scores)
  several = scoring.ExcludedTokens(masks, [np.full(len(ids) - start, 1) for ids, start in REQUESTS])
  assert [score.log_prob for score in found(REQUESTS, barred=several)] == pytest.approx(
    [score.log_prob for score in plain], rel=1e-6)


def test_known_scores_are_not_computed_and_new_ones_are_recorded():
  kept, config = {}, tiny_config(**{'model.init_std': 0.3})
  known = {3: scoring.Score(1.0, 2.0, True, False, True)}
  with mesh_of():
    scores = scoring.score_requests(model_of(config), REQUESTS, 2, known=known, on_score=kept.__setitem__)
  assert scores[3] == known[3] and kept.keys() == set(range(len(REQUESTS))) - {3}
  assert all(kept[i] == scores[i] for i in kept)


@pytest.mark.parametrize('request_', [scoring.Request(list(range(26)), 3), scoring.Request([1, 2], 2),
                                      scoring.Request([1, 2], 0)])
def test_a_request_that_cannot_be_scored_raises_an_error(request_):
  with pytest.raises(ValueError, match='cannot be scored in a context of 24'):
    found([request_])


def test_nan_weights_raise_an_error():
  with mesh_of():
    model = model_of(tiny_config())
    model.wpe[...] = model.wpe[...] * np.nan
    with pytest.raises(ValueError, match='not numbers'):
      scoring.score_requests(model, REQUESTS, 2)


def test_batches_have_few_shapes_and_little_padding():
  requests = sorted((scoring.Request(np.zeros(n, np.int32), n - 1) for n in RNG.integers(2, 1025, 3000)),
                    key=lambda one: -len(one.ids))
  shapes, padded, begin = set(), 0, 0
  while begin < len(requests):
    tokens, _, wanted, n = scoring.make_batch(requests[begin:], 1024, 4, 2)
    shapes.add((tokens.shape, wanted.shape))
    padded += tokens.size
    begin += n
  assert len(shapes) <= 22
  assert padded < 1.15 * sum(len(ids) - 1 for ids, _ in requests)


@pytest.mark.parametrize('n_ctx', [1024, 8192, 131_072])
def test_short_texts_have_the_same_batches_in_a_long_context(n_ctx):
  requests = [scoring.Request(np.zeros(65, np.int32), 60)] * 3000
  assert scoring.make_batch(requests, n_ctx, 2, 1)[0].shape == (32, 64)
  long = [scoring.Request(np.zeros(n_ctx + 1, np.int32), 1)] * 3
  assert scoring.make_batch(long, n_ctx, 2, 1)[0].shape == (2 if n_ctx == 1024 else 1, n_ctx)


class Letters:
  """A tokenizer with one token per letter, and one for the pair `ab`."""

  def __init__(self, start_of_text, text_prefix=()):
    self.start_of_text, self.text_prefix = start_of_text, text_prefix

  def encode(self, text):
    return np.array([100 if part == 'ab' else ord(part) - 96 for part in re.findall('ab|.', text)], np.int32)


@pytest.mark.parametrize('end, before, after, ids, start', [
  (0, '', 'cde', [0, 3, 4, 5], 1),     # the first token is scored, after the end-of-text token
  (None, '', 'cde', [3, 4, 5], 1),     # or given, where there is no such token
  (0, 'c', 'de', [3, 4, 5], 1),
  (0, 'ca', 'be', [3, 100, 5], 1),     # a token that spans the border belongs to what comes after
  (0, 'a', 'be', [0, 100, 5], 1),
  (0, 'cdefghij', 'k', [6, 7, 8, 9, 10, 11], 5),  # cut on the left to n_ctx + 1
])
def test_a_text_is_scored_as_it_is_encoded_as_a_whole(end, before, after, ids, start):
  tested = SimpleNamespace(tokenizer=Letters(end), model=SimpleNamespace(n_ctx=5))
  found = make_request(tested, before, after)
  assert (list(found.ids), found.start) == (ids, start)


@pytest.mark.parametrize('begin, prefix, before, after, ids, start', [
  (27, (), '', 'cd', [27, 3, 4], 1),       # as lm-evaluation-harness: start-of-text, if there is one,
  (27, (), 'c', 'de', [3, 4, 5], 1),       # but before a context only if the tokenizer puts it there
  (27, (27,), '', 'cd', [27, 3, 4], 1),
  (27, (27,), 'c', 'de', [27, 3, 4, 5], 2),
  (28, (27,), 'c', 'de', [3, 4, 5], 1),    # the model was trained on texts that begin with another token
  (27, (27,), 'cdef', 'gh', [3, 4, 5, 6, 7, 8], 4)])
def test_a_begin_of_text_token_precedes_a_text_as_in_the_harness(begin, prefix, before, after, ids, start):
  tested = SimpleNamespace(tokenizer=Letters(begin, prefix), model=SimpleNamespace(n_ctx=5))
  found = make_request(tested, before, after)
  assert (list(found.ids), found.start) == (ids, start)


def test_a_text_that_does_not_fit_is_not_run():
  tested = SimpleNamespace(tokenizer=Letters(0), model=SimpleNamespace(n_ctx=5))
  with pytest.raises(NotRun, match='6 tokens to score do not fit into a context of 5'):
    make_request(tested, 'c', 'defghi')


@given(n=st.integers(1, 200), start=st.integers(1, 3), n_ctx=st.integers(3, 40), stride=st.integers(1, 40))
@settings(deadline=None)
def test_windows_score_every_token_once_with_the_available_context(n, start, n_ctx, stride):
  stride, ids, seen = min(stride, n_ctx), np.arange(n + start), []
  for window, first in windows(ids, start, n_ctx, stride):
    assert 1 <= first < len(window) <= n_ctx + 1
    assert list(window) == list(range(window[0], window[0] + len(window)))
    # A token of the first window has all before it, one of another at least n_ctx - stride + 1.
    assert window[0] == 0 or first >= n_ctx - stride + 1
    seen += list(window[first:])
  assert seen == list(range(start, n + start))


@pytest.mark.parametrize('tensor, padded', [(1, 44), (2, 44), (1, 47)])
@pytest.mark.parametrize('logits', [1, 30, 60, 1 << 20])
def test_results_do_not_depend_on_vocabulary_blocks_and_the_first_of_equals_wins(logits, tensor, padded,
                                                                                 monkeypatch):
  monkeypatch.setattr(scoring, 'MAX_LOGITS', (logits, logits))
  n, v = 12, 37
  rng = np.random.default_rng(logits)
  # So many logits are equal.
  x, table = (rng.integers(-1, 2, shape).astype(np.float32) for shape in ((n, 3), (padded, 3)))
  target, masks, marks = rng.integers(0, v, n), rng.random((3, v)) < 0.3, rng.integers(0, 3, n, np.int32)
  wanted = (x @ table[:v].T).astype(np.float64)
  target[:4] = wanted[:4].argmax(-1)
  with mesh_of(tensor=tensor):
    placed = declare(jax.reshard(table, sharding.compute_spec('vocab', None)), axes=('vocab', 'embed'))
    model = SimpleNamespace(unembedding=placed, n_vocab=v, soft_cap=0.0)
    compared = jax.jit(lambda *targets: scoring.compare_logits(jnp.asarray(x), model, *targets))
    log_probs, likeliest, allowed = map(np.asarray, compared(target.astype(np.int32), masks, marks))
    assert (np.asarray(compared(target.astype(np.int32))[2]) == likeliest).all()
  expected = wanted[np.arange(n), target] - np.log(np.exp(wanted).sum(-1))
  np.testing.assert_allclose(log_probs, expected, rtol=1e-6)
  assert likeliest[:4].all() and (likeliest == (wanted.argmax(-1) == target)).all()
  out = masks[marks] & (np.arange(v) != target[:, None])
  assert (allowed == (np.where(out, -np.inf, wanted).argmax(-1) == target)).all()


def test_in_bfloat16_only_matmul_operands_are_rounded_and_scores_stay_close():
  config = tiny_config(**{'model.init_std': 0.3})
  with mesh_of():
    model = model_of(config)
    exact = scoring.score_requests(scoring.prepare_model(model), REQUESTS, 2)
    model.dtype = 'bfloat16'
    features = jax.jit(lambda model, tokens: model.features(tokens))
    text = features.lower(scoring.prepare_model(model), np.zeros((1, 24), np.int32)).as_text()
    close = scoring.score_requests(scoring.prepare_model(model), REQUESTS, 2)
  products = re.findall(r'dot_general.*-> tensor<\w*x(\w+)>', text)
  assert products and set(products) == {'f32'}, 'a CPU multiplies many times slower into bfloat16'
  np.testing.assert_allclose([score.log_prob for score in close], [score.log_prob for score in exact],
                             rtol=0.01)


def test_a_cpu_takes_slices_of_the_output_matrix_as_it_is(monkeypatch):
  # XLA once converted all of a bfloat16 matrix to float32 where a loop takes slices of it.
  monkeypatch.setattr(scoring, 'MAX_LOGITS', (256, 256))
  config = tiny_config(**{'model.compute_dtype': 'bfloat16'})
  with mesh_of():
    model = scoring.prepare_model(model_of(config))
    table, tokens = model.lm_head, np.zeros((1, 24), np.int32)
    x = jnp.ones((24, table.shape[1]), 'bfloat16')
    text = jax.jit(scoring.compare_logits).lower(x, model, tokens[0]).compile().as_text()
  converted = re.findall(r'f32\[([\d,]+)\]\S* convert\(', text)
  assert 'bitcast-convert' in text
  assert not [shape for shape in converted if math.prod(map(int, shape.split(','))) >= table.size]


def test_float32_models_are_scored_with_exact_matmuls():
  with scoring.matmul_precision('float32'):
    assert jax.config.jax_default_matmul_precision == 'highest'
  with scoring.matmul_precision('bfloat16'):
    assert jax.config.jax_default_matmul_precision is None
