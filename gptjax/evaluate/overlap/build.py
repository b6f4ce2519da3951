"""The Bloom method: a filter of all 8-grams of sources, built in parts and in constant memory.

The stage `read` writes the keys of the 8-grams of each part of the sources, in sorted runs. The keys are
divided into ranges; `fill` collects those of a range from all parts and sets their bits in the file of the
filter, each range in bytes of its own. The filter is the same bit for bit, however the work is divided. On
disk this takes 8 bytes per 8-gram in addition to the 5 of the filter, in a folder that all machines share.
"""

import itertools
import json
import os
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gptjax.data import progress as progress_bar
from gptjax.data.ngrams import key_set
from gptjax.data.stages import work
from gptjax.errors import InputError
from gptjax.evaluate.overlap import bloom, training_text
from gptjax.storage.files import atomic, local
from gptjax.text.redacted import redacted_values

RUN_KEYS = RANGE_KEYS = 1 << 22  # at most about this many are in memory, of 8 bytes each
MAX_RANGES = 1 << 12
PREFIX_BITS = 12  # of a key; a result of `read` has a table of where the keys with each prefix begin
BITS = 'bits'


class Parameters(NamedTuple):
  """Of a filter."""
  rate: float    # maximum rate of false positives
  capacity: int  # maximum number of 8-grams; 0: the number in the sources


def make_text(name, sources, folder, parameters, *, tfds_dir, on_error, separator, progress=True):
  """Return the TrainingText of sources for this method; see `build_filter`."""
  settings = lambda units: json.dumps({
    'version': bloom.VERSION, 'units': redacted_values(units), 'separator': separator, 'on_error': on_error,
    'rate': parameters.rate, 'capacity': parameters.capacity, 'sources': None})
  return training_text.training_text(
    name, sources, Path(folder), METHOD, parameters, settings, tfds_dir=tfds_dir, on_error=on_error,
    separator=separator, progress=progress)


