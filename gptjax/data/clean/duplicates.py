"""Judging all documents before a corpus is written: the filters of the recipe, then duplicates.

What is known of a document goes into columns on disk, a row a document: 1 byte of verdict, 168
bytes of keys, 480 bytes of signature. Duplicates are then found with arrays of 8 bytes a
document in memory, and depend on the order of the documents alone: the earlier one stays.

Near duplicates by MinHash (Broder 1997) over phrases of 5 words, with `datasketch`: maintained
since 2015, widely used, NumPy alone on every platform, and its scheme of permutations has a name
and a seed, so that a later version gives the same result. `rensa`, written in Rust, is faster,
but young and not yet at a version 1. Of a document of many pieces, the first one is compared.
"""

import zlib
from typing import NamedTuple

import numpy as np

from gptjax.data.clean import webtext
from gptjax.data.corpus import shards
from gptjax.files import atomic

VERDICTS, KEYS, SIGNATURES = 'verdicts.bin', 'keys.bin', 'signatures.bin'
FILES = (VERDICTS, KEYS, SIGNATURES)
FINAL_VERDICTS = 'judged.bin'
SHINGLE_WORDS = 5              # words
BANDS, ROWS = 20, 6     # 99.8 % of the pairs with a similarity of 0.8 share a band, 27 % with 0.5
MIN_SIMILARITY = 0.8           # share of the signature that two documents must have in common
CHUNK_ROWS = 1 << 16


class DocumentFeatures(NamedTuple):
  """What is known of the documents of a block; arrays of one row a document."""
  numbers: np.ndarray      # int64: of the document, from 0, in the whole source
  verdicts: np.ndarray     # uint8: the number of the filter that removes it, or 0
  keys: np.ndarray         # uint64[1 + BANDS]: of the text, and of each band of the signature
  signatures: np.ndarray   # uint32[BANDS * ROWS]
  n_bytes: int
  no_origin: int             # documents that name no url or domain


def make_feature_function(recipe):
  """The function for workers, of a list of (number, digest, text, fields); it gives a Judged."""
  from datasketch import MinHash
  blank = MinHash(BANDS * ROWS, seed=1, hashfunc=int, scheme='affine32')
  near = 'near_duplicate' in recipe.filters

  def judge_block(pieces):
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

  return judge_block


def _signature(words, sketch):
  """uint32[BANDS * ROWS]: MinHash of the phrases of PHRASE words, in lower case."""
  hashes = np.fromiter((zlib.crc32(word.lower().encode()) for word in words), np.uint64, len(words))
  phrases = np.zeros(max(1, len(words) - SHINGLE_WORDS + 1), np.uint64)
  for i in range(min(SHINGLE_WORDS, len(words))):
    phrases = phrases * np.uint64(0x9E3779B97F4A7C15) + hashes[i:i + len(phrases)]
  phrases = np.unique((phrases ^ (phrases >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9) >>
                      np.uint64(32))
  for start in range(0, len(phrases), 2048):  # So that the products stay in the cache.
    sketch.update_batch(phrases[start:start + 2048].tolist())
  return sketch.hashvalues


def _band_keys(signature):
  """uint64[BANDS]: one number for the ROWS numbers of each band."""
  keys = np.zeros(BANDS, np.uint64)
  for column in signature.reshape(BANDS, ROWS).T.astype(np.uint64):
    keys = (keys ^ column) * np.uint64(0x9E3779B97F4A7C15)
    keys ^= keys >> np.uint64(32)
  return keys


class FeatureColumns:
  """What is known of the documents so far, on disk."""

  def __init__(self, folder, documents):
    """Goes on after the rows of so many documents."""
    self.documents = documents
    widths = (1, 8 * (1 + BANDS), 4 * BANDS * ROWS)
    self._files = [shards.AppendOnlyFile(folder / name, width * documents)
                   for name, width in zip(FILES, widths, strict=True)]

  def add(self, judged, documents):
    """Appends rows until there are so many; rows of zeros for those not in `judged`."""
    for file, rows in zip(self._files, judged[1:4], strict=True):
      filled = np.zeros((documents - self.documents, *rows.shape[1:]), rows.dtype)
      filled[judged.numbers - self.documents] = rows
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
  """Writes JUDGED: the verdicts, with those of duplicates added; uint8, a row a document."""
  verdicts = np.fromfile(folder / VERDICTS, np.uint8) if documents else np.zeros(0, np.uint8)
  assert len(verdicts) == documents, (folder, documents)
  if documents and 'exact_duplicate' in recipe.filters:
    standing = np.flatnonzero(verdicts == 0)
    earliest = _earliest(_key(folder, 0, documents)[standing], standing)
    verdicts[standing[earliest < standing]] = 1 + webtext.FILTERS.index('exact_duplicate')
  if documents and 'near_duplicate' in recipe.filters:
    _mark_near(folder, verdicts)
  atomic.write(folder / FINAL_VERDICTS, verdicts.tobytes())


def _key(folder, number, documents):
  """uint64[documents]: a column of KEYS, read a part of the rows at a time."""
  column, width = np.empty(documents, np.uint64), 1 + BANDS
  with open(folder / KEYS, 'rb') as file:
    for start in range(0, documents, CHUNK_ROWS):
      rows = np.fromfile(file, np.uint64, CHUNK_ROWS * width).reshape(-1, width)
      column[start:start + len(rows)] = rows[:, number]
  return column


def _earliest(keys, numbers):
  """For each document (rising `numbers`), the first one with the same key."""
  _, first, group = np.unique(keys, return_index=True, return_inverse=True)
  return numbers[first][group]


def _mark_near(folder, verdicts):
  """Marks documents whose signature is similar to that of the first one in one of their bands."""
  standing = np.flatnonzero(verdicts == 0)
  signatures = np.memmap(folder / SIGNATURES, np.uint32, 'r').reshape(-1, BANDS * ROWS)
  near = np.zeros(len(verdicts), bool)
  for band in range(BANDS):
    earliest = _earliest(_key(folder, 1 + band, len(verdicts))[standing], standing)
    for part in np.array_split(np.flatnonzero(earliest < standing),
                               1 + len(standing) // CHUNK_ROWS):
      alike = signatures[standing[part]] == signatures[earliest[part]]
      near[standing[part][alike.mean(axis=1) >= MIN_SIMILARITY]] = True
  verdicts[near] = 1 + webtext.FILTERS.index('near_duplicate')
