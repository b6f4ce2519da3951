"""Signatures against their definition in plain Python integers."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from gptjax.benchmark.subjects import near_duplicates as benchmark
from gptjax.command.parsers import prepare as prepare_flags
from gptjax.data.clean import near_duplicates, near_presets, webtext
from gptjax.data.clean.near_presets import PRESETS, Near
from gptjax.errors import InputError

M = 1 << 64
CHARACTERS = 'aAbBéÉßİΣσςſǅ漢\U0001f600\u0301\ud800\x00.\u2019\ufeff'
WORDS = st.text(CHARACTERS, min_size=1, max_size=6)
DOCUMENTS = st.lists(st.lists(WORDS, max_size=30), max_size=8)


def mix(z):
  z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % M
  z = (z ^ z >> 27) * 0x94D049BB133111EB % M
  return z ^ z >> 31


def random_number(k):
  return mix(k * 0x9E3779B97F4A7C15 % M)


def plain_signature(words, near):
  words = [word.lower() for word in words]
  n = near_duplicates.SHINGLE_WORDS
  least = [0xFFFFFFFF] * (near.bands * near.rows)
  for at in range(max(1, len(words) - n + 1)):
    phrase = ' '.join(words[at:at + n]).encode('utf-8', 'surrogatepass')
    p = sum(random_number(1 + byte) * pow(near_duplicates.P, j, M) for j, byte in enumerate(phrase)) % M
    x = mix(p) >> 32 | 1
    for i in range(len(least)):
      least[i] = min(least[i], (random_number(257 + i) >> 32 | 1) * x % 2**32)
  return least


@hypothesis.given(DOCUMENTS, st.sampled_from([Near(2, 2, 0), Near(1, 3, 0)]), st.sampled_from([7, 1 << 14]))
@hypothesis.settings(max_examples=200, deadline=None)
def test_signatures_are_those_of_the_definition(documents, near, chunk):
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(near_duplicates, 'CHUNK_WORDS', chunk)  # so that documents are hashed in parts
    found = near_duplicates.signatures(documents, near)
  assert found.dtype == np.uint32 and found.shape == (len(documents), near.bands * near.rows)
  assert found.tolist() == [plain_signature(words, near) for words in documents]
  for words, row in zip(documents, found, strict=True):
    assert near_duplicates.signature(words, near).tolist() == row.tolist()


def test_band_keys_are_equal_where_all_entries_of_the_band_are():
  near = Near(4, 3, 0.5)
  a = np.random.default_rng(1).integers(0, 1 << 32, (1000, 12), dtype=np.uint32)
  b = np.where(np.random.default_rng(2).random(a.shape) < 0.7, a, a + 1).astype(np.uint32)
  keys = [near_duplicates.band_keys(rows, near) for rows in (a, b)]
  assert keys[0].dtype == np.uint64 and keys[0].shape == (1000, 4)
  equal = (a == b).reshape(1000, 4, 3).all(axis=2)
  assert (equal == (keys[0] == keys[1])).all() and 0.2 < equal.mean() < 0.5
  same = near_duplicates.band_keys(np.ones((1, 12), np.uint32), near)
  assert len(np.unique(same)) == 4  # so that no band matches another one


@pytest.mark.parametrize('threshold', [0.0, 0.6, 0.7, 0.75, 0.8, 1.0])
def test_a_share_of_exactly_the_threshold_is_enough(threshold):
  near = Near(20, 6, threshold)
  a = np.zeros((121, 120), np.uint32)
  b = (np.arange(120) >= np.arange(121)[:, None]).astype(np.uint32)  # row k has k equal entries
  assert near_duplicates.is_near(a, b, near).tolist() == [k >= round(120 * threshold) for k in range(121)]


def jaccard(a, b):
  n = near_duplicates.SHINGLE_WORDS
  sets = [{tuple(words[i:i + n]) for i in range(len(words) - n + 1)} for words in (a.split(), b.split())]
  return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


PAIRS = 400


@pytest.mark.parametrize('similarity', [0.7, 0.8, 0.9])
def test_recall_of_each_preset_is_the_computed_one(similarity):
  """Within 4 standard errors; the documents go through files and the search for equal bands."""
  texts = benchmark.make_pairs(similarity, PAIRS)
  assert jaccard(*texts[:2]) == pytest.approx(similarity, abs=1e-3)
  for near in PRESETS.values():
    computed = near_duplicates.recall(similarity, near)
    error = max(0.25 / PAIRS, computed * (1 - computed) / PAIRS) ** 0.5
    assert benchmark.recall(texts, near) == pytest.approx(computed, abs=4 * error)


def test_standard_preset_removes_nine_of_ten_pairs_with_a_similarity_of_80_percent():
  near = webtext.make_recipe('webtext', (), '', '').near
  assert near == PRESETS['standard']
  texts = benchmark.make_pairs(0.8, 1000)
  assert jaccard(*texts[:2]) < 0.8005
  assert benchmark.recall(texts, near) >= 0.9
  assert benchmark.recall(benchmark.make_pairs(0.6, 1000), near) <= 0.01
  assert near_duplicates.recall(0.8, near) > 0.92 and near_duplicates.recall(0.6, near) < 0.001


@pytest.mark.parametrize('near', [Near(4, 3, 0.6), Near(3, 2, 0.0), Near(2, 5, 1.0), Near(1, 1, 0.3)])
def test_computed_recall_is_that_of_random_signatures(near):
  rng, n = np.random.default_rng(1), 200_000
  for similarity in (0.0, 0.4, 0.8, 1.0):
    a = np.zeros((n, near.bands * near.rows), np.uint32)
    b = (rng.random(a.shape) >= similarity).astype(np.uint32)
    compared = (near_duplicates.band_keys(a, near) == near_duplicates.band_keys(b, near)).any(axis=1)
    found = (compared & near_duplicates.is_near(a, b, near)).mean()
    assert near_duplicates.recall(similarity, near) == pytest.approx(found, abs=0.006)


FLAGS = ['--source=text:a', '--tokenizer=gpt2', '--out=out']


@pytest.mark.parametrize('flags, near', [
  ([], None), (['--near=strict'], PRESETS['strict']), (['--near_threshold=0'], Near(20, 6, 0.0)),
  (['--near=fineweb', '--near_rows=2', '--near_bands=3', '--near_threshold=0.5'], Near(3, 2, 0.5))])
def test_flags_of_prepare(flags, near):
  given = vars(prepare_flags.parser().parse_args([*FLAGS, *flags]))
  assert near_presets.resolve(*(given[name] for name in prepare_flags.NEAR_FLAGS)) == near


def test_the_parser_knows_the_presets():
  assert tuple(PRESETS) == prepare_flags.NEAR_PRESETS
  assert '20 bands of 6 entries, threshold 0.75, which removes 93 %' in ' '.join(
    prepare_flags.parser().format_help().split())
  assert PRESETS['standard'] == Near(20, 6, 0.75)
  assert round(100 * near_duplicates.recall(0.8, PRESETS['standard'])) == 93


def test_wrong_flags_are_refused():
  for flags in ['--near=none'], ['--near_bands=0'], ['--near_threshold=1.5']:
    with pytest.raises((InputError, SystemExit)):
      prepare_flags.parser().parse_args([*FLAGS, *flags])
  with pytest.raises(InputError, match=r'100 x 41 entries.* at most 4,096'):
    near_presets.resolve('strict', 100, 41)
  with pytest.raises(InputError, match='not one of standard'):
    near_presets.resolve('none')
  for name, without in ('', ()), ('webtext', ['near_duplicate']):
    with pytest.raises(InputError, match='give --clean=webtext'):
      webtext.make_recipe(name, without, '', '', PRESETS['strict'])


def test_descriptions_tell_the_numbers():
  nears = None, *PRESETS.values()
  made = [webtext.make_recipe('webtext', (), '', '', near).description for near in nears]
  assert made[0] == made[1] == 'webtext, near 20 bands of 6, threshold 0.75'
  assert len(set(made)) == len(PRESETS)
  assert 'near ' not in webtext.make_recipe('webtext', ['near_duplicate'], '', '').description
