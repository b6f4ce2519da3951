"""Signatures against their definition in plain Python integers."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from gptjax.data.clean import near_duplicates
from gptjax.data.clean.near_duplicates import Near

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
