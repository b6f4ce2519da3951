"""The n-grams of texts as 64-bit keys; GPT-2, section 4, has n = 8.

Texts are converted to lower case; words are the longest runs of letters and digits. n consecutive words of
one text, joined by single spaces, are an n-gram. Its key is a hash of that string, computed for a whole block
of texts at once:

    key = mix(sum of value(character i) B^i, mod 2^64)      i from 0 at the first character of the n-gram

With prefix sums over the block, every n-gram takes one subtraction. Another n-gram has the key of any of m
n-grams with a probability of about m / 2^64: 5e-10 for the ten billion of WebText. Texts can be constructed
whose n-grams share a key (words of a thousand letters in the order of the Thue-Morse sequence), so keys do
not identify text that somebody has written for this purpose.
"""

import functools
import re
from typing import NamedTuple

import numpy as np

N = 8                            # words, as in the paper
BASE = 0x9E3779B97F4A7C15        # B, odd, so that it has an inverse mod 2^64
INVERSE = pow(BASE, -1, 1 << 64)
WORD = re.compile(r'[^\W_]+')     # the characters of str.isalnum
SEPARATOR = '\n'  # of the texts of a block; any character that is not a letter or digit would do
N_CHARACTERS = 0x110000


class NgramKeys(NamedTuple):
  """The n-grams of some texts in order, with repetitions."""
  keys: np.ndarray          # uint64[m]
  text_indices: np.ndarray  # int64[m]: index of the text that contains the n-gram


def ngram_keys(texts, n=N):
  """Return the NgramKeys of a list of str, for n words."""
  lowered = [text.lower() for text in texts]
  block = SEPARATOR.join([*lowered, ''])
  ends = np.cumsum([len(text) + len(SEPARATOR) for text in lowered], dtype=np.int64)
  ascii_only = block.isascii()
  characters = (np.frombuffer(block.encode(), np.uint8) if ascii_only
                else np.frombuffer(block.encode('utf-32-le', 'surrogatepass'), np.uint32))
  alphanumeric, values = _character_tables(128 if ascii_only else N_CHARACTERS)
  mask = alphanumeric[characters]
  word_ends = np.flatnonzero(mask[:-1] & ~mask[1:]) + 1  # the first position after each word
  mask[word_ends] = True  # keep one separator per word, the first character after it, hashed as a space
  compact = characters[mask]
  separators = np.flatnonzero(~alphanumeric[compact])
  assert len(separators) == len(word_ends), 'each word ends before the block does'
  if len(word_ends) < n:
    return NgramKeys(np.empty(0, np.uint64), np.empty(0, np.int64))

  values = values[compact]
  values[separators] = _character_tables(128)[1][ord(' ')]
  sums = np.zeros(len(compact) + 1, np.uint64)
  np.cumsum(values * _powers(BASE, len(compact)), out=sums[1:])
  starts = np.append(0, separators[:-1] + 1)[:len(separators) + 1 - n]
  ngrams = mix((sums[separators[n - 1:]] - sums[starts]) * _powers(INVERSE, len(compact))[starts])
  text_of_word = np.searchsorted(ends, word_ends, side='right')
  in_one_text = text_of_word[:len(word_ends) + 1 - n] == text_of_word[n - 1:]
  return NgramKeys(ngrams[in_one_text], text_of_word[n - 1:][in_one_text])


def mix(x):
  """Apply the finalizer of SplitMix64: a bijection in which each output bit depends on all input bits."""
  x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
  x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
  return x ^ (x >> np.uint64(31))


@functools.cache
def _character_tables(n):
  """Return (bool[n] whether a letter or digit, uint64[n] hash value) of the code points 0 to n - 1."""
  alphanumeric = np.fromiter((chr(c).isalnum() for c in range(n)), bool, n)
  return alphanumeric, mix(np.arange(1, n + 1, dtype=np.uint64) * np.uint64(BASE))


def _powers(base, n):
  """Return uint64[n]: 1, base, base^2, ... mod 2^64."""
  return _power_table(base, 1 << max(n - 1, 1).bit_length())[:n]


@functools.lru_cache(maxsize=8)
def _power_table(base, n):
  powers = np.full(n, base, np.uint64)
  powers[0] = 1
  return np.multiply.accumulate(powers)
