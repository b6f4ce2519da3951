"""Which documents are removed, by the filters or as duplicates: from the results of `judge` and `mark`.

Two documents with the same digest are equal; two that share the key of a band are near duplicates if their
signatures are near. Each document is compared with the earliest that shares a key with it. An exact duplicate
has the signature of the earlier document. So the earliest of those that share a band is never an exact
duplicate, and both kinds can be found at the same time.
"""

import numpy as np

from gptjax.data.clean import near_duplicates, webtext
from gptjax.data.stages import judge, mark, segment_keys, work

AT_A_TIME = 1 << 16      # pairs whose signatures are compared together
READ_BYTES = 1 << 25     # of signatures that are read together
APART_BYTES = 1 << 15    # signatures that are not further apart are read by one request


def verdicts(job, part):
  """Yield uint8[documents] for each segment of a part: the number of the filter that removes each, or 0.

  EXCLUDED and UNUSABLE documents stay so.
  """
  segments = judge.segments(job)
  for number in range(*segments.borders[part:part + 2]):
    result = work.read(job.work / 'judge' / f'{segments.all[number].name}.verdicts', np.uint8).copy()
    kinds = segment_keys.kinds(job.reading.recipe)
    if kinds:
      rows = np.flatnonzero(result == 0)
      exact, near = _duplicates(job, number)
      for name, ranks in (('near_duplicate', near), ('exact_duplicate', exact)):
        result[rows[ranks]] = 1 + webtext.FILTERS.index(name)
    yield result


def _duplicates(job, number):
  """Return (ranks of the exact duplicates in a segment, ranks of documents that are near duplicates)."""
  path = job.work / 'judge' / f'{judge.segments(job).all[number].name}.repeats'
  pairs, repeats = _pairs_of(job, number), work.read(path, segment_keys.REPEAT)
  exact = np.union1d(pairs['rank'][pairs['kind'] == 0], repeats['rank'][repeats['kind'] == 0])
  pairs, repeats = pairs[pairs['kind'] > 0], repeats[repeats['kind'] > 0]
  earlier = _number(pairs['first_segment'], pairs['first_rank'])
  # A document that repeats a key of its segment is compared with the earliest one of all segments.
  first = _number(number, repeats['first'])
  known, asked = _number(pairs['kind'], pairs['rank']), _number(repeats['kind'], repeats['first'])
  order = np.argsort(known)
  at = np.searchsorted(known, asked, sorter=order)
  some = np.flatnonzero(at < len(known))
  some = some[known[order[at[some]]] == asked[some]]
  first[some] = earlier[order[at[some]]]
  ranks, firsts = np.append(pairs['rank'], repeats['rank']), np.append(earlier, first)
  open_ones = ~np.isin(ranks, exact)  # the others are removed anyway
  return exact, _near_ranks(job, number, ranks[open_ones], firsts[open_ones])


def _number(high, low):
  """Return int64: two numbers of 32 bits as one, such as the segment of a document and its rank."""
  return np.asarray(high, np.int64) << 32 | np.asarray(low, np.int64)


def _pairs_of(job, number):
  """Return the PAIRs of a segment, of all ranges."""
  folder, n = job.work / 'mark', mark.n_ranges(job)
  work.read_records(job, 'mark', n)
  names = [f'{one:05d}' for one in range(n)]
  borders = work.read_ranges([(folder / f'{name}.borders', '<u8', number, number + 2) for name in names])
  return np.concatenate(work.read_ranges([(folder / f'{name}.pairs', mark.PAIR, *map(int, border))
                                          for name, border in zip(names, borders, strict=True)]))


def _near_ranks(job, number, ranks, firsts):
  """Return the ranks of the documents of a segment whose signature is near that of an earlier document.

  Args:
    job: Job.
    number: of the segment.
    ranks: uint32[n], of documents of the segment.
    firsts: int64[n], `_number` of the segment and rank of the earlier ones.
  """
  near, found = job.reading.recipe.near, [np.empty(0, np.uint32)]
  order = np.lexsort((ranks, firsts))
  ranks, firsts = ranks[order], firsts[order]
  new = np.append(True, (ranks[1:] != ranks[:-1]) | (firsts[1:] != firsts[:-1]))[:len(ranks)]
  ranks, (firsts, which) = ranks[new], np.unique(firsts[new], return_inverse=True)
  own, row = np.unique(ranks, return_inverse=True)
  signatures = np.concatenate([np.empty((0, near.bands * near.rows), np.uint32), *(
    block for *_, block in _signatures(job, _number(number, own)))])
  for start, stop, block in _signatures(job, firsts):
    low, high = np.searchsorted(which, [start, stop])
    for at in range(low, high, AT_A_TIME):
      some = slice(at, min(at + AT_A_TIME, high))
      is_near = near_duplicates.is_near(signatures[row[some]], block[which[some] - start], near)
      found.append(ranks[some][is_near])
  return np.unique(np.concatenate(found))


def _signatures(job, documents):
  """Yield (start, stop, uint32[stop - start, bands * rows]): the signatures of documents [start, stop).

  Args:
    job: Job.
    documents: int64[n], `_number` of segment and rank, sorted, each once.
  """
  folder, segments, near = job.work / 'judge', judge.segments(job).all, job.reading.recipe.near
  row = np.dtype(('<u4', (near.bands * near.rows,)))
  most = READ_BYTES // row.itemsize
  start = 0
  while start < len(documents):
    some = documents[start:start + most]
    apart = (np.diff(some) * row.itemsize > APART_BYTES) | (np.diff(some // most) > 0)
    begins = np.flatnonzero(np.append(True, apart))
    ends = np.append(begins[1:], len(some))
    sizes = some[ends - 1] + 1 - some[begins]
    n = max(1, int(np.searchsorted(np.cumsum(sizes), most, 'right')))
    spans = list(zip(begins[:n].tolist(), ends[:n].tolist(), sizes[:n].tolist(), strict=True))
    arrays = work.read_ranges([
      (folder / f'{segments[some[begin] >> 32].name}.signatures', row, rank, rank + size)
      for begin, _, size in spans for rank in [int(some[begin] & 0xffffffff)]])
    stop = start + spans[-1][1]
    yield start, stop, np.concatenate([
      array.reshape(-1, near.bands * near.rows)[some[begin:end] - some[begin]]
      for array, (begin, end, _) in zip(arrays, spans, strict=True)])
    start = stop
