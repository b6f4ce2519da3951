"""Filters all documents before a corpus is written: the filters of the recipe, then duplicates.

The features of the documents are columns on disk, one row per document: a verdict of 1 byte, and, in the
standard preset of `near_duplicates`, keys of 168 bytes and a signature of 480 bytes. Finding duplicates needs
arrays of 8 bytes per document in memory. The result depends only on the order of the documents: the earlier
one is kept. Of a document with several pieces, only the first one is compared.
"""

from typing import NamedTuple

import numpy as np

from gptjax.data.clean import near_duplicates, webtext
from gptjax.storage.files import atomic, local

VERDICTS, KEYS, SIGNATURES = 'verdicts.bin', 'keys.bin', 'signatures.bin'
FILES = (VERDICTS, KEYS, SIGNATURES)
FINAL_VERDICTS = 'judged.bin'
CHUNK_ROWS = 1 << 16


class DocumentFeatures(NamedTuple):
  """Verdicts, keys and signatures of the documents of a block; arrays with one row per document."""
  numbers: np.ndarray      # int64: index of the document in the whole source
  verdicts: np.ndarray     # uint8: the number of the filter that removes it, or 0
  keys: np.ndarray         # uint64[1 + bands]: hashes of the text and of each band of the signature
  signatures: np.ndarray   # uint32[bands * rows]
  n_bytes: int
  no_origin: int             # documents without a url or domain


def make_feature_function(recipe):
  """Return the function for workers: a list of (number, digest, text, fields) -> DocumentFeatures."""
  near = recipe.near

  def compute_features(pieces):
    n = len(pieces)
    verdicts, keys = np.zeros(n, np.uint8), np.zeros((n, 1 + near.bands), np.uint64)
    signatures = np.zeros((n, near.bands * near.rows), np.uint32)
    kept, n_bytes, no_origin = {}, 0, 0  # kept: {index: words}
    for i, (_, digest, text, fields) in enumerate(pieces):
      document = webtext.make_document(text, fields)
      n_bytes += len(text)
      no_origin += not webtext.get_domain(fields)
      verdicts[i] = webtext.find_filter(document, recipe)
      keys[i, 0] = int.from_bytes(digest[:8], 'little')
      if not verdicts[i]:
        kept[i] = document.words
    if 'near_duplicate' in recipe.filters and kept:
      signatures[list(kept)] = near_duplicates.signatures(list(kept.values()), near)
      keys[list(kept), 1:] = near_duplicates.band_keys(signatures[list(kept)], near)
    return DocumentFeatures(np.array([p[0] for p in pieces], np.int64), verdicts, keys, signatures, n_bytes,
                            no_origin)

  return compute_features


class FeatureColumns:
  """The features of all documents so far, in files."""

  def __init__(self, folder, documents, near):
    """Resume after the rows of the first `documents` documents."""
    self.documents = documents
    widths = (1, 8 * (1 + near.bands), 4 * near.bands * near.rows)
    self._files = [local.AppendOnlyFile(folder / name, width * documents)
                   for name, width in zip(FILES, widths, strict=True)]

  def add(self, features, documents):
    """Append the rows of `features`, and zeros for missing documents, up to `documents` rows in total."""
    for file, rows in zip(self._files, features[1:4], strict=True):
      filled = np.zeros((documents - self.documents, *rows.shape[1:]), rows.dtype)
      filled[features.numbers - self.documents] = rows
      file.write(filled.tobytes())
    self.documents = documents

  def sync(self):
    for file in self._files:
      file.sync()

  def close(self):
    for file in self._files:
      file.close()

  def complete(self):
    for file in self._files:
      file.complete()


def write_verdicts(folder, recipe, documents):
  """Write FINAL_VERDICTS: the verdicts including those on duplicates, uint8, one per document."""
  verdicts = local.array(folder / VERDICTS, np.uint8) if documents else np.zeros(0, np.uint8)
  assert len(verdicts) == documents, (folder, documents)
  if documents and 'exact_duplicate' in recipe.filters:
    kept = np.flatnonzero(verdicts == 0)
    earliest = _earliest(_key(folder, 0, documents, recipe.near)[kept], kept)
    verdicts[kept[earliest < kept]] = 1 + webtext.FILTERS.index('exact_duplicate')
  if documents and 'near_duplicate' in recipe.filters:
    _mark_near(folder, verdicts, recipe.near)
  atomic.write(folder / FINAL_VERDICTS, verdicts.tobytes())


def _key(folder, number, documents, near):
  """Return uint64[documents]: a column of KEYS, read CHUNK_ROWS rows at a time."""
  column, width = np.empty(documents, np.uint64), 1 + near.bands
  with local.opened(folder / KEYS) as file:
    for start in range(0, documents, CHUNK_ROWS):
      rows = local.array(file, np.uint64, CHUNK_ROWS * width).reshape(-1, width)
      column[start:start + len(rows)] = rows[:, number]
  return column


def _earliest(keys, numbers):
  """Return the first document with the same key for each document; `numbers` are sorted."""
  _, first, group = np.unique(keys, return_index=True, return_inverse=True)
  return numbers[first][group]


def _mark_near(folder, verdicts, near):
  """Mark documents with a signature similar to that of the first document that shares a band."""
  kept = np.flatnonzero(verdicts == 0)
  signatures = local.mapped(folder / SIGNATURES, np.uint32, (len(verdicts), near.bands * near.rows))
  marked = np.zeros(len(verdicts), bool)
  for band in range(near.bands):
    earliest = _earliest(_key(folder, 1 + band, len(verdicts), near)[kept], kept)
    for chunk in np.array_split(np.flatnonzero(earliest < kept),
                               1 + len(kept) // CHUNK_ROWS):
      same = near_duplicates.is_near(signatures[kept[chunk]], signatures[earliest[chunk]], near)
      marked[kept[chunk][same]] = True
  verdicts[marked] = 1 + webtext.FILTERS.index('near_duplicate')
