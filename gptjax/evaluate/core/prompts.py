"""Few-shot prompts, and the draw of the examples in them.

A prompt is the examples, each followed by an empty line, then the item. Each is a question, the delimiter and
an answer; only the contexts of language modelling are stripped. These are the prompts of DCLM and nanochat,
character for character: a space more is another token.
"""

import random

FIRST_SEED = 1234  # of the examples of the first item; that of item i is FIRST_SEED + i


def draw_examples(items, i, n):
  """Return n of the items other than item i, drawn with a seed that depends on i; all if there are fewer."""
  n = min(n, len(items) - 1)
  drawn = random.Random(FIRST_SEED + i).sample(range(len(items) - 1), n) if n > 0 else []
  return [items[j + (j >= i)] for j in drawn]


def multiple_choice(item, examples, delimiter):
  """Return one prompt per choice of an item {'query', 'choices', 'gold'}."""
  before = _shown(delimiter, ((example['query'], example['choices'][example['gold']])
                              for example in examples))
  return [f'{before}{item["query"]}{delimiter}{choice}' for choice in item['choices']]


def schema(item, examples, delimiter):
  """Return one prompt per context of an item {'context_options', 'continuation', 'gold'}."""
  before = _shown(delimiter, ((example['context_options'][example['gold']], example['continuation'])
                              for example in examples))
  return [f'{before}{context}{delimiter}{item["continuation"]}' for context in item['context_options']]


def language_modelling(item, examples, delimiter):
  """Return the prompts without and with the continuation of an item {'context', 'continuation'}.

  The former is stripped: white space at its end would be a token of its own.
  """
  before = _shown(delimiter, ((example['context'].strip(), example['continuation']) for example in examples))
  prompt = f'{before}{item["context"].strip()}{delimiter}'
  return [prompt.strip(), prompt + item['continuation']]


def _shown(delimiter, pairs):
  return ''.join(f'{question}{delimiter}{answer}\n\n' for question, answer in pairs)
