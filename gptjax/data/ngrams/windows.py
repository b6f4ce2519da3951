"""The n-grams of documents that are read in pieces, and where they are.

A window is the text of a piece, preceded by the last words before it, so that each n-gram of a document is in
exactly one window. Its last word may go on in the next piece and is left to that.
"""

import itertools
from typing import NamedTuple

import numpy as np

from gptjax.data.ngrams import keys

MAX_WORD_LENGTH = 1 << 20  # characters; a longer word may be split
MAX_SEPARATOR = 64         # characters: of longer text between words, the first are carried over
DOTTED_I = '\u0130'        # the only character that is two in lower case


class Window(NamedTuple):
  """Text of a document.

  segments: [(position in the text, the same in the document)], sorted: where contiguous text begins.
  """
  text: str
  segments: list

  def spans(self, ngrams, n):
    """Return int64[k, 2]: where n-grams begin and end in the document, in characters.

    Args:
      ngrams: int array of their numbers among those of the window.
      n: words.
    """
    words = np.array([word.span() for word in keys.WORD.finditer(self.text.lower())])
    first, last = words[ngrams, 0], words[ngrams + n - 1, 1] - 1
    first, last = self._places(unlowered(self.text, np.stack([first, last])))
    return np.stack([first, last + 1], 1)

  def _places(self, positions):
    """Return int64: the positions in the document of positions in the text."""
    at, places = np.array(self.segments).T
    segment = np.searchsorted(at, positions, 'right') - 1
    return places[segment] + positions - at[segment]

  def end(self, words):
    """Return a Window of these words, [(start, stop) in the text], with what is between and after them."""
    text, segments = '', []
    stops = [*(start for start, _ in words[1:]), len(self.text)]
    for (start, end), stop in zip(words, stops, strict=True):
      segments.append((len(text), int(self._places(start))))
      text += self.text[start:min(stop, end + MAX_SEPARATOR)]
    return Window(text, segments)


class Windows:
  """Makes the windows of a stream of pieces."""

  def __init__(self, n):
    """`n`: words of an n-gram."""
    self._n, self._carry = n, Window('', [])

  def add(self, piece):
    """Return the Window of the next piece, a files.Piece."""
    before = self._carry if piece.start else Window('', [])
    window = Window(before.text + piece.text, [*before.segments, (len(before.text), piece.start)])
    self._carry = Window('', [])
    if piece.start + len(piece.text) < piece.length and (words := last_words(window.text, self._n)):
      self._carry = window.end(words)
      window = window._replace(text=window.text[:words[-1][0]])
    return window


def last_words(text, n):
  """Return [(start, stop)] of the last n words of a text.

  It is empty also if the last word is longer than MAX_WORD_LENGTH: n-grams that contain its end are lost.
  """
  lowered, size = text.lower(), 1 << 10  # lower() first: it can insert a combining mark, which ends a word
  while True:
    rest = max(0, len(lowered) - size)
    words = [(rest + word.start(), rest + word.end() - 1) for word in keys.WORD.finditer(lowered[rest:])]
    if len(words) > n or not rest:  # the first match may be the end of a longer word
      break
    size *= 8
  if not words or words[-1][1] - words[-1][0] >= MAX_WORD_LENGTH:
    return []
  return [(start, last + 1) for start, last in unlowered(text, np.array(words[-n:])).tolist()]


def unlowered(text, positions):
  """Return int64: for positions in text.lower() those of the same characters in the text."""
  if DOTTED_I not in text:
    return positions
  lengths = (1 + (character == DOTTED_I) for character in text)
  starts = np.fromiter(itertools.accumulate(lengths, initial=0), np.int64, len(text) + 1)
  return np.searchsorted(starts, positions, 'right') - 1
