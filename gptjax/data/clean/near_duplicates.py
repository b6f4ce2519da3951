"""Near duplicates by MinHash and locality-sensitive hashing (Broder 1997; Leskovec et al., MMDS, chapter 3).

A document is the set of its phrases: SHINGLE_WORDS consecutive words, in lower case. The similarity of two
documents is the Jaccard index of their sets. Entry i of a signature is the minimum of hash i over the set, so
that two documents have an equal entry with a probability that is their similarity. A pair is a candidate if
all entries of a band of the signatures are equal, and a near duplicate if also a share of all entries of at
least the threshold is equal.

All hashes are defined here, by integers alone, so that signatures depend on no library and no machine:

    mix(z)      u = (z ^ z >> 30) * 0xBF58476D1CE4E5B9;  v = (u ^ u >> 27) * 0x94D049BB133111EB;  v ^ v >> 31
    random(k)   mix(k * 0x9E3779B97F4A7C15), for k = 1, 2, ...: SplitMix64 (Steele et al. 2014)
    phrase      p = sum over j of random(1 + c[j]) * P**j, with the bytes c of its words in UTF-8, joined by
                one space each
    set         x = mix(p) >> 32 | 1, odd numbers of 32 bits
    hash i      a[i] * x mod 2**32, with a[i] = random(257 + i) >> 32 | 1: a permutation of the odd numbers

The first four are modulo 2**64. A sum over bytes is the difference of two prefix sums, so that NumPy hashes
the phrases of many documents at once.
"""

from typing import NamedTuple

import numpy as np

SHINGLE_WORDS = 5
P = 0xD6E8FEB86659FD93             # odd, and so invertible
P_INVERSE = pow(P, -1, 1 << 64)
CHUNK_WORDS = 1 << 14              # hashed at once: the arrays fit in the cache of a core


class Near(NamedTuple):
  """Which pairs of documents are near duplicates."""
  bands: int         # a pair is compared if one of its bands is equal
  rows: int          # entries of the signature per band
  threshold: float   # least share of equal entries of a near duplicate, in [0, 1]


PRESETS = {  # see `recall`; docs/howto/corpora.md has its values
  'standard': Near(20, 6, 0.75),  # removes over 90 % of the pairs with a similarity of 0.8, 12 % with 0.7
  'strict': Near(20, 6, 0.8),     # half of the pairs with 0.8, 1 % with 0.7
  'precise': Near(32, 8, 0.76),   # as `standard`, but 2 % with 0.7; twice the time and the disk
  'fineweb': Near(14, 8, 0.0)}    # without a threshold, as FineWeb (Penedo et al. 2024): 56 % with 0.7


def describe(near):
  """Return the numbers in words, for manifests."""
  return f'{near.bands} bands of {near.rows}, threshold {near.threshold:g}'


def _mix(z):
  """Return a bijective hash of uint64 numbers."""
  z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
  z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
  return z ^ (z >> np.uint64(31))


def _random(first, n):
  """Return n random uint64 numbers, those from number `first` on."""
  return _mix(np.arange(first, first + n, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))


_BYTES = _random(1, 256)


def signature(words, near):
  """Return uint32[bands * rows]: the signature of a document, a list of words without white space."""
  return signatures([words], near)[0]


def signatures(documents_words, near):
  """Return uint32[n, bands * rows]: the signatures of n documents, each a list of words without white space.

  A document of fewer than SHINGLE_WORDS words is one phrase.
  """
  factors = (_random(257, near.bands * near.rows) >> np.uint64(32)).astype(np.uint32) | np.uint32(1)
  found = np.full((len(documents_words), len(factors)), 0xFFFFFFFF, np.uint32)
  for number, chunk in _chunks(documents_words):
    x, begins = _phrases(chunk)
    products, least = np.empty_like(x), np.empty((len(factors), len(chunk)), np.uint32)
    for i, factor in enumerate(factors):
      np.multiply(x, factor, out=products)
      np.minimum.reduceat(products, begins, out=least[i])
    rows = found[number:number + len(chunk)]
    np.minimum(rows, least.T, out=rows)
  return found


def _chunks(documents_words):
  """Yield (number of the first document, lists of words); a long document is in several chunks."""
  chunk, size, first = [], 0, 0
  for number, words in enumerate(documents_words):
    for start in range(0, max(1, len(words) - SHINGLE_WORDS + 1), CHUNK_WORDS):
      part = words[start:start + CHUNK_WORDS + SHINGLE_WORDS - 1] or ['']
      if chunk and (start or size + len(part) > CHUNK_WORDS):
        yield first, chunk
        chunk, size = [], 0
      first = number if not chunk else first
      chunk.append(part)
      size += len(part)
  if chunk:
    yield first, chunk


def _phrases(chunk):
  """Return (x of all phrases of lists of words, index of the first phrase of each list)."""
  text = ' '.join(map(' '.join, chunk)).lower().encode('utf-8', 'surrogatepass')
  data = np.frombuffer(text, np.uint8)
  ends = np.append(np.flatnonzero(data == 0x20), len(data))
  counts = np.fromiter(map(len, chunk), np.int64, len(chunk))
  assert len(ends) == counts.sum(), 'a word has white space'
  powers, inverses = _powers(len(data))
  sums = np.zeros(len(data) + 1, np.uint64)
  np.cumsum(_BYTES[data] * powers, out=sums[1:])
  phrases = np.maximum(1, counts - SHINGLE_WORDS + 1)
  begins = np.cumsum(phrases) - phrases
  first = np.arange(phrases.sum()) + np.repeat(np.cumsum(counts) - counts - begins, phrases)
  last = np.minimum(first + SHINGLE_WORDS - 1, np.repeat(np.cumsum(counts) - 1, phrases))
  starts = np.where(first > 0, ends[first - 1] + 1, 0)
  hashes = (sums[ends[last]] - sums[starts]) * inverses[starts]
  return (_mix(hashes) >> np.uint64(32)).astype(np.uint32) | np.uint32(1), begins


_tables = [np.ones(1, np.uint64)] * 2


def _powers(n):
  """Return (P**j, P**-j) for j < n, as uint64 arrays; the largest so far are kept, up to 1 MB of text."""
  tables = _tables
  if n > len(tables[0]):
    size = 1 << n.bit_length()
    tables = [np.cumprod(np.r_[np.uint64(1), np.full(size, p, np.uint64)]) for p in (P, P_INVERSE)]
    if size <= 1 << 20:
      _tables[:] = tables
  return tables[0][:n], tables[1]


def band_keys(signatures, near):
  """Return uint64[n, bands]: a hash of the entries of each band, and of the number of the band."""
  keys = np.tile(_random(1, near.bands), (len(signatures), 1))
  entries = signatures.reshape(len(signatures), near.bands, near.rows)
  for row in range(near.rows):
    keys = _mix(keys ^ entries[:, :, row])
  return keys


def is_near(a, b, near):
  """Return bool[n]: whether rows of two arrays of n signatures have enough equal entries."""
  return (a == b).sum(axis=1) / (near.bands * near.rows) >= near.threshold
