"""Builds a filter of all 8-grams of sources, with several processes and in constant memory.

First the key of each 8-gram goes into one of several buckets by its high bits; a bucket is a file of 8 bytes
per key. Then each bucket is sorted and fills its own parts of the filter. The slow steps are functions of a
block of text or of a bucket, so they run in parallel, and after a kill the same call resumes from its last
commit. The filter is the same bit for bit. On disk this takes 8 bytes per 8-gram in addition to the 5 of the
filter.
"""

import contextlib
import itertools
import json
import math
import os
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gptjax.data import blocks, workers
from gptjax.data import progress as progress_bar
from gptjax.data.corpus import shards
from gptjax.data.sources import documents as sources
from gptjax.data.tokenizers import tokenizer_files
from gptjax.errors import InputError
from gptjax.evaluate.overlap import bloom, eightgrams
from gptjax.storage import ownership
from gptjax.storage.files import access, atomic, local
from gptjax.text.redacted import redacted_values

BUCKET_KEYS = 1 << 23     # target size of a bucket: 64 MB
MAX_BUCKETS = 512         # all are open at the same time
BITS = 'bits'
COMMIT_SECONDS = 10.0
# Approximate bytes of text per unit of `documents.Unit.size`; used only for the number of buckets.
TEXT_BYTES = {'tfds': 2000, 'corpus': 4, 'python': 1}
COMPRESSED = 3
WORD_BYTES = 6


class TextPosition(NamedTuple):
  """A position in the sources, between two pieces."""
  unit: int = 0
  pieces: int = 0
  documents: int = 0
  held: str = ''       # the end of the document's text so far, see eightgrams.split_carry_over


class Job(NamedTuple):
  """The settings of a build."""
  reading: blocks.ReadOptions
  settings: dict       # everything that the filter depends on, JSON
  rate: float          # maximum rate of false positives
  capacity: int        # maximum number of 8-grams; 0: the number in the sources
  work: Path           # folder of temporary files
  workers: int
  progress: bool


def texts(reading, start):
  """Yield (position after a piece, piece, why it is skipped or '') from `start`; pieces end between words."""
  held = start.held
  for position, piece, why in blocks.label_pieces(reading, blocks.Position(*start[:3]), ()):
    text = held + piece.text if piece.start else piece.text
    held = ''
    if not why and piece.start + len(piece.text) < piece.length:
      text, held = eightgrams.split_carry_over(text)
    yield TextPosition(*position, held), piece._replace(text=text), why


def build_filter(name, source_names, folder, *, rate, capacity, workers, tfds_dir, on_error, separator,
                 progress=True):
  """Return the Filter of all 8-grams of sources, built unless it is in the folder.

  Args:
    name: prefix of the file name.
    source_names: list of sources (see `data.sources`).
    folder: of the filters.
    rate: maximum rate of false positives.
    capacity: maximum number of 8-grams; 0: the number in the sources. Filters with the same capacity and rate
      can be merged.
    workers: number of processes.
    tfds_dir, on_error, separator: as for `data.prepare`.
    progress: whether to show progress bars on stderr.

  Raises:
    ValueError: a source is missing, a text cannot be used, the capacity is too small, or a filter is damaged.
  """
  units = sources.units(source_names, tfds_dir)
  settings = {'version': bloom.VERSION, 'units': redacted_values(units), 'separator': separator,
              'on_error': on_error, 'rate': rate, 'capacity': capacity,
              'sources': sources.recorded_sources(source_names, units)}
  key = tokenizer_files.digest(json.dumps({**settings, 'sources': None}).encode())[:12]
  target = Path(folder) / f'{name}-{key}.bloom'
  work = target.with_suffix('.work')
  if not access.is_file(target):
    reading = blocks.ReadOptions(units, separator, tfds_dir, on_error == 'stop', None)
    job = Job(reading, settings, rate, capacity, work, workers, progress)
    with ownership.own_folder(work):
      if not access.is_file(target):  # another process may have built it
        _build(job, target)
  atomic.sync(folder)
  atomic.remove(work)  # also the files of a process that was killed at the end
  return bloom.open_filter(target, progress=progress)


def _build(job, target):
  state = shards.load_state(job.work)
  if state is None:
    state = {'after': TextPosition(), 'sizes': [0] * n_buckets(job.reading.units), 'eightgrams': 0,
             'bytes': 0, 'skipped': 0, 'filled': None}
  if state['filled'] is None:
    if job.capacity:  # otherwise it is known only after reading the sources
      _require_space(job, bloom.Shape.for_keys(job.capacity, job.rate))
    _read(job, state)
    shape = bloom.Shape.for_keys(job.capacity or state['eightgrams'], job.rate)
    _require_space(job, shape)
    buckets = len(state['sizes'])
    # Each bucket has a whole number of parts.
    state['filled'] = {'parts': math.ceil(shape.parts / buckets) * buckets, 'hashes': shape.hashes,
                       'drawers': 0, 'distinct': 0, 'rates': 0.0}
    shards.save_state(job.work, state)
  _fill(job, state)
  filled = state['filled']
  metadata = {'parts': filled['parts'], 'hashes': filled['hashes'], 'rate': job.rate,
              'capacity': job.capacity or state['eightgrams'], 'expected': filled['rates'] / filled['parts'],
              'distinct': filled['distinct'], 'eightgrams': state['eightgrams'],
              'documents': state['after'][2], 'skipped': state['skipped'], 'sources': job.settings['sources']}
  bloom.check_rate(metadata)
  with progress_bar.bytes_bar('hashing', job.progress, total=filled['parts'] * bloom.PART_BYTES) as bar:
    bloom.finish(job.work / BITS, target, metadata, bar.update)


