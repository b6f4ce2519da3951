"""The stage `judge`: the filters of the recipe for each document, and its keys for finding duplicates.

The result of a part, with n documents of which m are kept by the filters:

    NAME.verdicts     uint8[n]: 0, the number of the filter that removes the document, or UNUSABLE
    NAME.exact        EXACT[m]: digests, sorted
    NAME.bands        BAND[bands, m]: for each band of the signatures its keys, sorted
    NAME.signatures   uint32[m, bands * rows]
    NAME.prefixes     uint32[1 + bands, 2^b + 1]: where the keys with each value of their first b bits begin

A document is called by its number among the m, its rank.
"""

from typing import NamedTuple

import numpy as np

from gptjax.data.clean import near_duplicates, webtext
from gptjax.data.stages import parts, work

UNUSABLE = 255
EXACT = np.dtype([('key', '<u8'), ('more', '<u8'), ('rank', '<u4')])
BAND = np.dtype([('key', '<u8'), ('rank', '<u4')])
BATCH_CHARACTERS = 1 << 20  # of which the signatures are computed together


class Features(NamedTuple):
  """What `judge` finds out about the documents of a part; m of them are kept by the filters."""
  verdicts: list           # of all documents
  digests: list            # m of 16 bytes
  signatures: np.ndarray   # uint32[m, bands * rows], or uint32[m, 0]
  no_origin: int           # documents without a url or domain
  n_bytes: int             # of text


def judge(job, number):
  """Judge a part; returns the bytes of its text."""
  folder, name, recipe = job.work / 'judge', f'{number:05d}', job.reading.recipe
  found = features(parts.pieces(job, number), recipe)
  exact, bands = _exact_keys(found.digests), _band_keys(found.signatures, recipe.near)
  bits = max(0, len(exact).bit_length() - 4)
  work.write(folder / f'{name}.verdicts', np.array(found.verdicts, np.uint8))
  work.write(folder / f'{name}.exact', exact)
  work.write(folder / f'{name}.bands', bands)
  work.write(folder / f'{name}.signatures', found.signatures)
  prefixes = [_prefixes(keys['key'], bits) for keys in (exact, *bands)]
  work.write(folder / f'{name}.prefixes', np.array(prefixes))
  work.write_record(folder, name, {'documents': len(found.verdicts), 'kept': len(exact), 'prefix_bits': bits,
                                   'no_origin': found.no_origin})
  return found.n_bytes


def features(pieces, recipe):
  """Return the Features of documents.

  Args:
    pieces: iterable of files.Piece; of a document in several pieces, the first one is judged.
    recipe: webtext.Recipe.
  """
  verdicts, digests, signatures, no_origin, n_bytes = [], [], [], 0, 0
  words, size = [], 0
  for piece in pieces:
    n_bytes += len(piece.text)
    if piece.start:
      continue
    if piece.problem:
      verdicts.append(UNUSABLE)
      continue
    document = webtext.make_document(piece.text, piece.fields)
    no_origin += not webtext.get_domain(piece.fields)
    verdicts.append(webtext.find_filter(document, recipe))
    if verdicts[-1]:
      continue
    digests.append(piece.digest)
    words.append(document.words)
    size += len(piece.text)
    if size >= BATCH_CHARACTERS:
      signatures.append(_signatures(words, recipe))
      words, size = [], 0
  signatures.append(_signatures(words, recipe))
  return Features(verdicts, digests, np.concatenate(signatures), no_origin, n_bytes)


def _signatures(words, recipe):
  """Return uint32[n, bands * rows], or uint32[n, 0] if near duplicates are kept."""
  if 'near_duplicate' not in recipe.filters:
    return np.empty((len(words), 0), np.uint32)
  return near_duplicates.signatures(words, recipe.near)


def _exact_keys(digests):
  keys = np.empty(len(digests), EXACT)
  values = np.frombuffer(b''.join(digests), '<u8').reshape(-1, 2)
  keys['key'], keys['more'], keys['rank'] = values[:, 0], values[:, 1], np.arange(len(digests))
  return keys[np.lexsort((keys['rank'], keys['more'], keys['key']))]


def _band_keys(signatures, near):
  if not signatures.shape[1]:
    return np.empty((0, len(signatures)), BAND)
  values = near_duplicates.band_keys(signatures, near)
  bands = np.empty(values.T.shape, BAND)
  for band, column in zip(bands, values.T, strict=True):
    order = np.argsort(column, kind='stable')
    band['key'], band['rank'] = column[order], order
  return bands


def _prefixes(keys, bits):
  """Return uint32[2^bits + 1]: where the sorted keys with each value of their first bits begin."""
  starts = np.arange(1 << bits, dtype=np.uint64) << np.uint64(64 - bits) if bits else np.zeros(1, np.uint64)
  return np.append(np.searchsorted(keys, starts), len(keys)).astype('<u4')
