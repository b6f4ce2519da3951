"""Cuts words that are too long for training a tokenizer."""

import re

import regex

MAX_WORD_LENGTH = 1000  # characters: training time is quadratic in the length of a word


def _runs(kind, longest):
  """Return a pattern of runs longer than `longest` of one kind of characters."""
  return rf'(?<!{kind}){kind}{{{longest + 1},}}+'


# Words of the pre-tokenization. Versions of Unicode differ in their letters, hence all but lines and spaces.
_MAYBE_LONG = re.compile('|'.join((_runs('[^ \n]', MAX_WORD_LENGTH), _runs(r'\s', MAX_WORD_LENGTH))))


_LONG_WORDS = (
  re.compile(_runs(r'\s', MAX_WORD_LENGTH)),
  regex.compile('|'.join(_runs(kind, MAX_WORD_LENGTH) for kind in (r'\p{L}', r'\p{N}', r'[^ \n\p{L}\p{N}]'))),
  re.compile(_runs('[^ \n]', 8 * MAX_WORD_LENGTH)))


def cut_long_words(texts):
  """Yield the texts, cut where words of the pre-tokenization are longer than MAX_WORD_LENGTH."""
  for text in texts:
    parts = [text]
    for pattern in _LONG_WORDS if _MAYBE_LONG.search(text) else ():
      parts = [cut for part in parts for cut in _cut_runs(part, pattern)]
    yield from parts


def _cut_runs(text, pattern):
  start = 0
  for match in pattern.finditer(text):
    for cut in range(match.start() + MAX_WORD_LENGTH, match.end(), MAX_WORD_LENGTH):
      yield text[start:cut]
      start = cut
  yield text[start:]
