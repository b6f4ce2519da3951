"""Looks up the 8-grams of test sets, and counts those that a training text has.

What they are looked up in has a method `contains(keys)` and `metadata['sources']`: a `bloom.Filter` or the
`exact.Hits`.
"""

import itertools
from typing import NamedTuple

import numpy as np

from gptjax.data.ngrams import key_set, keys, windows
from gptjax.data.sources import documents
from gptjax.data.stages import parts
from gptjax.errors import InputError
from gptjax.evaluate.texts import spelling

OWN, TRAIN = 'own', 'train'
BLOCK_CHARACTERS = 1 << 20  # looked up together


class Overlap(NamedTuple):
  """The 8-grams of a test set that training texts have; arrays have one row per document.

  eightgrams: int64[n], 8-grams of each document.
  in_filter: {'own' | 'train': int64[n]}, those in the training text.
  looked_up: {'own' | 'train': int64[n]}, those that were looked up; not `eightgrams` for the text of a lossy
    tokenizer, which changes words.
  """
  eightgrams: np.ndarray
  in_filter: dict
  looked_up: dict

  def share(self, filter_name):
    """Return float64[n], the fraction of each document's 8-grams in a training text; 0 if it has none."""
    return self.in_filter[filter_name] / np.maximum(self.looked_up[filter_name], 1)


def _blocks(reading):
  """Yield (texts, number of the document of each, documents so far): all 8-grams of test documents, once.

  Args:
    reading: parts.ReadOptions.
  """
  stream, texts, numbers, n, size = windows.Windows(keys.N), [], [], 0, 0
  for unit in reading.units:
    for piece in documents.pieces(unit, reading.separator, reading.tfds_dir):
      if piece.problem and reading.stop_on_error:
        raise InputError(parts.unusable_message(piece.location, piece.problem))
      n += piece.start == 0
      texts.append(stream.add(piece).text)
      numbers.append(n - 1)
      size += len(texts[-1])
      if size >= BLOCK_CHARACTERS:
        yield texts, numbers, n
        texts, numbers, size = [], [], 0
  yield texts, numbers, n


def keys_of(readings, examples, sources):
  """Return the KeySet of the 8-grams of test sets that are to be looked up in a training text.

  Args:
    readings: list of parts.ReadOptions.
    examples: list of texts.
    sources: of the training text.
  """
  respell = spelling.respelling_for(sources) or str
  found = [np.empty(0, np.uint64)]
  blocks = (texts for reading in readings for texts, *_ in _blocks(reading))
  for texts in itertools.chain(blocks, [examples]):
    found.append(key_set.sorted_unique(keys.ngram_keys(list(map(respell, texts))).keys))
  return key_set.KeySet.of(np.concatenate(found))


def source_overlap(reading, filters):
  """Return the Overlap of the documents of a `parts.ReadOptions` with training texts, given by name."""
  empty = np.zeros(0, np.int64)
  overlap = Overlap(empty, dict.fromkeys(filters, empty), dict.fromkeys(filters, empty))
  for texts, numbers, n in _blocks(reading):
    rows, added = np.array(numbers, np.int64), texts_overlap(texts, filters)
    overlap = Overlap(*(
      {name: _add_counts(old[name], rows, new[name], n) for name in filters} if isinstance(old, dict)
      else _add_counts(old, rows, new, n) for old, new in zip(overlap, added, strict=True)))
  return overlap


def _add_counts(counts, numbers, added, n):
  """Return int64[n]: counts per document plus those of some pieces of documents."""
  counts = np.pad(counts, (0, n - len(counts)))
  np.add.at(counts, numbers, added)
  return counts


def texts_overlap(texts, filters):
  """Return the Overlap of a list of documents (str) with training texts, given by name."""
  plain, n, in_filter, looked_up = keys.ngram_keys(texts), len(texts), {}, {}
  for name, one in filters.items():
    respell = spelling.respelling_for(one.metadata['sources'])
    found, text = plain if respell is None else keys.ngram_keys(list(map(respell, texts)))
    in_filter[name] = np.bincount(text[one.contains(found)], minlength=n)
    looked_up[name] = np.bincount(text, minlength=n)
  return Overlap(np.bincount(plain.text_indices, minlength=n), in_filter, looked_up)
