"""Filters all documents before a corpus is written: the filters of the recipe, then duplicates.

The features of the documents are columns on disk, one row per document: a verdict of 1 byte, keys of 168
bytes, a signature of 480 bytes. Finding duplicates needs arrays of 8 bytes per document in memory. The
result depends only on the order of the documents: the earlier one is kept.

Near duplicates are found by MinHash (Broder 1997) over shingles of 5 words, with `datasketch`: it is
maintained since 2015, widely used, needs only NumPy, and its permutation scheme has a name and a seed, so
that later versions give the same result. `rensa`, written in Rust, is faster, but young and not yet at
version 1. Of a document with several pieces, only the first one is compared.
"""

import zlib
from typing import NamedTuple

import numpy as np

from gptjax.data.clean import webtext
from gptjax.storage.files import atomic, local

VERDICTS, KEYS, SIGNATURES = 'verdicts.bin', 'keys.bin', 'signatures.bin'
FILES = (VERDICTS, KEYS, SIGNATURES)
FINAL_VERDICTS = 'judged.bin'
SHINGLE_WORDS = 5
BANDS, ROWS = 20, 6     # 99.8 % of the pairs with a similarity of 0.8 share a band, 27 % with 0.5
MIN_SIMILARITY = 0.8    # equal share of the signatures of two near duplicates
CHUNK_ROWS = 1 << 16


class DocumentFeatures(NamedTuple):
  """Verdicts, keys and signatures of the documents of a block; arrays with one row per document."""
  numbers: np.ndarray      # int64: index of the document in the whole source
  verdicts: np.ndarray     # uint8: the number of the filter that removes it, or 0
  keys: np.ndarray         # uint64[1 + BANDS]: hashes of the text and of each band of the signature
  signatures: np.ndarray   # uint32[BANDS * ROWS]
  n_bytes: int
  no_origin: int             # documents without a url or domain


def make_feature_function(recipe):
  """Return the function for workers: a list of (number, digest, text, fields) -> DocumentFeatures."""
  from datasketch import MinHash
  blank = MinHash(BANDS * ROWS, seed=1, hashfunc=int, scheme='affine32')
  near = 'near_duplicate' in recipe.filters

  def compute_features(pieces):
    n = len(pieces)
    verdicts = np.zeros(n, np.uint8)
    keys, signatures = np.zeros((n, 1 + BANDS), np.uint64), np.zeros((n, BANDS * ROWS), np.uint32)
    n_bytes, no_origin = 0, 0
    for i, (_, digest, text, fields) in enumerate(pieces):
      document = webtext.make_document(text, fields)
      n_bytes += len(text)
      no_origin += not webtext.get_domain(fields)
      verdicts[i] = webtext.find_filter(document, recipe)
      keys[i, 0] = int.from_bytes(digest[:8], 'little')
      if near and not verdicts[i]:
        signatures[i] = _signature(document.words, blank.copy())
        keys[i, 1:] = _band_keys(signatures[i])
    return DocumentFeatures(np.array([p[0] for p in pieces], np.int64), verdicts, keys, signatures, n_bytes,
                            no_origin)

  return compute_features


def _signature(words, sketch):
  """Return uint32[BANDS * ROWS]: the MinHash of the shingles of SHINGLE_WORDS words, in lower case."""
  hashes = np.fromiter((zlib.crc32(word.lower().encode()) for word in words), np.uint64, len(words))
  phrases = np.zeros(max(1, len(words) - SHINGLE_WORDS + 1), np.uint64)
  for i in range(min(SHINGLE_WORDS, len(words))):
    phrases = phrases * np.uint64(0x9E3779B97F4A7C15) + hashes[i:i + len(phrases)]
  phrases = np.unique((phrases ^ (phrases >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9) >>
                      np.uint64(32))
  for start in range(0, len(phrases), 2048):  # so that the intermediate products fit in the CPU cache
    sketch.update_batch(phrases[start:start + 2048].tolist())
  return sketch.hashvalues


def _band_keys(signature):
  """Return uint64[BANDS]: a hash of the ROWS numbers of each band."""
  keys = np.zeros(BANDS, np.uint64)
  for column in signature.reshape(BANDS, ROWS).T.astype(np.uint64):
    keys = (keys ^ column) * np.uint64(0x9E3779B97F4A7C15)
    keys ^= keys >> np.uint64(32)
  return keys


class FeatureColumns:
  """The features of all documents so far, in files."""

  def __init__(self, folder, documents):
    """Resume after the rows of the first `documents` documents."""
    self.documents = documents
    widths = (1, 8 * (1 + BANDS), 4 * BANDS * ROWS)
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
    earliest = _earliest(_key(folder, 0, documents)[kept], kept)
    verdicts[kept[earliest < kept]] = 1 + webtext.FILTERS.index('exact_duplicate')
  if documents and 'near_duplicate' in recipe.filters:
    _mark_near(folder, verdicts)
  atomic.write(folder / FINAL_VERDICTS, verdicts.tobytes())


def _key(folder, number, documents):
  """Return uint64[documents]: a column of KEYS, read CHUNK_ROWS rows at a time."""
  column, width = np.empty(documents, np.uint64), 1 + BANDS
  with local.opened(folder / KEYS) as file:
    for start in range(0, documents, CHUNK_ROWS):
      rows = local.array(file, np.uint64, CHUNK_ROWS * width).reshape(-1, width)
      column[start:start + len(rows)] = rows[:, number]
  return column


def _earliest(keys, numbers):
  """Return the first document with the same key for each document; `numbers` are sorted."""
  _, first, group = np.unique(keys, return_index=True, return_inverse=True)
  return numbers[first][group]


def _mark_near(folder, verdicts):
  """Mark documents with a signature similar to that of the first document that shares a band."""
  kept = np.flatnonzero(verdicts == 0)
  signatures = local.mapped(folder / SIGNATURES, np.uint32, (len(verdicts), BANDS * ROWS))
  near = np.zeros(len(verdicts), bool)
  for band in range(BANDS):
    earliest = _earliest(_key(folder, 1 + band, len(verdicts))[kept], kept)
    for chunk in np.array_split(np.flatnonzero(earliest < kept),
                               1 + len(kept) // CHUNK_ROWS):
      equal = signatures[kept[chunk]] == signatures[earliest[chunk]]
      near[kept[chunk][equal.mean(axis=1) >= MIN_SIMILARITY]] = True
  verdicts[near] = 1 + webtext.FILTERS.index('near_duplicate')
