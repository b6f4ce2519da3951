"""The control of a score: each item with the readable part of another one.

A model that reads the question answers the control at chance; one that answers from priors, like the length
or the frequency of an answer, does as well as before. The control is that of nanochat's pull request 806,
with the same draw. What is replaced depends on the item:

    lettered options in the query        the text before the first option ("A. ...", the choices are letters)
    a passage and a question             the passage (BoolQ)
    other multiple choice                the query
    language modelling                   the context
    schemas                              the continuation; nanochat has no control of them

Options and gold answers stay, and so do the few-shot examples. A text that equals the item's own is no
control, so another one is drawn; nanochat takes it.
"""

import random
import re

SEED = 99  # of the draw for the first item; that of item i is SEED + i
DRAWS = 100
PASSAGE, QUESTION = 'Passage:', '\nQuestion:'
OPTION = re.compile(r'^[ \t]*[A-Z][.)]+[ \t]', re.MULTILINE)  # the beginning of the line of a lettered option


def corrupted(items, field):
  """Return the items, each with the readable part of another item.

  Args:
    items: list of dicts.
    field: name of the field with the text to read.

  Returns:
    Items like `items`. Where all others have the same text, an item is unchanged.
  """
  parts = [split(item, field) for item in items]
  return [{**item, field: _replacement(parts, i)} for i, item in enumerate(items)]


def split(item, field):
  """Return (the readable part of the text of an item, the rest, which the control keeps)."""
  text, choices = item[field], item.get('choices', ())
  start = len(text)
  if choices and all(len(choice.strip()) == 1 and choice.strip().isalpha() for choice in choices):
    first = OPTION.search(text)
    start = first.start() if first else start
  elif choices and PASSAGE in text and QUESTION in text:
    start = text.index(QUESTION)
  return text[:start], text[start:]


def _replacement(parts, i):
  own, rest = parts[i]
  order = random.Random(SEED + i)
  for _ in range(DRAWS if len(parts) > 1 else 0):  # texts may occur several times
    j = order.randrange(len(parts) - 1)
    other, other_rest = parts[j + (j >= i)]
    if other != own and bool(other_rest) == bool(rest):
      return other + rest
  return own + rest
