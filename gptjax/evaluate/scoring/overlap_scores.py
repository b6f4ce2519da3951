"""Scores by the overlap of an example with the training corpus, which show the effect of contamination."""

import io
import itertools
import math

import numpy as np

from gptjax.errors import InputError
from gptjax.evaluate import percent
from gptjax.storage.files import access, bounded, paths
from gptjax.text import text_checks

NATS, TOKENS, TEXT = 'nats', 'tokens', 'text'
MAX_EXAMPLES = 1 << 30  # bytes of a file of examples


def read_examples(path):
  """Return the examples of an evaluation: [{'text': str, a score: number or bool, ...}].

  Args:
    path: of a JSONL file, here or in a bucket.

  Raises:
    ValueError: the file cannot be read, or a line is not such an object.
  """
  try:
    content = access.read(paths.location(path), MAX_EXAMPLES)
  except OSError as error:
    raise InputError(f'examples {path} cannot be read: {error.strerror or error}') from None
  try:
    examples = [bounded.parse(line) for line in io.StringIO(content.decode()) if line.strip()]
  except ValueError as error:
    raise InputError(f'examples {path} cannot be read: {error}') from None
  text_checks.require_valid_json(examples, str(path))
  for number, example in enumerate(examples, 1):
    if not isinstance(example, dict) or not isinstance(example.get(TEXT), str):
      raise InputError(f'{path}:{number}: not an example: it must be an object with "text" and scores')
  if not examples:
    raise InputError(f'{path} has no examples')
  return examples


def scores_by_overlap(shares, examples, edges):
  """Return the scores of all examples and of those in each overlap bucket.

  Args:
    shares: float[n], the fraction of each example's 8-grams that are in the training corpus.
    examples: list of n dicts. Numbers and booleans in them are scores, which are averaged; `nats` is a loss
      that becomes a perplexity: exp(sum of nats / sum of `tokens`), or / number of examples without tokens.
    edges: increasing; buckets are up to the first edge, from there up to the second, ..., above the last.

  Returns:
    [{'bucket': str, 'examples': int, metric: float or None}], the first for all examples.
  """
  bucket = np.searchsorted(edges, shares, side='left')
  names = [f'{edges[0]:.0%}', *(f'{low:.0%} to {high:.0%}' for low, high in itertools.pairwise(edges)),
           f'over {edges[-1]:.0%}']
  groups = {'all': examples} | {
    name: [example for example, number in zip(examples, bucket, strict=True) if number == i]
    for i, name in enumerate(names)}
  scores = [name for name in examples[0] if name not in (NATS, TOKENS) and all(
    isinstance(example.get(name), bool | int | float) for example in examples)]
  perplexity = NATS in examples[0] and ('perplexity_a_token' if TOKENS in examples[0] else 'perplexity')
  return [{'bucket': name, 'examples': len(group), **_means(group, scores, perplexity)}
          for name, group in groups.items()]


def _means(group, scores, perplexity):
  means = {name: math.fsum(example[name] for example in group) / len(group) if group else None
           for name in scores}
  if perplexity:
    tokens = sum(example.get(TOKENS, 1) for example in group)
    nats = math.fsum(example[NATS] for example in group)
    means[perplexity] = math.exp(min(700, nats / tokens)) if tokens else None
  return means


def table(name, rows):
  """Format the rows of `scores_by_overlap`, with a title; accuracies and shares of correct in per cent."""
  metrics = [metric for metric in rows[0] if metric not in ('bucket', 'examples')]
  title = f'{name} by overlap'
  width = max(24, len(title))
  lines = [f'{title:<{width}}{"examples":>10}' + ''.join(f'{m:>{len(m) + 3}}' for m in metrics)]
  for row in rows:
    values = ['-' if row[m] is None else f'{percent.to_display(m, row[m]):.4g}' for m in metrics]
    lines.append(f'{row["bucket"]:<{width}}{row["examples"]:>10,}' + ''.join(
      f'{value:>{len(m) + 3}}' for m, value in zip(metrics, values, strict=True)))
  return '\n'.join(lines)
