"""Bloom filters of 8-grams, in files that may be larger than memory.

These are blocked Bloom filters, with parts of 2^20 bits. The high bits of a key select its part, and all its
hashes set bits there, so that a part fits into a processor's cache and several processes can fill parts in
parallel. The number of keys per part varies by half a per cent, so a filter has 2 % more bits than the
formula. After Bloom (1970):

    n keys, a rate p of false positives:   hashes k = -log2 p,   bits = n k / ln 2

At the paper's p = 1e-8 that is 27 hashes and 39 bits per key. A file has the bits, then metadata in JSON (the
filter's shape, its sources, and digests of the bits and of the JSON itself), then the length of the metadata
in 8 bytes.
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
from gptjax.data.ngrams import keys as ngram_keys
from gptjax.errors import InputError
from gptjax.storage.files import atomic, bounded, json_files, local

VERSION = 1  # of the file and of the keys
LENGTH = struct.Struct('<Q')
REBUILD = 'remove it and build it again'
# Layout of the metadata.
LAYOUT = {**dict.fromkeys(('parts', 'hashes', 'capacity', 'distinct', 'eightgrams', 'documents'), int),
          'rate': json_files.NUMBER, 'expected': json_files.NUMBER, 'sources': [str], 'sha256': str}
PART_BITS = 1 << 20
PART_BYTES = PART_BITS // 8
SLACK = 1.02
PARTS_AT_A_TIME = 64       # when reading, hashing or merging
# Odd numbers: the top 20 bits of key * MULTIPLIERS[j] are the index of the key's j-th bit.
MULTIPLIERS = ngram_keys.mix(np.arange(1, 65, dtype=np.uint64)) | np.uint64(1)


class Shape(NamedTuple):
  """The shape of a filter; filters of the same shape can be merged."""
  parts: int     # of PART_BITS bits
  hashes: int    # bits set per key

  @classmethod
  def for_keys(cls, n_keys, rate):
    """Return the smallest shape whose rate of false positives is `rate` with n_keys keys."""
    hashes = math.ceil(-math.log2(rate))
    return cls(max(1, math.ceil(SLACK * n_keys * -math.log2(rate) / math.log(2) / PART_BITS)), hashes)


class Filter(NamedTuple):
  """A filter on disk."""
  path: Path
  shape: Shape
  # `rate`: the requested rate of false positives; `expected`: that computed from the fraction of set bits;
  # `sources`; counts `capacity`, `documents`, `eightgrams`, `distinct` (an upper bound)
  metadata: dict
  bits: np.ndarray   # uint8[parts, PART_BYTES], mapped; the lowest bit of a byte comes first

  def contains(self, keys):
    """Return bool[n] for uint64[n]: False is always right, True is a false positive at the filter's rate."""
    result = np.zeros(len(keys), bool)
    remaining = np.arange(len(keys))
    for j in range(self.shape.hashes):
      remaining = remaining[self.has_bit(keys[remaining], j)]
    result[remaining] = True
    return result

  def has_bit(self, keys, j):
    """Return bool[n]: whether the j-th bit of each key is set."""
    bit = bit_index(keys, MULTIPLIERS[j])
    byte = self.bits[part_index(keys, self.shape.parts), bit >> 3]
    return (byte >> (bit & 7).astype(np.uint8)) & 1 == 1


def part_index(keys, parts):
  """Return int64[n]: the part of each key, which increases with the key."""
  return (((keys >> np.uint64(32)) * np.uint64(parts)) >> np.uint64(32)).view(np.int64)


def bit_index(keys, multipliers):
  """Return int64: indices in the part of the bits of each key, for MULTIPLIERS that broadcast against it."""
  return ((keys * multipliers) >> np.uint64(64 - PART_BITS.bit_length() + 1)).view(np.int64)


def part_bits(keys, hashes, flags):
  """Return the bytes of a part and the fraction of its bits that are set.

  Args:
    keys: uint64[n], all of one part.
    hashes: bits per key.
    flags: uint8[PART_BITS], scratch space.
  """
  flags[:] = 0
  flags[bit_index(keys, MULTIPLIERS[:hashes, None]).ravel()] = 1
  return np.packbits(flags, bitorder='little'), np.count_nonzero(flags) / PART_BITS


def finish(path, target, metadata, on_read):
  """Append the metadata to a file of bits, and rename the file to its target.

  Args:
    path: of the file, which is synced.
    target: path of the finished filter, in the same file system.
    metadata: JSON.
    on_read: function called with the number of bytes just read.
  """
  metadata = {**metadata, 'version': VERSION, 'sha256': _sha256(path, local.size(path), on_read)}
  metadata['digest'] = corpus_manifest.manifest_digest(metadata)
  text = json.dumps(metadata, sort_keys=True).encode()
  with local.opened(path, 'ab') as file:
    file.write(text + LENGTH.pack(len(text)))
    file.flush()
    os.fsync(file.fileno())
  atomic.rename(path, target)


def _sha256(path, size, on_read):
  """Return the SHA-256 (hex) of the first `size` bytes of a file."""
  sha256 = hashlib.sha256()
  with local.opened(path) as file:
    while size and (chunk := file.read(min(size, PARTS_AT_A_TIME * PART_BYTES))):
      sha256.update(chunk)
      on_read(len(chunk))
      size -= len(chunk)
  return sha256.hexdigest()


