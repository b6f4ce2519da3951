"""Bloom filters of 8-grams, in files that can be larger than the memory.

A filter is cut into parts of 2^20 bits. A key's high bits choose its part, and all its hashes set bits
there, so that a part is filled in a processor's cache and parts are filled by many processes. The number of
keys in a part varies by half a per cent, for which a filter gets 2 % more bits than the formula asks. After
Bloom (1970):

    n keys, a rate p of false positives:   hashes k = -log2 p,   bits = n k / ln 2

At the paper's p = 1e-8 that is 27 hashes and 39 bits a key. A file is the bits; then, in JSON, the filter's
shape, what it was made of, and the digests of the bits and of this JSON; then the length of that in 8
bytes.
"""

import contextlib
import hashlib
import json
import math
import os
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gptjax.data import progress as progress_bar
from gptjax.data.corpus import corpus_manifest
from gptjax.errors import InputError
from gptjax.evaluate.overlap import eightgrams
from gptjax.files import atomic, json_files

VERSION = 1  # of the file, and of the keys
LENGTH = struct.Struct('<Q')
AGAIN = 'remove it and build it again'
# What a filter says of itself.
LAYOUT = {**dict.fromkeys(('parts', 'hashes', 'capacity', 'distinct', 'eightgrams', 'documents'), int),
          'rate': json_files.NUMBER, 'expected': json_files.NUMBER, 'sources': [str], 'sha256': str}
PART_BITS = 1 << 20
PART_BYTES = PART_BITS // 8
SLACK = 1.02
PARTS_AT_A_TIME = 64       # read, hashed or merged
# Odd numbers: the top 20 bits of key * MULTIPLIERS[j] are the j-th bit of the key.
MULTIPLIERS = eightgrams.mixed(np.arange(1, 65, dtype=np.uint64)) | np.uint64(1)


class Shape(NamedTuple):
  """What two filters must have in common to be merged."""
  parts: int     # of PART_BITS bits
  hashes: int    # bits that a key sets

  @classmethod
  def of(cls, n_keys, rate):
    """The smallest filter whose rate of false positives is `rate` when it holds so many keys."""
    hashes = math.ceil(-math.log2(rate))
    return cls(max(1, math.ceil(SLACK * n_keys * -math.log2(rate) / math.log(2) / PART_BITS)), hashes)


class Filter(NamedTuple):
  """A filter that is on disk."""
  path: Path
  shape: Shape
  facts: dict        # `rate` of false positives that was asked for, `expected` rate by its bits, `sources`,
                     # and numbers: `capacity`, `documents`, `eightgrams`, `distinct` (at most) of them
  bits: np.ndarray   # uint8[parts, PART_BYTES], mapped; the lowest bit of a byte comes first

  def contains(self, keys):
    """bool[n] for uint64[n]: False is certain, True is wrong at the filter's rate."""
    found = np.zeros(len(keys), bool)
    alive = np.arange(len(keys))
    for j in range(self.shape.hashes):
      alive = alive[self.has_bit(keys[alive], j)]
    found[alive] = True
    return found

  def has_bit(self, keys, j):
    """bool[n]: whether the j-th bit of each key is set."""
    bit = bits_of(keys, MULTIPLIERS[j])
    byte = self.bits[part_of(keys, self.shape.parts), bit >> 3]
    return (byte >> (bit & 7).astype(np.uint8)) & 1 == 1


def part_of(keys, parts):
  """int64[n]: the part of each key; it rises with the key."""
  return (((keys >> np.uint64(32)) * np.uint64(parts)) >> np.uint64(32)).view(np.int64)


def bits_of(keys, multipliers):
  """int64: the bits, in its part, that each key has for some MULTIPLIERS that broadcast against it."""
  return ((keys * multipliers) >> np.uint64(64 - PART_BITS.bit_length() + 1)).view(np.int64)


def part_bits(keys, hashes, flags):
  """The bytes of a part and the share of its bits that are set.

  Args:
    keys: uint64[n], all of one part.
    hashes: bits a key.
    flags: uint8[PART_BITS] to work in.
  """
  flags[:] = 0
  flags[bits_of(keys, MULTIPLIERS[:hashes, None]).ravel()] = 1
  return np.packbits(flags, bitorder='little'), np.count_nonzero(flags) / PART_BITS


def complete(path, target, facts, tell):
  """Adds to a file of bits what it is, and gives it its name.

  Args:
    path: of the file, synced.
    target: the name of the finished filter, in the same file system.
    facts: JSON.
    tell: called with the number of bytes just read.
  """
  facts = {**facts, 'version': VERSION, 'sha256': _sha256(path, path.stat().st_size, tell)}
  facts['digest'] = corpus_manifest.manifest_digest(facts)
  text = json.dumps(facts, sort_keys=True).encode()
  with open(path, 'ab', opener=atomic.no_follow) as file:
    file.write(text + LENGTH.pack(len(text)))
    file.flush()
    os.fsync(file.fileno())
  atomic.rename(path, target)


def _sha256(path, size, tell):
  """SHA-256 (hex) of the first `size` bytes of a file."""
  seen = hashlib.sha256()
  with open(path, 'rb') as file:
    while size and (chunk := file.read(min(size, PARTS_AT_A_TIME * PART_BYTES))):
      seen.update(chunk)
      tell(len(chunk))
      size -= len(chunk)
  return seen.hexdigest()


