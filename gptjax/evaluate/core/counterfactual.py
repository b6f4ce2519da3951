"""The control of a score: each item with the readable part of another one.

A model that reads the question answers the control at chance; one that answers from priors, like the length
or the frequency of an answer, does as well as before. The control that was proposed for nanochat (pull
request 806) replaces the query of multiple choice, of BoolQ only the passage, and the context of language
modelling; here it also replaces the continuation of schemas. Options and gold answers stay, and so do the
few-shot examples.
"""

import random

SEED = 4321  # of the draw for the first item; that of item i is SEED + i
QUESTION = '\nQuestion:'  # what separates the passage and the question of BoolQ


def corrupted(items, field, passage_only=False):
  """Return the items, each with the readable part of another item.

  Args:
    items: list of dicts.
    field: name of the field with the text to read.
    passage_only: replace only the part before QUESTION.

  Returns:
    Items like `items`. Where all others have the same text, an item is unchanged.
  """
  return [{**item, field: _replacement(items, i, field, passage_only)} for i, item in enumerate(items)]


def _replacement(items, i, field, passage_only):
  own = items[i][field]
  passage, separator, question = own.rpartition(QUESTION) if passage_only else (own, '', '')
  order = random.Random(SEED + i)
  for _ in range(100):  # texts may occur several times
    other = items[order.randrange(len(items))][field]
    if passage_only:
      other = other.rpartition(QUESTION)[0]
    if other != passage:
      return other + separator + question
  return own
