"""Finds the n-grams of test sets in documents, for the stage `judge`.

The result, in addition to that of `judge`:

    NAME.found        of a part; uint32: indices of the n-grams that were found, in the sorted keys of all
                      test sets
    NAME.K.stretches  of a segment; STRETCH: what is left of the documents of which only the shared words are
                      removed

N-grams are found in whole documents, also where they cross the border of two pieces.
"""

import bisect
import re

import numpy as np

from gptjax.data.ngrams import keys, windows

BATCH_CHARACTERS = 1 << 20  # whose keys are looked up together
# Text between shared words is a document of its own if it is at least so long, as in GPT-3's recipe (Brown et
# al. 2020, appendix C).
LEAST_CHARACTERS = 200
STRETCH = np.dtype([('document', '<u4'), ('start', '<u8'), ('stop', '<u8')])


class Matcher:
  """Looks up the n-grams of documents that follow each other, those of a segment.

  Args:
    keys: excluded.Keys.
    n: words of an n-gram.
    spans: whether only the shared words are removed.
  """

  def __init__(self, keys, n, spans):
    self._keys, self._n, self._cut, self._windows = keys, n, spans, windows.Windows(n)
    self._document, self._batch, self._size = -1, [], 0
    self._found = np.zeros(len(keys.keys.keys), bool)
    self._counts = dict.fromkeys(keys.members, 0)  # of documents that share an n-gram, by test set
    self._last = dict.fromkeys(keys.members, -1)   # of these documents
    self._lengths = {}  # of documents that share an n-gram
    self._spans = {}    # of the shared words in them
    self._blank = {}    # spans of white space of LEAST_CHARACTERS and more, of any documents

  def added(self, pieces):
    """Yield the pieces of the part after adding each."""
    for piece in pieces:
      self.add(piece)
      yield piece

  def add(self, piece):
    """Look up the next piece of the part."""
    self._document += piece.start == 0
    window = self._windows.add(piece)
    self._batch.append((self._document, piece.length, window))
    self._size += len(window.text)
    if self._cut:
      self._add_blank(piece)
    if self._size >= BATCH_CHARACTERS:
      self._look_up()

  def _add_blank(self, piece):
    for start, stop in blank_spans(piece.text):
      start, stop, end = piece.start + start, piece.start + stop, piece.start + len(piece.text)
      goes_on = (start == piece.start > 0) or (stop == end < piece.length)
      if stop - start >= LEAST_CHARACTERS or goes_on:
        append(self._blank.setdefault(self._document, []), start, stop)

  def _look_up(self):
    batch, self._batch, self._size = self._batch, [], 0
    ngrams = keys.ngram_keys([window.text for *_, window in batch], self._n)
    at, index = self._keys.keys.find(ngrams.keys)
    text = ngrams.text_indices[at]
    self._count(np.array([document for document, *_ in batch], np.int64)[text], index)
    numbers, starts = np.unique(text, return_index=True)
    for number, own in zip(numbers.tolist(), np.split(at, starts[1:]), strict=bool(len(numbers))):
      document, length, window = batch[number]
      self._lengths[document] = length
      if self._cut:
        own = own - np.searchsorted(ngrams.text_indices, number)
        for start, stop in window.spans(own, self._n).tolist():
          append(self._spans.setdefault(document, []), start, stop)

  def _count(self, documents, index):
    """Count keys that were found: the document and the index of each, in the order of the documents."""
    self._found[index] = True
    for name, own in self._keys.members.items():
      at = np.searchsorted(own, index)
      inside = at < len(own)
      inside[inside] = own[at[inside]] == index[inside]
      some = documents[inside]
      if len(some):  # a document may be in several batches
        self._counts[name] += 1 + int((some[1:] != some[:-1]).sum()) - int(some[0] == self._last[name])
        self._last[name] = int(some[-1])

  def documents(self):
    """Return {document that shares an n-gram: [(start, stop)] of its stretches that are kept}."""
    if self._batch:
      self._look_up()
    return {document: list(stretches(self._spans[document], length, self._blank.get(document, ())))
            if self._cut else [] for document, length in self._lengths.items()}

  def found(self):
    """Return (uint32: indices of the keys that were found; {test set: documents that share an n-gram})."""
    if self._batch:
      self._look_up()
    return np.flatnonzero(self._found).astype(np.uint32), self._counts


def append(spans, start, stop):
  """Append a span [start, stop) to spans, sorted and apart, whose last one may overlap or touch it."""
  if spans and start <= spans[-1][1]:
    spans[-1][1] = max(spans[-1][1], stop)
  else:
    spans.append([start, stop])


def blank_spans(text):
  """Yield the spans of white space at the beginning and end of a text, and the long ones between them."""
  first, end = len(text) - len(text.lstrip()), len(text.rstrip())
  if first:
    yield 0, first
  if first < end:
    long = re.compile(rf'\s{{{LEAST_CHARACTERS},}}')
    yield from (match.span() for match in long.finditer(text, first, end))
    if end < len(text):
      yield end, len(text)


def stretches(spans, length, blank):
  """Yield the stretches (start, stop) of a document between spans that are long enough, and not blank.

  Args:
    spans: the shared words, sorted.
    length: of the document.
    blank: sorted spans, all those of LEAST_CHARACTERS and more of white space.
  """
  begin, starts = 0, [start for start, _ in blank]
  for start, stop in [*spans, (length, length)]:
    if start - begin >= LEAST_CHARACTERS:
      at = bisect.bisect_right(starts, begin) - 1
      if at < 0 or blank[at][1] < start:
        yield begin, start
    begin = stop


def stretches_of(pieces, kept):
  """Yield each piece of a document, or the parts of it that are kept, as pieces of documents of their own.

  Args:
    pieces: iterator of (files.Piece, its document, anything) in the order of the segment.
    kept: STRETCH array, sorted.
  """
  documents, starts, stops = (kept[name].astype(np.int64) for name in STRETCH.names)
  for piece, document, reason in pieces:
    first, last = np.searchsorted(documents, [document, document + 1])
    if first == last or reason:
      yield piece, reason
      continue
    end = piece.start + len(piece.text)
    inside = slice(first + np.searchsorted(stops[first:last], piece.start, 'right'),
                   first + np.searchsorted(starts[first:last], end))
    for start, stop in zip(starts[inside].tolist(), stops[inside].tolist(), strict=True):
      low, high = max(start, piece.start), min(stop, end)
      text = piece.text[low - piece.start:high - piece.start]
      yield piece._replace(text=text, start=low - start, length=stop - start), reason
