"""Comparison of answers: normalisation, exact match and F1 as in the official SQuAD and CoQA scripts."""

import collections
import re
import string

_ARTICLES = re.compile(r'\b(a|an|the)\b')
_PUNCTUATION = str.maketrans('', '', string.punctuation)


def normalize(text):
  """Return the text in lower case, without ASCII punctuation and articles, with single spaces."""
  return ' '.join(_ARTICLES.sub(' ', text.lower().translate(_PUNCTUATION)).split())


def exact_match(answer, references):
  """Whether an answer equals one of the references, both normalised."""
  return normalize(answer) in map(normalize, references)


def f1(answer, reference):
  """Return the F1 of the words of two normalised texts."""
  answer_words, reference_words = normalize(answer).split(), normalize(reference).split()
  if not answer_words or not reference_words:
    return float(answer_words == reference_words)
  common = sum((collections.Counter(answer_words) & collections.Counter(reference_words)).values())
  return 2 * common / (len(answer_words) + len(reference_words))


def coqa_f1(answer, references):
  """Return CoQA's F1: the best against all annotators but one, averaged over the one left out."""
  if len(references) == 1:
    return f1(answer, references[0])
  scores = [f1(answer, reference) for reference in references]
  return sum(max(scores[:i] + scores[i + 1:]) for i in range(len(scores))) / len(scores)