def _require_space(job, shape):
  """Raise InputError if the filter does not fit on the disk."""
  needed, free = shape.parts * bloom.PART_BYTES, local.free_bytes(job.work)
  if needed > free:
    raise InputError(f'a filter with --capacity={job.capacity} and --rate={job.rate:g} takes {needed:,} '
                     f'bytes, and {free:,} are free in {job.work.parent}: lower the capacity, or set '
                     '--filters to another folder')


def n_buckets(units):
  """Return the number of buckets, a power of two, for about BUCKET_KEYS keys per bucket."""
  bytes_of = lambda unit: unit.size * (
    1 if sources.is_uncompressed(unit) else TEXT_BYTES.get(unit.kind, COMPRESSED))
  expected = max(1, sum(map(bytes_of, units)) / WORD_BYTES) / BUCKET_KEYS
  return min(MAX_BUCKETS, 1 << max(0, math.ceil(math.log2(expected))))


def _read(job, state):
  """Write the keys of all 8-grams to the buckets."""
  position = TextPosition(*state['after'])
  units = job.reading.units
  sizes = [unit.size for unit in units]
  work = blocks.make_blocks(texts(job.reading, position), position, lambda _, piece: piece.text)
  with contextlib.ExitStack() as stack:
    open_bucket = lambda d, size: local.AppendOnlyFile(_bucket_path(job.work, d), 8 * size)
    buckets = [stack.enter_context(contextlib.closing(open_bucket(d, size)))
               for d, size in enumerate(state['sizes'])]
    total_bytes = sum(sizes) * all(map(sources.is_uncompressed, units))
    bar = stack.enter_context(contextlib.closing(progress_bar.ProgressBar(
      'reading', sizes, total_bytes, position.unit, state['bytes'], job.progress)))
    committed = time.monotonic()
    for block, (keys, n_bytes) in workers.map_in_order(make_reader, [len(buckets)], work, job.workers):
      for d, (bucket, part) in enumerate(zip(buckets, keys, strict=True)):
        bucket.write(part)
        state['sizes'][d] += len(part) // 8
      state['eightgrams'] += sum(map(len, keys)) // 8
      state['bytes'] += n_bytes
      state['skipped'] += sum(block.skipped.values())
      state['after'] = block.position
      bar.update(n_bytes, block.position.unit, f'{state["eightgrams"] / 1e6:.1f} M 8-grams')
      if time.monotonic() - committed > COMMIT_SECONDS:
        _commit(job, state, buckets)
        committed = time.monotonic()
    _commit(job, state, buckets)


def _commit(job, state, buckets):
  for bucket in buckets:
    bucket.sync()
  shards.save_state(job.work, state)


def _bucket_path(work, number):
  # The name and the keys of the saved state are those of earlier versions, whose builds can be resumed.
  return work / f'drawer-{number:03d}'


def make_reader(buckets):
  """Return the function of workers: list of texts -> ([bytes of keys per bucket], bytes of text)."""
  def read_block(texts):
    keys = np.sort(eightgrams.eightgram_keys(texts).keys)
    borders = np.searchsorted(bloom.part_index(keys, buckets), np.arange(buckets + 1))
    return ([keys[start:stop].tobytes() for start, stop in itertools.pairwise(borders)],
            sum(len(text.encode()) for text in texts))
  return read_block


def _fill(job, state):
  """Fill the parts of the filter from the buckets, and delete these."""
  filled, buckets = state['filled'], len(state['sizes'])
  path = job.work / BITS
  with local.opened(path, 'ab') as file:
    file.truncate(filled['parts'] * bloom.PART_BYTES)
  atomic.sync(job.work)
  remaining = ((d, (d, state['sizes'][d])) for d in range(filled['drawers'], buckets))
  settings = [str(job.work), buckets, filled['parts'], filled['hashes']]
  with progress_bar.bytes_bar('filling', job.progress, total=8 * state['eightgrams'],
                        initial=8 * sum(state['sizes'][:filled['drawers']])) as bar:
    for d, (distinct, rates) in workers.map_in_order(make_filler, settings, remaining, job.workers):
      filled['drawers'] = d + 1
      filled['distinct'] += distinct
      filled['rates'] += rates
      shards.save_state(job.work, state)
      access.remove(_bucket_file(job.work, d))
      bar.update(8 * state['sizes'][d])


def make_filler(work, buckets, parts, hashes):
  """Return the function of workers: (bucket, its number of keys) -> (distinct keys, sum of part rates)."""
  work, parts_per_bucket = Path(work), parts // buckets
  flags = np.empty(bloom.PART_BITS, np.uint8)

  def fill_bucket(bucket):
    number, size = bucket
    keys = np.sort(local.array(_bucket_file(work, number), np.uint64, size))
    keys = keys[np.diff(keys, prepend=~keys[:1]) != 0]  # np.unique takes a hundred times as long
    first = number * parts_per_bucket
    borders = np.searchsorted(bloom.part_index(keys, parts), np.arange(first, first + parts_per_bucket + 1))
    rates = 0.0
    with local.opened(work / BITS, 'r+b') as file:
      file.seek(first * bloom.PART_BYTES)
      for start, stop in itertools.pairwise(borders):
        bits, share = bloom.part_bits(keys[start:stop], hashes, flags)
        file.write(bits)
        rates += share ** hashes
      file.flush()
      os.fsync(file.fileno())
    return len(keys), rates
  return fill_bucket


def _bucket_file(work, number):
  """Return the file of a bucket, which keeps its temporary name until it is deleted."""
  path = _bucket_path(work, number)
  return path.with_name(path.name + local.PARTIAL_SUFFIX)
