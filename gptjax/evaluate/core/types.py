"""The three types of tasks: what is scored of the prompts, and when an answer is correct.

    type               items have                            scored            correct if
    multiple_choice    query, choices, gold                  each choice       gold has the lowest mean loss
    schema             context_options, continuation, gold   the continuation  gold has the lowest mean loss
    language_modeling  context, continuation                 the continuation  all tokens are the most likely

The scored tokens are found by comparing the encoded prompts: those of the choices after their common prefix,
those of a schema in their common suffix.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from gptjax.evaluate.core import prompts
from gptjax.evaluate.scoring.evaluated_model import common_prefix
from gptjax.evaluate.scoring.scores import Request
from gptjax.evaluate.texts import schema as layout
from gptjax.evaluate.texts.sources import NotRun

TEXT, INDEX = layout.text(blank=True), layout.integer(0, 1000)


class Type(NamedTuple):
  """A type of tasks.

  fields: {field of an item: layout.Kind}.
  options: the field with the options, of which `gold` is the index of the correct one; '' if there is none.
  read: the field that a model must read to answer, which the counterfactual control replaces.
  prompts: function of (item, example items, delimiter) that returns texts.
  starts: function of the encoded prompts that returns [(ids, index of the first scored token)].
  """
  fields: dict
  options: str
  read: str
  prompts: Callable
  starts: Callable


def choice_starts(encoded):
  """Each prompt, scored from the end of the common prefix of all of them."""
  start = min(common_prefix(encoded[0], ids) for ids in encoded)
  return [(ids, start) for ids in encoded]


def schema_starts(encoded):
  """Each prompt, of which the common suffix of all is scored."""
  n = min(common_prefix(encoded[0][::-1], ids[::-1]) for ids in encoded)
  return [(ids, len(ids) - n) for ids in encoded]


def continuation_starts(encoded):
  """The prompt with the continuation, scored from where it differs from that without.

  With GPT-2's tokenizer that is the length of the prompt without; the ends of other tokenizers' tokens may
  lie elsewhere.
  """
  without, whole = encoded
  return [(whole, common_prefix(without, whole))]


TYPES = {
  'multiple_choice': Type({'query': TEXT, 'choices': layout.list_of(TEXT, 2), 'gold': INDEX}, 'choices',
                          'query', prompts.multiple_choice, choice_starts),
  'schema': Type({'context_options': layout.list_of(TEXT, 2), 'continuation': TEXT, 'gold': INDEX},
                 'context_options', 'continuation', prompts.schema, schema_starts),
  'language_modeling': Type({'context': TEXT, 'continuation': layout.text()}, '', 'context',
                            prompts.language_modelling, continuation_starts)}


def make_requests(evaluated, kind, texts):
  """Return [Request] of the prompts of one item.

  A prompt begins with the start-of-text token, if the tokenizer has one. Of a prompt that is longer than the
  context, the last n_ctx tokens are kept.

  Args:
    evaluated: EvaluatedModel.
    kind: Type.
    texts: prompts of `kind.prompts`.

  Raises:
    NotRun: scored tokens would be cut off, or a prompt has no tokens.
  """
  start_of_text, n_ctx = evaluated.tokenizer.start_of_text, evaluated.model.n_ctx
  first = np.asarray([] if start_of_text is None else [start_of_text], np.int32)
  encoded = [np.concatenate([first, np.asarray(evaluated.tokenizer.encode(text), np.int32)])
             for text in texts]
  if not all(map(len, encoded)):
    raise NotRun('an example has no tokens in this tokenizer, which has no start-of-text token either')
  requests = []
  for ids, start in kind.starts(encoded):
    cut, start = max(0, len(ids) - n_ctx), max(1, start)
    if start <= cut:
      raise NotRun(f'{len(ids) - start} tokens to score do not fit into a context of {n_ctx}: this task '
                   'needs a model with a longer context')
    requests.append(Request(ids[cut:], start - cut))
  return requests


def answer(kind, spans):
  """Return the index of the chosen option; of language modelling, whether the continuation is greedy.

  A continuation without tokens, which some tokenizers may make of unusual characters, is not correct.

  An option without a token of its own (it is the beginning of the other ones) has no mean loss; it is chosen
  only if it is the first, as in nanochat, where its mean is NaN.
  """
  if not kind.options:
    return spans[0].n > 0 and spans[0].is_greedy
  losses = [mean_loss(span) for span in spans]
  return 0 if math.isnan(losses[0]) else min(range(len(losses)), key=lambda i: _last_if_nan(losses[i]))


def mean_loss(span):
  """Mean loss of a Span, nats per token; NaN without tokens."""
  return -span.log_prob / span.n if span.n else math.nan


def _last_if_nan(value):
  return math.inf if math.isnan(value) else value