def build_filter(name, sources, folder, *, rate, capacity, workers, tfds_dir, on_error, separator,
                 progress=True):
  """Return the Filter of all 8-grams of sources, built unless it is in the folder.

  Args:
    name: prefix of the file name.
    sources: list of sources (see `data.sources`).
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
  text = make_text(name, sources, folder, Parameters(rate, capacity), tfds_dir=tfds_dir, on_error=on_error,
                   separator=separator, progress=progress)
  return training_text.complete(text, workers)


def _read(text, number):
  """Write the keys of a part in sorted runs, and where the keys with each prefix begin in each run."""
  if text.parameters.capacity:  # otherwise the size is known only after reading the sources
    _require_space(text, _shape(text))
  counts, folder, name, n_keys, n_runs = {}, text.work / 'read', f'{number:05d}', 0, 0
  prefixes = np.arange(1 << PREFIX_BITS, dtype=np.uint64) << np.uint64(64 - PREFIX_BITS)
  with work.writing(folder / f'{name}.keys') as file, work.writing(folder / f'{name}.prefixes') as borders:
    for run in _runs(training_text.read_keys(text, number, counts)):
      file.write(run.astype('<u8').data)
      borders.write((np.append(np.searchsorted(run, prefixes), len(run)) + n_keys).astype('<u8').data)
      n_keys, n_runs = n_keys + len(run), n_runs + 1
  work.write_record(folder, name, {**counts, 'keys': n_keys, 'runs': n_runs})


def _runs(blocks):
  """Yield the keys of some blocks sorted, each once in a run of up to about RUN_KEYS."""
  held, size = [], 0
  for block in blocks:
    held.append(block)
    size += len(block)
    if size >= RUN_KEYS:
      yield key_set.sorted_unique(np.concatenate(held))
      held, size = [], 0
  if size:
    yield key_set.sorted_unique(np.concatenate(held))


def _shape(text):
  """Return the Shape of the filter."""
  rate, capacity = text.parameters
  return bloom.Shape.for_keys(capacity or training_text.totals(text)['eightgrams'], rate)


def _require_space(text, shape):
  """Raise InputError if the filter does not fit on the disk."""
  needed, free = shape.parts * bloom.PART_BYTES, local.free_bytes(text.work)
  if needed > free:
    rate, capacity = text.parameters
    raise InputError(f'a filter with --capacity={capacity} and --rate={rate:g} takes {needed:,} bytes, and '
                     f'{free:,} are free in {text.folder}: lower the capacity, or set --filters to another '
                     'folder')


def n_ranges(text):
  """Return the number of ranges of keys, each of which has whole parts of the filter."""
  n_keys = sum(record['keys'] for record in work.read_records(text, 'read', text.n_parts))
  return max(1, min(-(-n_keys // RANGE_KEYS), MAX_RANGES, _shape(text).parts))


def _fill(text, number):
  """Set the bits of a range of keys."""
  (parts, hashes), n = _shape(text), n_ranges(text)
  first, last = _parts_of(number, n, parts)
  keys = key_set.sorted_unique(_keys_of(text, first, last, parts))
  borders = np.searchsorted(bloom.part_index(keys, parts), np.arange(first, last + 1))
  flags, rates, checksum = np.empty(bloom.PART_BITS, np.uint8), 0.0, 0
  with _open_bits(text, parts) as file:
    file.seek(first * bloom.PART_BYTES)
    for start, stop in itertools.pairwise(borders):
      bits, share = bloom.part_bits(keys[start:stop], hashes, flags)
      file.write(bits)
      checksum = zlib.crc32(bits, checksum)
      rates += share ** hashes
    file.flush()
    os.fsync(file.fileno())
  work.write_record(text.work / 'fill', f'{number:05d}', {
    'distinct': len(keys), 'rates': rates, 'bits': checksum})


def _parts_of(number, n, parts):
  """Return (first, last): the parts [first, last) of the filter of one of `n` ranges of keys."""
  return number * parts // n, (number + 1) * parts // n


def _require_filled(text, filled, parts):
  """Raise InputError if the bits are not those that `fill` wrote: their file was lost or damaged."""
  for number, record in enumerate(filled):
    first, last = (part * bloom.PART_BYTES for part in _parts_of(number, len(filled), parts))
    checksum = 0
    for start in range(first, last, local.CHUNK):
      checksum = zlib.crc32(local.part(text.work / BITS, start, min(start + local.CHUNK, last)), checksum)
    if checksum != record['bits']:
      raise InputError(f'{text.work / BITS} is damaged: remove {text.work / "fill"}, and run --stage=fill '
                       'again (or all stages)')


def _open_bits(text, parts):
  """Return the file of the bits, open for writing; it has its full size, zero where nothing is written."""
  path = text.work / BITS
  with local.opened(path, 'ab') as file:
    if not file.tell():
      _require_space(text, _shape(text))
    if file.tell() < parts * bloom.PART_BYTES:
      file.truncate(parts * bloom.PART_BYTES)
  atomic.sync(text.work)
  return local.opened(path, 'r+b')


def _keys_of(text, first, last, parts):
  """Return the keys of the parts [first, last) of the filter, from all parts of the sources."""
  shift = 32 - PREFIX_BITS
  low, high = ((part << 32) // parts >> shift for part in (first, last))  # of the first 32 bits of a key
  ends = [min(low, (1 << PREFIX_BITS) - 1), min(high + 1, 1 << PREFIX_BITS)]
  records, folder = work.read_records(text, 'read', text.n_parts), text.work / 'read'
  runs = [(f'{number:05d}', run * ((1 << PREFIX_BITS) + 1)) for number, record in enumerate(records)
          for run in range(record['runs'])]
  if not runs:
    return np.empty(0, np.uint64)
  spans = np.concatenate(work.read_ranges([(folder / f'{name}.prefixes', '<u8', at + end, at + end + 1)
                                           for name, at in runs for end in ends]))
  keys = np.concatenate(work.read_ranges([
    (folder / f'{name}.keys', '<u8', *span) for (name, _), span in
    zip(runs, spans.reshape(-1, 2).tolist(), strict=True)]))
  part = bloom.part_index(keys, parts)
  return keys[(first <= part) & (part < last)]


def _finish(text):
  """Append the metadata to the bits, and rename their file."""
  shape, totals = _shape(text), training_text.totals(text)
  filled = work.read_records(text, 'fill', n_ranges(text))
  metadata = {'parts': shape.parts, 'hashes': shape.hashes, 'rate': text.parameters.rate,
              'capacity': text.parameters.capacity or totals['eightgrams'],
              'expected': sum(record['rates'] for record in filled) / shape.parts,
              'distinct': sum(record['distinct'] for record in filled), **totals, 'sources': text.sources}
  bloom.check_rate(metadata)
  with _open_bits(text, shape.parts) as file:
    file.truncate(shape.parts * bloom.PART_BYTES)  # a killed process may have appended the metadata
  _require_filled(text, filled, shape.parts)
  with progress_bar.bytes_bar('hashing', text.progress, total=shape.parts * bloom.PART_BYTES) as bar:
    bloom.finish(text.work / BITS, text.out, metadata, bar.update)


def _opened(text):
  return bloom.open_filter(text.out, progress=text.progress)


METHOD = training_text.Method('.bloom', {'read': (training_text.n_parts, _read), 'fill': (n_ranges, _fill)},
                              _finish, _opened)
