"""The stage `mark`: which documents are duplicates of earlier ones.

The keys are divided into ranges. The task of a range reads its keys of all parts, sorts them, and writes for
each document the earliest one with the same key. Two documents with the same digest are equal; two that share
the key of a band may be near duplicates, which `verdicts` decides by their signatures. What is earlier is
decided by (part, rank), so the result depends on the order of the documents alone.

An exact duplicate has the signature of the earlier document. So the earliest of those that share a band is
never an exact duplicate, and both kinds can be found at the same time.
"""

import numpy as np

from gptjax.data.clean import near_duplicates, webtext
from gptjax.data.stages import judge, work

RANGE_KEYS = 1 << 22  # at most about this many keys of a range are in memory, of 40 bytes each
MAX_BITS = 16
PAIRS_AT_A_TIME = 1 << 16  # of which the signatures, of 480 bytes each by default, are in memory
# `near`: whether the two only share a band; then the document, and the earliest one that shares its key.
PAIR = np.dtype([('near', 'u1'), ('rank', '<u4'), ('first_part', '<u4'), ('first_rank', '<u4')])


def range_bits(n_kept):
  """Return b, so that the first b bits of a key are the number of its range."""
  return min(MAX_BITS, max(0, (n_kept // RANGE_KEYS).bit_length()))


def judged(job):
  """Return the records of all parts, after `judge`."""
  return work.read_records(job, 'judge', job.n_parts)


def n_ranges(job):
  """Return the number of ranges."""
  return 1 << range_bits(sum(record['kept'] for record in judged(job)))


def mark(job, number):
  """Write the pairs of a range.

  The result: `NAME.borders`, uint64[parts + 1], where the pairs of each part begin; `NAME.pairs`, PAIR[n].
  """
  folder, name, records = job.work / 'mark', f'{number:05d}', judged(job)
  bits = range_bits(sum(record['kept'] for record in records))
  found = []
  for kind in range(1 + _n_bands(job)):
    keys, owners = _keys(job, records, kind, number, bits)
    found.append(_pairs(keys, owners, kind > 0))
    if sum(len(pairs) for _, pairs in found) > RANGE_KEYS:  # bands find the same pairs again
      found = [_unique(found)]
  later, pairs = _unique(found)
  work.write(folder / f'{name}.pairs', pairs)
  work.write(folder / f'{name}.borders', np.searchsorted(later, np.arange(job.n_parts + 1)).astype('<u8'))
  work.write_record(folder, name, {'pairs': len(pairs)})


def _n_bands(job):
  recipe = job.reading.recipe
  return recipe.near.bands if 'near_duplicate' in recipe.filters else 0


def _keys(job, records, kind, number, bits):
  """Return (the keys of a kind in a range, of all parts; the part of each)."""
  folder, spans = job.work / 'judge', []
  for part, record in enumerate(records):  # where the range begins and ends, by the prefixes of each part
    own, width = record['prefix_bits'], (1 << record['prefix_bits']) + 1
    low, high = (number << own) >> bits, -(-(number + 1 << own) >> bits)
    spans += [(folder / f'{part:05d}.prefixes', '<u4', kind * width + low, kind * width + low + 1),
              (folder / f'{part:05d}.prefixes', '<u4', kind * width + high, kind * width + high + 1)]
  positions = np.concatenate(work.read_ranges(spans)).reshape(-1, 2).tolist()
  dtype = judge.BAND if kind else judge.EXACT
  wanted = [(folder / f'{part:05d}.{"bands" if kind else "exact"}', dtype,
             max(kind - 1, 0) * record['kept'] + start, max(kind - 1, 0) * record['kept'] + stop)
            for part, (record, (start, stop)) in enumerate(zip(records, positions, strict=True))]
  arrays = work.read_ranges(wanted)
  keys = np.concatenate(arrays)
  owners = np.repeat(np.arange(len(arrays), dtype=np.uint32), list(map(len, arrays)))
  inside = keys['key'] >> np.uint64(64 - bits) == number if bits else slice(None)
  return keys[inside], owners[inside]


def _pairs(keys, owners, near):
  """Return (part of each document that is not the first with its key, PAIR of it)."""
  columns = [keys['rank'], owners, *([] if near else [keys['more']]), keys['key']]
  order = np.lexsort(columns)
  keys, owners = keys[order], owners[order]
  same = keys['key'][1:] == keys['key'][:-1]
  if not near:
    same &= keys['more'][1:] == keys['more'][:-1]
  later = np.flatnonzero(same) + 1
  starts = np.flatnonzero(np.append(True, ~same))[:len(keys)]
  first = starts[np.searchsorted(starts, later, side='right') - 1] if len(later) else later
  pairs = np.empty(len(later), PAIR)
  pairs['near'], pairs['rank'] = near, keys['rank'][later]
  pairs['first_part'], pairs['first_rank'] = owners[first], keys['rank'][first]
  return owners[later], pairs


def _unique(found):
  """Join lists of (part of a document, PAIR of it), sorted by document, each pair once."""
  later, pairs = (np.concatenate(columns) for columns in zip(*found, strict=True))
  columns = [pairs[field] for field in ('first_rank', 'first_part', 'near', 'rank')] + [later]
  order = np.lexsort(columns)
  pairs, later = pairs[order], later[order]
  new = np.append(True, (pairs[1:] != pairs[:-1]) | (later[1:] != later[:-1]))[:len(pairs)]
  return later[new], pairs[new]


def verdicts(job, part):
  """Return uint8[documents]: for each document of a part the number of the filter that removes it, or 0.

  EXCLUDED and UNUSABLE documents stay so.
  """
  judged(job)
  result = work.read(job.work / 'judge' / f'{part:05d}.verdicts', np.uint8).copy()
  if not job.reading.recipe.filters:
    return result
  rows = np.flatnonzero(result == 0)
  pairs = _pairs_of(job, part)
  near, exact = pairs[pairs['near'] == 1], pairs[pairs['near'] == 0]
  filters = job.reading.recipe.filters
  if 'near_duplicate' in filters:
    result[rows[_near_ranks(job, part, near)]] = 1 + webtext.FILTERS.index('near_duplicate')
  if 'exact_duplicate' in filters:
    result[rows[exact['rank']]] = 1 + webtext.FILTERS.index('exact_duplicate')
  return result


def _pairs_of(job, part):
  """Return the pairs of the documents of a part, of all ranges."""
  folder, n = job.work / 'mark', n_ranges(job)
  work.read_records(job, 'mark', n)
  names = [f'{number:05d}' for number in range(n)]
  borders = work.read_ranges([(folder / f'{name}.borders', '<u8', part, part + 2) for name in names])
  return np.concatenate(work.read_ranges([(folder / f'{name}.pairs', PAIR, *map(int, border))
                                          for name, border in zip(names, borders, strict=True)]))


def _near_ranks(job, part, pairs):
  """Return the ranks of the documents whose signature is near that of one of their pairs."""
  near, found = job.reading.recipe.near, [np.empty(0, np.uint32)]
  for start in range(0, len(pairs), PAIRS_AT_A_TIME):
    some = pairs[start:start + PAIRS_AT_A_TIME]
    own = _signatures(job, [part] * len(some), some['rank'].tolist())
    first = _signatures(job, some['first_part'].tolist(), some['first_rank'].tolist())
    found.append(some['rank'][near_duplicates.is_near(own, first, near)])
  return np.unique(np.concatenate(found))


def _signatures(job, part_numbers, ranks):
  """Return uint32[n, bands * rows]: the signatures of documents."""
  folder, near = job.work / 'judge', job.reading.recipe.near
  documents = list(zip(part_numbers, ranks, strict=True))
  wanted, row = sorted(set(documents)), np.dtype(('<u4', (near.bands * near.rows,)))
  rows = work.read_ranges([(folder / f'{part:05d}.signatures', row, rank, rank + 1) for part, rank in wanted])
  found = dict(zip(wanted, (array.reshape(-1) for array in rows), strict=True))
  return np.stack([found[document] for document in documents])
