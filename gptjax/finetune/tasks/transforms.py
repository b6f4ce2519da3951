"""From an example to token sequences (section 3.3, Figure 1), with start, delimiter and end tokens.

    classification  start text end
    entailment      start premise delimiter hypothesis end
    similarity      start a delimiter b end; start b delimiter a end
    choice          start document question delimiter answer end, one sequence an answer

What does not fit in is cut at the end of a text, as the released code does. In entailment the premise gives
way, in similarity the longer text, in choice the document, then the question; so that neither hypothesis,
answer nor end token is lost. A hypothesis or answer that fills a whole sequence by itself is cut too.
"""

from typing import NamedTuple

import numpy as np

KINDS = ('classification', 'entailment', 'similarity', 'choice')
LANGUAGE_MODEL = 'language_model'  # no task but the next token: windows of a corpus, with no marks


class TaskTokens(NamedTuple):
  """Ids of the tokens that fine-tuning adds; the last one's activation is what the head reads."""
  start: int
  delimiter: int
  end: int


def task_tokens(n_vocab):
  """The three ids after those of a tokenizer, as in the released code."""
  return TaskTokens(n_vocab, n_vocab + 1, n_vocab + 2)


def make_sequences(kind, texts, answers, marks, longest):
  """The token sequences of one example.

  Args:
    kind: of KINDS.
    texts, answers: lists of int arrays, see `tasks.Task`.
    marks: Marks.
    longest: tokens that a sequence may have, marks included.

  Returns:
    ([int32 array, ...], whether something was cut).
  """
  if kind == 'classification':
    kept = [(texts[0][:longest - 2],)]
    cut = len(texts[0]) > longest - 2
  elif kind == 'entailment':
    (premise, hypothesis), room = texts, longest - 3
    hypothesis = hypothesis[:room]
    kept = [(premise[:room - len(hypothesis)], hypothesis)]
    cut = sum(map(len, texts)) > room
  elif kind == 'similarity':
    a, b = _both(*texts, longest - 3)
    kept, cut = [(a, b), (b, a)], sum(map(len, texts)) > longest - 3
  else:
    kept, cut = _choices(texts, answers, longest - 3)
  return [_marked(parts, marks) for parts in kept], cut


def _both(a, b, room):
  """Both texts, the longer one cut until they fit; neither loses what the other does not need."""
  half = room // 2
  keep_a = min(len(a), max(half, room - len(b)))
  return a[:keep_a], b[:room - keep_a]


def _choices(texts, answers, room):
  """[(document and question, answer), ...], the first the same for all answers; and whether it was cut."""
  document, question = texts[0], np.concatenate([texts[0][:0], *texts[1:]])
  longest = min(max(map(len, answers)), room)
  question = question[:room - longest]
  given = np.concatenate([document[:room - longest - len(question)], question])
  whole = sum(map(len, texts)) + max(map(len, answers))
  return [(given, answer[:room]) for answer in answers], whole > room


def _marked(parts, marks):
  ends = (marks.delimiter,) * (len(parts) - 1) + (marks.end,)
  pieces = [np.append(part, end) for part, end in zip(parts, ends, strict=True)]
  return np.concatenate([[marks.start], *pieces]).astype(np.int32)
