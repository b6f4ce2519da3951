"""Text whose words are cut where they are too long to train a tokenizer on."""

import re

import regex

MAX_WORD_LENGTH = 1000  # characters: the time that training takes is quadratic in the length of a word


def _runs(kind, longest):
  """A pattern of what is longer than that of one kind of characters, from its beginning."""
  return rf'(?<!{kind}){kind}{{{longest + 1},}}+'


# Words of the pre-split; and, where versions of Unicode differ in what a letter is, all but lines and spaces.
_MAYBE_LONG = re.compile('|'.join((_runs('[^ \n]', MAX_WORD_LENGTH), _runs(r'\s', MAX_WORD_LENGTH))))


_LONG_WORDS = (
  re.compile(_runs(r'\s', MAX_WORD_LENGTH)),
  regex.compile('|'.join(_runs(kind, MAX_WORD_LENGTH) for kind in (r'\p{L}', r'\p{N}', r'[^ \n\p{L}\p{N}]'))),
  re.compile(_runs('[^ \n]', 8 * MAX_WORD_LENGTH)))


def cut_long_words(texts):
  """The texts, cut where words of the pre-split are longer than LONGEST_WORD, or a few of them."""
  for text in texts:
    parts = [text]
    for pattern in _LONG_WORDS if _MAYBE_LONG.search(text) else ():
      parts = [part for one in parts for part in _cut_runs(one, pattern)]
    yield from parts


def _cut_runs(text, pattern):
  start = 0
  for match in pattern.finditer(text):
    for cut in range(match.start() + MAX_WORD_LENGTH, match.end(), MAX_WORD_LENGTH):
      yield text[start:cut]
      start = cut
  yield text[start:]
