"""Recital: how far a model recites a known text from memory (GPT-2, section 8.2).

The paper conditions on the first sentence and a half of the Gettysburg Address, of which WebText has about 40
copies: the most likely tokens recite the speech, and samples without truncation follow it for a while and
drift away, typically within 100 to 200 tokens. Here the prompt is the first words of a text, as many as that
sentence and a half by default, and the words that follow are compared with those that the model writes.
"""

import re
from typing import NamedTuple

from gptjax.errors import InputError
from gptjax.evaluate.samples.continuations import GREEDY, Decoding, Prompt
from gptjax.generate import generation
from gptjax.text.words import plural

PROMPT_WORDS = 39  # of the Gettysburg Address: to the comma in its second sentence
SLACK = 8          # tokens by which a continuation may be longer than the rest of the text
_WORD = re.compile(r'\S+')


class Recited(NamedTuple):
  """How many words of the rest of a text a continuation begins with.

  exact: words with their case and punctuation.
  letters: words by their letters and digits in lower case alone, as the overlap study reads them.
  words: of the rest of the text.
  """
  exact: int
  letters: int
  words: int


def recited(reference, text):
  """Return the Recited of a continuation, given how the text really goes on."""
  real, written = reference.split(), text.split()
  letters = lambda words: [plain for word in words if (plain := ''.join(filter(str.isalnum, word.lower())))]
  return Recited(_same(real, written), _same(letters(real), letters(written)), len(real))


def _same(real, written):
  """Return the number of words before the first that differs."""
  n = min(len(real), len(written))
  return next((i for i in range(n) if real[i] != written[i]), n)


def decodings(number, top_k):
  """Return how each text is continued: greedily, and `number` samples each with top-k and from all tokens."""
  return [GREEDY, Decoding(number, 1.0, top_k), *[Decoding(number, 1.0, 0)] * (top_k > 0)]


def prompts(texts, prompt_words, model, tokenizer):
  """Return the Prompts of {title: text}: the first words of each.

  Raises:
    InputError: a text has no words after the prompt, or its prompt does not fit into the model's context.
  """
  made = []
  for title, text in texts.items():
    words = list(_WORD.finditer(text))
    if len(words) <= prompt_words:
      raise InputError(f'{title} has {plural(len(words), "word")}: nothing is left to recite after '
                       f'--prompt_words={prompt_words}')
    start, end = words[0].start(), words[prompt_words - 1].end()
    prompt, rest = text[start:end], text[end:].rstrip()
    ids, = generation.encode_prompts([prompt], tokenizer, model.n_ctx - 1)
    length = len(tokenizer.encode(prompt + rest)) - len(ids) + SLACK
    made.append(Prompt(title, prompt, ids, rest, min(length, model.n_ctx - len(ids))))
  return made
