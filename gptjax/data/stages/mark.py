"""The stage `mark`: which documents have a key of an earlier one.

The keys are divided into ranges. The task of a range reads its keys of all segments, sorts them, and writes
for each document the earliest one with the same key. What is earlier is decided by (segment, rank), so the
result depends on the order of the documents alone. A segment has a key once, see `segment_keys`; its other
documents with that key are added by `verdicts`.

The result: `NAME.pairs`, PAIR[n], sorted by segment, kind and rank of the later document, and `NAME.borders`,
uint64[segments + 1], where the pairs of each segment begin.
"""

import numpy as np

from gptjax.data.stages import judge, segment_keys, work

RANGE_KEYS = 1 << 22  # at most about this many keys of one kind are in memory, of 40 bytes each
MAX_BITS = 16
SORTED_PAIRS = 1 << 20  # that are sorted by segment together, if they are of several segments
# A document, and the earliest one that shares its key.
PAIR = np.dtype([('kind', '<u2'), ('rank', '<u4'), ('first_segment', '<u4'), ('first_rank', '<u4')])


def range_bits(n_kept):
  """Return b, so that the first b bits of a key are the number of its range."""
  return min(MAX_BITS, max(0, (n_kept // RANGE_KEYS).bit_length()))


def _bits(job):
  return range_bits(sum(segment.kept for segment in judge.segments(job).all))


def n_ranges(job):
  """Return the number of ranges."""
  return 1 << _bits(job)


def mark(job, number):
  """Write the pairs of a range."""
  folder, name, kinds = job.work / 'mark', f'{number:05d}', segment_keys.kinds(job.reading.recipe)
  n_segments, bits = len(judge.segments(job).all), _bits(job)
  counts, n = np.empty((len(kinds), n_segments), np.int64), 0
  # The pairs of each kind, sorted by segment and rank. Another process may be reading it, so it stays.
  runs = folder / f'{name}.runs'
  with work.writing(runs) as file:
    for row, kind in enumerate(kinds):
      later, pairs = _pairs(*_keys(job, kind, number, bits), kind)
      counts[row] = np.bincount(later, minlength=n_segments)
      file.write(pairs.data)
      n += len(pairs)
  with work.writing(folder / f'{name}.pairs') as file:
    for pairs in _by_segment(runs, counts):
      file.write(pairs.data)
  work.write(folder / f'{name}.borders', np.append(0, np.cumsum(counts.sum(0))).astype('<u8'))
  work.write_record(folder, name, {'pairs': n})


def _keys(job, kind, number, bits):
  """Return (the keys of a kind in a range, of all segments; the segment of each)."""
  folder, spans, segments = job.work / 'judge', [], judge.segments(job).all
  for segment in segments:  # where the range begins and ends, by the positions of each segment
    width = (1 << segment.bits) + 1
    low, high = (number << segment.bits) >> bits, -(-(number + 1 << segment.bits) >> bits)
    path = folder / f'{segment.name}.positions'
    spans += [(path, '<u4', kind * width + at, kind * width + at + 1) for at in (low, high)]
  positions = [int(found[0]) for found in work.read_ranges(spans)]
  dtype, suffix = (segment_keys.BAND, 'bands') if kind else (segment_keys.EXACT, 'exact')
  arrays = work.read_ranges([
    (folder / f'{segment.name}.{suffix}', dtype, start, stop)
    for segment, start, stop in zip(segments, positions[::2], positions[1::2], strict=True)])
  keys = np.concatenate([np.empty(0, dtype), *arrays])
  owners = np.repeat(np.arange(len(arrays), dtype=np.uint32), list(map(len, arrays)))
  inside = keys['key'] >> np.uint64(64 - bits) == number if bits else slice(None)
  return keys[inside], owners[inside]


def _pairs(keys, owners, kind):
  """Return (segment of each document that is not the first with its key, PAIR of it), sorted by document."""
  order = np.lexsort([keys['rank'], owners, *([] if kind else [keys['more']]), keys['key']])
  keys, owners = keys[order], owners[order]
  later, first = segment_keys.repeats(keys)
  pairs = np.empty(len(later), PAIR)
  pairs['kind'], pairs['rank'] = kind, keys['rank'][later]
  pairs['first_segment'], pairs['first_rank'] = owners[first], keys['rank'][first]
  order = np.lexsort([pairs['rank'], owners[later]])
  return owners[later][order], pairs[order]


def _by_segment(runs, counts):
  """Yield the pairs of all kinds, sorted by segment, from a file that has them sorted by kind.

  Args:
    runs: the file.
    counts: int64[kinds, segments]: pairs in it.
  """
  ends = np.cumsum(counts).reshape(counts.shape)
  first = 0
  while first < counts.shape[1]:
    total = np.cumsum(counts[:, first:].sum(0))
    last = first + max(1, int(np.searchsorted(total, SORTED_PAIRS, 'right')))
    starts = ends[:, first] - counts[:, first]
    pairs = np.concatenate(work.read_ranges([(runs, PAIR, int(start), int(stop)) for start, stop in
                                             zip(starts, ends[:, last - 1], strict=True)]))
    segments = np.concatenate([np.repeat(np.arange(first, last), own[first:last]) for own in counts])
    yield pairs[np.argsort(segments, kind='stable')]
    first = last