def open_filter(path, *, progress=True):
  """Return the Filter in a file, after verifying the digest of its bits.

  Args:
    path: of the file.
    progress: whether to show a progress bar on stderr if that takes long.

  Raises:
    ValueError: the file is missing, is not a filter, has another version, or is damaged or truncated.
  """
  path = Path(path)
  metadata, n_bytes = _read_metadata(path)
  if n_bytes != metadata['parts'] * PART_BYTES:
    raise InputError(f'{path} has {n_bytes:,} bytes of bits, not {metadata["parts"] * PART_BYTES:,}: '
                     f'{REBUILD}')
  with progress_bar.bytes_bar(f'verifying {path.name}', progress, total=n_bytes, delay=1, leave=False) as bar:
    if _sha256(path, n_bytes, bar.update) != metadata['sha256']:
      raise InputError(f'{path} is damaged: the SHA-256 of its bits is not the recorded one: {REBUILD}')
  bits = local.mapped(path, np.uint8, (metadata['parts'], PART_BYTES))
  return Filter(path, Shape(metadata['parts'], metadata['hashes']), metadata, bits)


def _read_metadata(path):
  """Return (the metadata of a filter, number of bytes before it)."""
  try:
    with local.opened(path) as file:
      size = file.seek(0, os.SEEK_END)
      file.seek(max(0, size - LENGTH.size))
      last = file.read()
      length, = LENGTH.unpack(last) if len(last) == LENGTH.size else (0,)
      length = 0 if length > bounded.MAX_FILE_BYTES else length  # not a filter, or a truncated one
      n_bytes = max(0, size - LENGTH.size - length)
      file.seek(n_bytes)
      text = file.read(min(length, size))
  except OSError as error:
    raise InputError(f'filter {path}: {error.strerror}') from None
  try:
    metadata = json_files.parse(text)
  except ValueError:
    metadata = None
  if not isinstance(metadata, dict) or metadata.get('version') != VERSION:
    raise InputError(f'{path} is not a filter of version {VERSION}, or is truncated: {REBUILD}')
  if metadata.get('digest') != corpus_manifest.manifest_digest(metadata):
    raise InputError(f'{path}: its metadata has been changed: {REBUILD}')
  fault = json_files.layout_fault(metadata, LAYOUT)
  if fault or not (0 < metadata['parts'] <= n_bytes and 0 < metadata['hashes'] <= len(MULTIPLIERS)):
    raise InputError(f'{path} is not a filter: {fault or "its shape is impossible"}: {REBUILD}')
  return metadata, n_bytes


def merge(filters, target, *, progress=True):
  """Write the union of filters: the filter of all 8-grams in any of them.

  Args:
    filters: list of Filter.
    target: path of the new filter.
    progress: whether to show a progress bar on stderr.

  Raises:
    ValueError: the filters have different shapes, or the union is too full for their rate.
  """
  if len({bloom.shape for bloom in filters}) > 1:
    shapes = ', '.join(f'{bloom.path.name} {bloom.shape.parts:,} parts and {bloom.shape.hashes} hashes'
                       for bloom in filters)
    raise InputError(f'filters of different shapes cannot be merged ({shapes}): build them with the same '
                     '--capacity, that of all together, and the same --rate')
  (parts, hashes), target = filters[0].shape, Path(target)
  new_path, expected = atomic.new_name(target), 0.0
  with (contextlib.ExitStack() as failed,
        progress_bar.bytes_bar('merging', progress, total=2 * parts * PART_BYTES) as bar):
    failed.callback(atomic.remove, new_path)
    with local.opened(new_path, 'xb') as file:
      for start in range(0, parts, PARTS_AT_A_TIME):
        union = np.bitwise_or.reduce([bloom.bits[start:start + PARTS_AT_A_TIME] for bloom in filters])
        fill = np.bitwise_count(union).sum(1, dtype=np.int64) / PART_BITS
        expected += float((fill ** hashes).sum())
        file.write(union)
        bar.update(union.size)
    each = [bloom.metadata for bloom in filters]
    metadata = {'parts': parts, 'hashes': hashes, 'rate': max(f['rate'] for f in each),
                'capacity': each[0]['capacity'], 'expected': expected / parts,
                'sources': [source for f in each for source in f['sources']],
                **{name: sum(f[name] for f in each) for name in ('documents', 'eightgrams', 'distinct')}}
    check_rate(metadata)
    finish(new_path, target, metadata, bar.update)
    failed.pop_all()


def check_rate(metadata):
  """Raise ValueError if a filter is too full for its rate."""
  if metadata['expected'] > metadata['rate']:
    raise InputError(
      f'a filter for {metadata["capacity"]:,} 8-grams, which holds {metadata["distinct"]:,}, has a rate of '
      f'false positives of {metadata["expected"]:.1e} and not {metadata["rate"]:.1e}: build with '
      f'--capacity={metadata["distinct"]}')


class MeasuredRate(NamedTuple):
  """How often random 8-grams are found in a filter."""
  strings: int
  found: int      # strings in the filter
  tests: int      # tested bits; tests of a string stop at the first bit that is not set
  passed: int     # tested bits that are set
  measured: float  # (passed / tests) ^ hashes: the rate, also if it is too low for counting


def measure_rate(bloom, n_strings, seed=0):
  """Return the MeasuredRate of 8-grams of random five-letter words; the paper looked up a million strings."""
  rng, n_strings_tested, found, tests, passed = np.random.default_rng(seed), 0, 0, 0, 0
  while n_strings_tested < n_strings:
    n = min(n_strings - n_strings_tested, 1 << 17)
    letters = rng.integers(ord('a'), ord('z') + 1, (n + ngram_keys.N - 1, 6), dtype=np.uint8)
    letters[:, -1] = ord(' ')
    remaining = ngram_keys.ngram_keys([letters.tobytes().decode()]).keys
    n_strings_tested += len(remaining)
    for j in range(bloom.shape.hashes):
      tests += len(remaining)
      remaining = remaining[bloom.has_bit(remaining, j)]
      passed += len(remaining)
    found += len(remaining)
  return MeasuredRate(n_strings_tested, found, tests, passed, (passed / tests) ** bloom.shape.hashes)
