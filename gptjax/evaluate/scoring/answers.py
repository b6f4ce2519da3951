"""How answers are compared: SQuAD's normalisation, exact match and F1, as its and CoQA's official scripts."""

import collections
import re
import string

_ARTICLES = re.compile(r'\b(a|an|the)\b')
_PUNCTUATION = str.maketrans('', '', string.punctuation)


def normalize(text):
  """Lower case, no ASCII punctuation, no articles, single spaces."""
  return ' '.join(_ARTICLES.sub(' ', text.lower().translate(_PUNCTUATION)).split())


def exact_match(answer, references):
  """Whether an answer equals one of the references, both normalised."""
  return normalize(answer) in map(normalize, references)


def f1(answer, reference):
  """Harmonic mean of the shares of words that two texts have in common, normalised."""
  mine, its = normalize(answer).split(), normalize(reference).split()
  if not mine or not its:
    return float(mine == its)
  common = sum((collections.Counter(mine) & collections.Counter(its)).values())
  return 2 * common / (len(mine) + len(its))


def coqa_f1(answer, references):
  """CoQA's: the best F1 against all annotators but one, in the mean over who is left out; one: against it."""
  if len(references) == 1:
    return f1(answer, references[0])
  scores = [f1(answer, reference) for reference in references]
  return sum(max(scores[:i] + scores[i + 1:]) for i in range(len(scores))) / len(scores)
