"""GPT-1's zero-shot heuristics (section 5, Figure 2 right): tasks without any training on them.

All of them take two functions:
  score(sequences): returns, for a list of sequences of token ids, a list of float arrays one shorter; entry t
    is log p(token t + 1 | tokens 0 .. t) in nats.
  encode(text): returns the token ids of a text.
They also take `start`: ids at the start of every sequence, such as (start_of_text,). If it is empty, the
first token of a text has no probability and is not counted.
"""

import numpy as np

# Chance and the state of the art before GPT-1, in per cent. The paper prints no end points of its scale:
# those of the first two are from its Table 4; 51.2 is an ensemble's (Table 3 has no single model); 76.4 is of
# DPRD.
SCALES = {'acceptability': (0.0, 35.0), 'sentiment': (50.0, 93.2), 'question answering': (25.0, 51.2),
          'winograd': (50.0, 76.4)}


def relative_performance(task, value):
  """Return a result on a scale from chance (0) to the state of the art before GPT-1 (1)."""
  chance, earlier_best = SCALES[task]
  return (value - chance) / (earlier_best - chance)


def acceptability(score, encode, sentences, start=()):
  """Return, for CoLA, float[n]: the mean token log-probability of each sentence, for a threshold."""
  return np.array([logp.mean() for logp in score([_join(start, encode(text)) for text in sentences])])


def threshold(values, labels):
  """Return the threshold whose predictions `values > threshold` have the best Matthews correlation.

  The paper does not say how it chooses one; pass the values of training sentences.

  Args:
    values: float[n].
    labels: int[n], 0 or 1.
  """
  values, labels = np.asarray(values, np.float64), np.asarray(labels, np.float64)
  order = np.argsort(values)
  below, n, positive = values[order], len(labels), labels.sum()
  # A threshold above the i lowest values predicts 0 for them: tn of these have label 0, fn label 1.
  fn = np.cumsum(labels[order])[:-1]
  tn = np.arange(1, n) - fn
  tp, fp = positive - fn, (n - positive) - tn
  product = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
  matthews = np.where(product > 0, (tp * tn - fp * fn) / np.sqrt(np.maximum(product, 1)), 0)
  matthews[below[1:] == below[:-1]] = -2  # no threshold separates equal values
  best = int(matthews.argmax())
  return (below[best] + below[best + 1]) / 2


def sentiment(score, encode, texts, start=(), very=' very', words=(' negative', ' positive')):
  """Return, for SST-2, int[n]: the index of the most likely word after the text and the token `very`."""
  ends = [encode(word) for word in words]
  contexts = [_join(start, encode(text.rstrip()), encode(very)) for text in texts]
  return _most_likely(score, [[(context, end) for end in ends] for context in contexts], np.sum)


def question_answering(score, encode, items, n_ctx, start=()):
  """Return, for RACE, int[n]: the answer of the highest mean token log-probability.

  Args:
    items: list of (document, question, [answer, ...]); documents are truncated on the left.
    n_ctx: longest sequence that can be scored.
  """
  pairs = []
  for document, question, answers in items:
    answers = [' ' + answer.strip() if answer.strip() else '' for answer in answers]
    ends = [encode(answer)[:n_ctx - len(start) - 1] for answer in answers]
    max_before = n_ctx - len(start) - max(map(len, ends))
    before = _join(encode(document), encode(' ' + question.strip()))[-max_before:]
    pairs.append([(_join(start, before), end) for end in ends])
  return _most_likely(score, pairs, np.mean)


def winograd(score, encode, items, start=()):
  """Return, for schemas, int[n]: the referent after which the rest of the sentence is most likely per token.

  Args:
    items: list of (text before the pronoun, [referent, ...], text after it).
  """
  pairs = [[(_join(start, encode(before + referent)), encode(after)) for referent in referents]
           for before, referents, after in items]
  return _most_likely(score, pairs, np.mean)


def _join(*parts):
  return np.concatenate([np.asarray(part, np.int32) for part in parts])


def _most_likely(score, pairs, reduce):
  """Return int[n]: the pair (before, end) of each item with the most likely end.

  `reduce` is the sum or the mean of the log-probabilities of its tokens.

  An empty end is never chosen.
  """
  flat = [pair for item in pairs for pair in item]
  logps = score([_join(*pair) for pair in flat])
  values = iter([float(reduce(logp[len(logp) - len(end):])) if len(end) else -np.inf
                 for logp, (_, end) in zip(logps, flat, strict=True)])
  return np.array([int(np.argmax([next(values) for _ in item])) for item in pairs])
