"""The keys of a segment, with which the stage `mark` finds duplicates in other segments.

There are several kinds of keys: kind 0 is the digest of a text, for exact duplicates; kinds 1, 2, ... are the
bands of the signatures, for near duplicates. A segment with m documents that are kept has the files

    NAME.exact        EXACT: the digests, sorted
    NAME.bands        BAND: for each band its keys, sorted
    NAME.positions    uint32[1 + bands, 2^b + 1]: where in its file the keys of a kind begin, with each value
                      of their first b bits; the last number is where the kind ends
    NAME.repeats      REPEAT: the documents that are not the first of the segment with a key
    NAME.signatures   uint32[m, bands * rows]

Each key is there once, with the first document that has it: the task of a range of keys holds a key once per
segment, and not once per document, however often a text is in the corpus. An exact duplicate in its segment
has no keys of bands: it has the signature of the first, and is removed anyway.
"""

import numpy as np

from gptjax.data.clean import near_duplicates
from gptjax.data.stages import work

EXACT = np.dtype([('key', '<u8'), ('more', '<u8'), ('rank', '<u4')])
BAND = np.dtype([('key', '<u8'), ('rank', '<u4')])
REPEAT = np.dtype([('kind', '<u2'), ('rank', '<u4'), ('first', '<u4')])


def kinds(recipe):
  """Return the kinds of keys that a recipe needs."""
  bands = range(1, 1 + recipe.near.bands) if 'near_duplicate' in recipe.filters else ()
  return [*([0] if 'exact_duplicate' in recipe.filters else []), *bands]


def write(folder, name, features, kept, recipe):
  """Write the keys of documents; returns b, the number of bits of the positions.

  Args:
    folder, name: of the files.
    features: judge.Features.
    kept: bool array: which of its documents that the filters keep are not excluded.
    recipe: webtext.Recipe.
  """
  own, repeats, m = kinds(recipe), [], int(kept.sum())
  bits = max(0, m.bit_length() - 4)
  positions = np.zeros((1 + recipe.near.bands if own[-1] else 1, (1 << bits) + 1), '<u4')
  distinct = np.arange(m)
  with work.writing(folder / f'{name}.exact') as file:
    if own[0] == 0:
      keys, again = _first_of_each(_exact_keys(features.digests, kept), 0)
      positions[0] = _positions(keys['key'], bits)
      file.write(keys.data)
      repeats.append(again)
      distinct = np.delete(distinct, again['rank'])
  bands = _write_signatures(folder, name, features.signatures, kept, recipe)
  with work.writing(folder / f'{name}.bands') as file:
    n = 0
    for kind in own[own[0] == 0:]:
      keys, again = _first_of_each(_band_keys(bands[distinct, kind - 1], distinct), kind)
      positions[kind] = n + _positions(keys['key'], bits)
      n += len(keys)
      file.write(keys.data)
      repeats.append(again)
  work.write(folder / f'{name}.repeats', np.concatenate(repeats))
  work.write(folder / f'{name}.positions', positions)
  return bits


def _write_signatures(folder, name, batches, kept, recipe):
  """Write the signatures of the documents that are kept; returns uint64[m, bands], the keys of the bands."""
  bands, n, start = np.empty((int(kept.sum()), recipe.near.bands), np.uint64), 0, 0
  with work.writing(folder / f'{name}.signatures') as file:
    for batch in batches:
      rows = batch[kept[start:start + len(batch)]]
      start += len(batch)
      if rows.shape[1]:
        file.write(np.ascontiguousarray(rows, '<u4').data)
        bands[n:n + len(rows)] = near_duplicates.band_keys(rows, recipe.near)
      n += len(rows)
  return bands


def _exact_keys(digests, kept):
  values = np.frombuffer(digests, '<u8').reshape(-1, 2)[kept]
  keys = np.empty(len(values), EXACT)
  keys['key'], keys['more'], keys['rank'] = values[:, 0], values[:, 1], np.arange(len(values))
  return keys[np.lexsort((keys['rank'], keys['more'], keys['key']))]


def _band_keys(column, ranks):
  """Return the sorted BAND keys of one band, of documents with ascending ranks."""
  keys, order = np.empty(len(column), BAND), np.argsort(column, kind='stable')
  keys['key'], keys['rank'] = column[order], ranks[order]
  return keys


def _first_of_each(keys, kind):
  """Return (the first of equal keys, REPEAT of the others) of sorted keys."""
  later, first = repeats(keys)
  again = np.empty(len(later), REPEAT)
  again['kind'], again['rank'], again['first'] = kind, keys['rank'][later], keys['rank'][first]
  return np.delete(keys, later), again


def repeats(keys):
  """Return (the positions of keys that are not the first of equal ones, for each that of the first).

  Args:
    keys: EXACT or BAND, sorted, equal ones in the order of the documents.
  """
  same = keys['key'][1:] == keys['key'][:-1]
  if 'more' in keys.dtype.names:
    same &= keys['more'][1:] == keys['more'][:-1]
  later = np.flatnonzero(same) + 1
  starts = np.flatnonzero(np.append(True, ~same))[:len(keys)]
  return later, starts[np.searchsorted(starts, later, side='right') - 1] if len(later) else later


def _positions(keys, bits):
  """Return int64[2^bits + 1]: where sorted keys with each value of their first bits begin, and the end."""
  starts = np.arange(1 << bits, dtype=np.uint64) << np.uint64(64 - bits) if bits else np.zeros(1, np.uint64)
  return np.append(np.searchsorted(keys, starts), len(keys))
