"""A group that shares a prefix has the scores of its requests one by one."""

import functools

import jax
import numpy as np
import pytest
from conftest import mesh_of, tiny_config
from hypothesis import given, settings
from hypothesis import strategies as st
from variants import VARIANTS

from gptjax.evaluate.journal import Part
from gptjax.evaluate.scoring import scores, shared_prefix
from gptjax.evaluate.scoring.evaluated_model import make_evaluated_model
from gptjax.model.gpt import GPT

TOKENS = st.lists(st.integers(0, 60), min_size=0, max_size=8)


@st.composite
def groups(draw):
  """A group of requests with a common prefix, of at most n_ctx + 1 = 25 tokens; starts may be the end."""
  prefix = draw(st.lists(st.integers(0, 60), min_size=1, max_size=16))
  requests = []
  for rest in draw(st.lists(TOKENS, min_size=1, max_size=5)):
    ids = np.array([*prefix, *rest], np.int32)
    requests.append(scores.Request(ids, draw(st.integers(1, len(ids)))))
  return requests


def model_of(**changes):
  config = tiny_config(**changes)
  return jax.jit(lambda: GPT(jax.random.key(0), config))()


@functools.cache
def small():
  with mesh_of():
    return make_evaluated_model(model_of(), None, 2)


def check(evaluated, found, wanted_groups):
  for spans, group in zip(found, wanted_groups, strict=True):
    whole = [request for request in group if request.start < len(request.ids)]
    single = iter(scores.score_requests(evaluated.model, whole, 2))
    for span, (ids, start) in zip(spans, group, strict=True):
      assert span.n == len(ids) - start
      if span.n:
        score = next(single)
        assert span.log_prob == pytest.approx(score.log_prob, abs=2e-4)
        assert span.is_greedy == score.is_greedy
      else:
        assert span.log_prob == 0 and span.is_greedy


@pytest.mark.ci
@settings(deadline=None, max_examples=20)
@given(st.lists(groups(), min_size=1, max_size=6))
def test_scores_are_those_of_the_requests_one_by_one(several):
  with mesh_of():
    check(small(), shared_prefix.score_groups(small(), 'x', several), several)


@pytest.mark.first_cases(1)
@pytest.mark.parametrize('axes, changes', [
  *(pytest.param(*case, marks=pytest.mark.slow) for case in (
    (dict(data=8), {}), (dict(data=2, fsdp=2, tensor=2), {}),
    (dict(tensor=2), {'model.init_std': 0.3, 'model.sliding_window': 3}))),
  (dict(tensor=4), {'model.norm': 'after'}),
  (dict(data=2, tensor=4), {'model.init_std': 0.3, **VARIANTS['everything']})])
def test_scores_do_not_depend_on_the_mesh_or_the_form_of_the_layers(axes, changes):
  rng = np.random.default_rng(0)
  several = []
  for _ in range(5):
    prefix = rng.integers(0, 61, rng.integers(1, 17))
    rests = [rng.integers(0, 61, rng.integers(1, 9)) for _ in range(3)]
    several.append([scores.Request(np.append(prefix, rest).astype(np.int32), len(prefix)) for rest in rests])
  with mesh_of(**axes):
    model = model_of(**changes)
    evaluated = make_evaluated_model(model, None, 16)
    check(evaluated, shared_prefix.score_groups(evaluated, 'x', several), several)
    stacked = evaluated._replace(model=model)  # as on an accelerator
    for ours, theirs in zip(shared_prefix.score_groups(stacked, 'x', several),
                            shared_prefix.score_groups(evaluated, 'x', several), strict=True):
      assert [span.log_prob for span in ours] == pytest.approx([span.log_prob for span in theirs], abs=2e-4)


def test_a_prefix_is_in_a_row_once_and_rows_without_one_are_apart():
  request = lambda *ids: scores.Request(np.array(ids, np.int32), len(ids) - 1)
  pack, = shared_prefix.pack_group(3, [request(1, 2, 3, 4, 5), request(1, 2, 3, 6, 7), request(1, 2, 3, 8)])
  assert pack.tokens.tolist() == [1, 2, 3, 4, 6] and pack.group == 3
  assert pack.segments.tolist() == [0, 0, 0, 1, 2] and pack.positions.tolist() == [0, 1, 2, 3, 3]
  assert pack.places.tolist() == [3, 4, 2] and pack.targets.tolist() == [5, 7, 8]
  first, second = shared_prefix.pack_group(0, [request(1, 2, 3, 4), request(2, 3, 4, 5)])
  assert first.tokens.tolist() == [1, 2, 3] and second.tokens.tolist() == [2, 3, 4]
  assert list(first.spans) == [0] and list(second.spans) == [1]


def test_known_groups_are_not_computed_again_and_new_ones_are_recorded(monkeypatch):
  several = [[scores.Request(np.array([1, 2, i, j], np.int32), 3) for j in (4, 5)] for i in range(4)]
  recorded, computed = {}, []
  with mesh_of():
    evaluated = small()
    whole = shared_prefix.score_groups(evaluated, 'x', several)
    known = {i: [list(span) for span in whole[i]] for i in (0, 2)}
    pack = shared_prefix.pack_group
    monkeypatch.setattr(shared_prefix, 'pack_group', lambda i, group: computed.append(i) or pack(i, group))
    part = lambda name, digests: Part(known, recorded.__setitem__)
    assert shared_prefix.score_groups(evaluated._replace(journal_part=part), 'x', several) == whole
  assert computed == [1, 3] and recorded == {i: list(whole[i]) for i in (1, 3)}
