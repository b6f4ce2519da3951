"""Near duplicates by MinHash and locality-sensitive hashing (Broder 1997; Leskovec et al., MMDS, chapter 3).

A document is the set of its phrases: SHINGLE_WORDS consecutive words, in lower case. The similarity of two
documents is the Jaccard index of their sets. Entry i of a signature is the minimum of hash i over the set, so
that two documents have an equal entry with a probability that is their similarity. A pair is a candidate if
all entries of a band of the signatures are equal, and a near duplicate if also a share of all entries of at
least the threshold is equal.

All hashes are defined here, by integers alone, so that signatures depend on no library and no machine, but
on Python's Unicode tables in one respect: the lower case of letters that a later Unicode adds.

    mix(z)      u = (z ^ z >> 30) * 0xBF58476D1CE4E5B9;  v = (u ^ u >> 27) * 0x94D049BB133111EB;  v ^ v >> 31
    random(k)   mix(k * 0x9E3779B97F4A7C15), for k = 1, 2, ...: SplitMix64 (Steele et al. 2014)
    phrase      p = sum over j of random(1 + c[j]) * P**j, with the bytes c of its words in UTF-8, joined by
                one space each
    set         x = mix(p) >> 32 | 1, odd numbers of 32 bits
    hash i      a[i] * x mod 2**32, with a[i] = random(257 + i) >> 32 | 1: a permutation of the odd numbers

All but hash i are modulo 2**64. The sum over the bytes of a phrase is a difference of two prefix sums, so
that NumPy hashes the phrases of many documents at once.

No library computes the signatures. `datasketch` 2.0 (MIT, pure Python) takes a list of hashes per document;
with it, signatures took 5 to 7 times as long. `rensa` 0.5 (MIT, in Rust, wheels of 0.5 MB) takes each phrase
as a string; with the strings it took 1.6 times as long, and before version 1 it may change its hashes.
"""

import numpy as np

from gptjax.data.clean.near_presets import Near

__all__ = ['Near', 'band_keys', 'is_near', 'recall', 'signature', 'signatures']

SHINGLE_WORDS = 5
P = 0xD6E8FEB86659FD93             # odd, and so invertible
P_INVERSE = pow(P, -1, 1 << 64)
CHUNK_WORDS = 1 << 14              # hashed at once: the arrays fit in the cache of a core


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


def recall(similarity, near):
  """Return the probability that a pair of documents with a similarity s is removed, b bands of r rows.

  Entries are equal independently, with probability s. A band is equal with s**r, one of b bands with
  1 - (1 - s**r)**b. The number of equal entries, of n = b * r, is binomial and has to be at least t * n. Both
  depend on the same entries, so that the result is not the product: with the generating function of a band
  that is not equal, g(z) = (1 - s + s * z)**r - (s * z)**r, it is

      sum over k >= t * n of: binomial(n, k) * s**k * (1 - s)**(n - k) - coefficient of z**k in g(z)**b

  Two documents with a similarity below 1 are compared only if no earlier document has the equal band.
  """
  any_band = np.ones(1)
  for _ in range(near.rows):
    any_band = np.convolve(any_band, [1 - similarity, similarity])
  not_equal = any_band.copy()
  not_equal[-1] = 0
  removed, missed = np.ones(1), np.ones(1)
  for _ in range(near.bands):
    removed, missed = np.convolve(removed, any_band), np.convolve(missed, not_equal)
  enough = np.arange(len(removed)) / (len(removed) - 1) >= near.threshold
  return float((removed - missed)[enough].sum())
