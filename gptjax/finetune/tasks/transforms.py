"""Token sequences of an example (GPT-1, section 3.3, Figure 1), with start, delimiter and end tokens.

  classification  start text end
  entailment      start premise delimiter hypothesis end
  similarity      start a delimiter b end; start b delimiter a end
  choice          start document question delimiter answer end, one sequence per answer

Texts that do not fit are truncated at their end, as in OpenAI's code of GPT-1. Entailment truncates the
premise, similarity the longer text, choice the document, then the question, so that hypothesis, answer and
end token are kept. A hypothesis or answer that fills a whole sequence by itself is truncated too.
"""

from typing import NamedTuple

import numpy as np

KINDS = ('classification', 'entailment', 'similarity', 'choice')
LANGUAGE_MODEL = 'language_model'  # only next-token prediction: windows of a corpus, without task tokens


class TaskTokens(NamedTuple):
  """Ids of the tokens that fine-tuning adds; the head reads the activation of the end token."""
  start: int
  delimiter: int
  end: int


def task_tokens(n_vocab):
  """The three ids after those of a tokenizer, as in OpenAI's code of GPT-1."""
  return TaskTokens(n_vocab, n_vocab + 1, n_vocab + 2)


def make_sequences(kind, texts, answers, tokens, max_length):
  """The token sequences of one example.

  Args:
    kind: of KINDS.
    texts, answers: lists of int arrays, see `published.Task`.
    tokens: TaskTokens.
    max_length: maximum number of tokens in a sequence, task tokens included.

  Returns:
    ([int32 array, ...], whether a text was truncated).
  """
  if kind == 'classification':
    kept = [(texts[0][:max_length - 2],)]
    truncated = len(texts[0]) > max_length - 2
  elif kind == 'entailment':
    (premise, hypothesis), room = texts, max_length - 3
    hypothesis = hypothesis[:room]
    kept = [(premise[:room - len(hypothesis)], hypothesis)]
    truncated = sum(map(len, texts)) > room
  elif kind == 'similarity':
    a, b = _truncate_pair(*texts, max_length - 3)
    kept, truncated = [(a, b), (b, a)], sum(map(len, texts)) > max_length - 3
  else:
    kept, truncated = _choices(texts, answers, max_length - 3)
  return [_join(parts, tokens) for parts in kept], truncated


def _truncate_pair(a, b, room):
  """Both texts, cut to at most `room` tokens together; a text of at most half of `room` is kept whole."""
  half = room // 2
  keep_a = min(len(a), max(half, room - len(b)))
  return a[:keep_a], b[:room - keep_a]


def _choices(texts, answers, room):
  """[(document and question, answer), ...], one per answer, and whether a text was truncated."""
  document, question = texts[0], np.concatenate([texts[0][:0], *texts[1:]])
  longest_answer = min(max(map(len, answers)), room)
  question = question[:room - longest_answer]
  context = np.concatenate([document[:room - longest_answer - len(question)], question])
  total = sum(map(len, texts)) + max(map(len, answers))
  return [(context, answer[:room]) for answer in answers], total > room


def _join(parts, tokens):
  """The parts as one sequence with start, delimiter and end tokens."""
  ends = (tokens.delimiter,) * (len(parts) - 1) + (tokens.end,)
  pieces = [np.append(part, end) for part, end in zip(parts, ends, strict=True)]
  return np.concatenate([[tokens.start], *pieces]).astype(np.int32)
