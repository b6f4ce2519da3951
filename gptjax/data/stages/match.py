"""Finds the n-grams of test sets in the documents of a part, for the stage `judge`.

The result of a part, in addition to that of `judge`:

    NAME.found      uint32: indices of the n-grams that were found, in the sorted keys of all test sets
    NAME.stretches  STRETCH: what is left of the documents of which only the shared words are removed

N-grams are found in whole documents, also where they cross the border of two pieces.
"""

import numpy as np

from gptjax.data.ngrams import key_set, keys, windows

BATCH_CHARACTERS = 1 << 20  # whose keys are looked up together
# Text between shared words is a document of its own if it is at least so long, as in GPT-3's recipe (Brown et
# al. 2020, appendix C).
LEAST_CHARACTERS = 200
STRETCH = np.dtype([('document', '<u4'), ('start', '<u8'), ('stop', '<u8')])


class Matcher:
  """Looks up the n-grams of the documents of a part.

  Args:
    excluded: Excluded.
  """

  def __init__(self, excluded):
    self._excluded, self._windows = excluded, windows.Windows(excluded.n)
    self._document, self._batch, self._size = -1, [], 0
    self._found = []    # uint64: document << 32 | index of a key
    self._lengths = {}  # of documents that share an n-gram
    self._spans = {}    # of the shared words in them

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
    if self._size >= BATCH_CHARACTERS:
      self._look_up()

  def _look_up(self):
    batch, self._batch, self._size = self._batch, [], 0
    ngrams = keys.ngram_keys([window.text for *_, window in batch], self._excluded.n)
    at, index = self._excluded.keys.find(ngrams.keys)
    text = ngrams.text_indices[at]
    documents = np.array([document for document, *_ in batch], np.uint64)[text]
    self._found.append(key_set.sorted_unique(documents << np.uint64(32) | index.view(np.uint64)))
    for number in np.unique(text).tolist():
      document, length, window = batch[number]
      self._lengths[document] = length
      if self._excluded.spans:
        own = at[text == number] - np.searchsorted(ngrams.text_indices, number)
        found = [*self._spans.get(document, ()), *window.spans(own, self._excluded.n).tolist()]
        self._spans[document] = union(found)

  def documents(self):
    """Return {document that shares an n-gram: [(start, stop)] of its stretches that are kept}."""
    if self._batch:
      self._look_up()
    return {document: list(stretches(self._spans[document], length)) if self._excluded.spans else []
            for document, length in self._lengths.items()}

  def found(self):
    """Return (uint32: indices of the keys that were found; {test set: documents that share an n-gram})."""
    found = key_set.sorted_unique(np.concatenate([np.empty(0, np.uint64), *self._found]))
    documents, index = found >> np.uint64(32), (found & np.uint64(0xffffffff)).astype(np.uint32)
    counts = {name: len(np.unique(documents[np.isin(index, own)])) for name, own in
              self._excluded.members.items()}
    return key_set.sorted_unique(index), counts


def union(spans):
  """Return the union of spans [start, stop), sorted; those that touch become one."""
  merged = []
  for start, stop in sorted(spans):
    if merged and start <= merged[-1][1]:
      merged[-1][1] = max(merged[-1][1], stop)
    else:
      merged.append([start, stop])
  return merged


def stretches(spans, length):
  """Yield the stretches (start, stop) of a document between sorted spans that are long enough."""
  begin = 0
  for start, stop in [*spans, (length, length)]:
    if start - begin >= LEAST_CHARACTERS:
      yield begin, start
    begin = stop


def stretches_of(pieces, kept):
  """Yield each piece of a document, or the parts of it that are kept, as pieces of documents of their own.

  Args:
    pieces: iterator of (files.Piece, its document, anything) in the order of the part.
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