def open_filter(path, *, progress=True):
  """The Filter in a file, after a comparison of all its bits with their digest.

  Args:
    path: of the file.
    progress: show a bar on stderr if that takes long.

  Raises:
    ValueError: no such file, not a filter, of another version, damaged or cut short.
  """
  path = Path(path)
  facts, n_bytes = _facts(path)
  if n_bytes != facts['parts'] * PART_BYTES:
    raise InputError(f'{path} has {n_bytes:,} bytes of bits, not {facts["parts"] * PART_BYTES:,}: {AGAIN}')
  with progress_bar.bytes_bar(f'verifying {path.name}', progress, total=n_bytes, delay=1, leave=False) as bar:
    if _sha256(path, n_bytes, bar.update) != facts['sha256']:
      raise InputError(f'{path} is damaged, its bits have another SHA-256 than it says: {AGAIN}')
  bits = np.memmap(path, np.uint8, 'r', 0, (facts['parts'], PART_BYTES))
  return Filter(path, Shape(facts['parts'], facts['hashes']), facts, np.asarray(bits))


def _facts(path):
  """(what a filter says of itself, bytes before that)."""
  try:
    with open(path, 'rb') as file:
      size = file.seek(0, os.SEEK_END)
      file.seek(max(0, size - LENGTH.size))
      last = file.read()
      length, = LENGTH.unpack(last) if len(last) == LENGTH.size else (0,)
      n_bytes = max(0, size - LENGTH.size - length)
      file.seek(n_bytes)
      text = file.read(min(length, size))
  except OSError as error:
    raise InputError(f'filter {path}: {error.strerror}') from None
  try:
    facts = json_files.parse(text)
  except ValueError:
    facts = None
  if not isinstance(facts, dict) or facts.get('version') != VERSION:
    raise InputError(f'{path} is not a filter of version {VERSION}, or was cut short: {AGAIN}')
  if facts.get('digest') != corpus_manifest.manifest_digest(facts):
    raise InputError(f'{path}: what it says of itself has been changed: {AGAIN}')
  fault = json_files.layout_fault(facts, LAYOUT)
  if fault or not (0 < facts['parts'] <= n_bytes and 0 < facts['hashes'] <= len(MULTIPLIERS)):
    raise InputError(f'{path} is not a filter: {fault or "its shape cannot be"}: {AGAIN}')
  return facts, n_bytes


def merge(filters, target, *, progress=True):
  """Writes the filter of all that is in any of `filters`, which is the union of their bits.

  Args:
    filters: list of Filter.
    target: path of the new one.
    progress: show a bar on stderr.

  Raises:
    ValueError: they have different shapes; together they are too full for the rate that they promise.
  """
  if len({one.shape for one in filters}) > 1:
    shapes = ', '.join(f'{one.path.name} {one.shape.parts:,} parts and {one.shape.hashes} hashes'
                       for one in filters)
    raise InputError(f'filters of different shapes cannot be merged ({shapes}): build them with one '
                     '--capacity, that of all together, and one --rate')
  (parts, hashes), target = filters[0].shape, Path(target)
  fresh, expected = atomic.new_name(target), 0.0
  with (contextlib.ExitStack() as failed,
        progress_bar.bytes_bar('merging', progress, total=2 * parts * PART_BYTES) as bar):
    failed.callback(atomic.remove, fresh)
    with open(fresh, 'xb', opener=atomic.no_follow) as file:
      for start in range(0, parts, PARTS_AT_A_TIME):
        union = np.bitwise_or.reduce([one.bits[start:start + PARTS_AT_A_TIME] for one in filters])
        fill = np.bitwise_count(union).sum(1, dtype=np.int64) / PART_BITS
        expected += float((fill ** hashes).sum())
        file.write(union)
        bar.update(union.size)
    each = [one.facts for one in filters]
    facts = {'parts': parts, 'hashes': hashes, 'rate': max(f['rate'] for f in each),
             'capacity': each[0]['capacity'], 'expected': expected / parts,
             'sources': [source for f in each for source in f['sources']],
             **{name: sum(f[name] for f in each) for name in ('documents', 'eightgrams', 'distinct')}}
    check_rate(facts)
    complete(fresh, target, facts, bar.update)
    failed.pop_all()


def check_rate(facts):
  """ValueError if a filter is too full for its rate."""
  if facts['expected'] > facts['rate']:
    raise InputError(
      f'a filter for {facts["capacity"]:,} 8-grams, which holds {facts["distinct"]:,}, has a rate of false '
      f'positives of {facts["expected"]:.1e} and not {facts["rate"]:.1e}: build with '
      f'--capacity={facts["distinct"]}')


class Measured(NamedTuple):
  """How often 8-grams that were made up are found in a filter."""
  strings: int
  found: int      # of them in it
  tests: int      # bits that were looked at, of each string until one was missing
  passed: int     # of these, set ones
  measured: float  # (passed / tests) ^ hashes: the rate, also where it is too low for counting


def measure(one, n_strings, seed=0):
  """Measured: 8-grams of random words of five letters in a Filter; the paper looked up a million strings."""
  draw, made, found, tests, passed = np.random.default_rng(seed), 0, 0, 0, 0
  while made < n_strings:
    n = min(n_strings - made, 1 << 17)
    letters = draw.integers(ord('a'), ord('z') + 1, (n + eightgrams.N - 1, 6), dtype=np.uint8)
    letters[:, -1] = ord(' ')
    alive = eightgrams.keys([letters.tobytes().decode()]).keys
    made += len(alive)
    for j in range(one.shape.hashes):
      tests += len(alive)
      alive = alive[one.has_bit(alive, j)]
      passed += len(alive)
    found += len(alive)
  return Measured(made, found, tests, passed, (passed / tests) ** one.shape.hashes)
