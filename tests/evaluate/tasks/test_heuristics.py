"""GPT-1's heuristics with a bigram model whose probabilities are known."""

import numpy as np
import pytest

from gptjax.evaluate.tasks import heuristics

WORDS = ['.', 'a', 'bad', 'cat', 'dog', 'film', 'good', 'negative', 'positive', 'sat', 'very', 'barked']


def encode(text):
  return np.array([WORDS.index(word) for word in text.split()], np.int32)


def bigram(likely):
  """A scoring function: each pair in `likely` has its log-probability, all others -9."""
  table = np.full((len(WORDS), len(WORDS)), -9.0)
  for pair, value in likely.items():
    first, second = pair.split()
    table[WORDS.index(first), WORDS.index(second)] = value
  return lambda sequences: [table[ids[:-1], ids[1:]] for ids in sequences]


def test_acceptability_is_the_mean_over_tokens_that_have_a_probability():
  score = bigram({'a cat': -1.0, 'cat sat': -2.0, '. a': -0.5})
  assert heuristics.acceptability(score, encode, ['a cat sat', 'cat a']).tolist() == [-1.5, -9]
  with_start = heuristics.acceptability(score, encode, ['a cat sat'], start=(0,))
  np.testing.assert_allclose(with_start, [-3.5 / 3])


def test_the_threshold_is_optimal():
  rng = np.random.default_rng(0)
  values, labels = rng.normal(size=60).round(1), rng.integers(0, 2, 60)
  def matthews(at):
    return np.nan_to_num(np.corrcoef(values > at, labels)[0, 1])
  with np.errstate(invalid='ignore', divide='ignore'):
    best = max(matthews(at + 0.05) for at in values)
    assert matthews(heuristics.threshold(values, labels)) == pytest.approx(best)


def test_sentiment_compares_two_words_after_very():
  score = bigram({'very negative': -3.0, 'very positive': -2.0, 'film very': -100.0})
  assert heuristics.sentiment(score, encode, ['good film', 'bad film ']).tolist() == [1, 1]
  score = bigram({'very negative': -2.0, 'very positive': -2.5})
  assert heuristics.sentiment(score, encode, ['good film']).tolist() == [0]


def test_an_answer_is_judged_by_its_mean_and_a_long_document_loses_its_beginning():
  score = bigram({'film cat': -3.0, 'cat sat': -0.5, 'film dog': -2.0})
  items = [('a a a bad', 'film', ['cat sat', 'dog'])]
  assert heuristics.question_answering(score, encode, items, n_ctx=99).tolist() == [0], 'mean, not sum'
  seen = []
  def watching(sequences):
    seen.extend(map(len, sequences))
    return score(sequences)
  assert heuristics.question_answering(watching, encode, items, n_ctx=4).tolist() == [0]
  assert max(seen) == 4


def test_a_referent_is_judged_by_the_rest_of_the_sentence_alone():
  score = bigram({'a cat': -0.1, 'a dog': -8.0, 'dog barked': -1.0, 'cat barked': -4.0, 'barked .': -1.0})
  assert heuristics.winograd(score, encode, [('a ', ['cat', 'dog'], ' barked .')]).tolist() == [1]


def test_the_scale_goes_from_chance_to_the_earlier_best():
  assert heuristics.relative_performance('sentiment', 50.0) == 0
  assert heuristics.relative_performance('sentiment', 93.2) == 1
  assert set(heuristics.SCALES) == {'acceptability', 'sentiment', 'question answering', 'winograd'}
