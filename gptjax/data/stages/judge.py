"""The stage `judge`: what documents share with test sets, the filters, and keys for finding duplicates.

A document that is excluded because of a test set is counted as such, also if a filter would remove it. Both
are decided for each document alone. Duplicates are then searched among the others, so no document is removed
as a duplicate of one that is not in the corpus itself.

The result of a part, with n documents of which m are kept:

    NAME.verdicts     uint8[n]: 0, the number of the filter that removes the document, EXCLUDED or UNUSABLE
    NAME.found, NAME.stretches    with test sets, see `match`

and with a recipe also

    NAME.exact        EXACT[m]: digests, sorted
    NAME.bands        BAND[bands, m]: for each band of the signatures its keys, sorted
    NAME.signatures   uint32[m, bands * rows]
    NAME.prefixes     uint32[1 + bands, 2^b + 1]: where the keys with each value of their first b bits begin

A document is called by its number among the m, its rank.
"""

from typing import NamedTuple

import numpy as np

from gptjax.data.clean import near_duplicates, webtext
from gptjax.data.stages import match, parts, work

EXCLUDED, UNUSABLE = 254, 255
EXACT = np.dtype([('key', '<u8'), ('more', '<u8'), ('rank', '<u4')])
BAND = np.dtype([('key', '<u8'), ('rank', '<u4')])
BATCH_CHARACTERS = 1 << 20  # of which the signatures are computed together


class Features(NamedTuple):
  """What `judge` finds out about the documents of a part; m of them are kept by the filters."""
  verdicts: list           # of all documents
  digests: list            # m of 16 bytes
  signatures: np.ndarray   # uint32[m, bands * rows], or uint32[m, 0]
  no_origin: int           # documents without a url or domain


def judge(job, number):
  """Judge a part."""
  folder, name, recipe = job.work / 'judge', f'{number:05d}', job.reading.recipe
  matcher, pieces = job.excluded and match.Matcher(job.excluded), parts.pieces(job, number)
  found = features(matcher.added(pieces) if matcher else pieces, recipe)
  verdicts = np.array(found.verdicts, np.uint8)
  passed = np.flatnonzero(verdicts == 0)  # the filters
  record = {'documents': len(verdicts), 'no_origin': found.no_origin}
  if matcher:
    record |= _write_matches(folder, name, matcher, verdicts)
  if recipe.filters:
    record |= _write_keys(folder, name, found, verdicts[passed] == 0, recipe)
  work.write(folder / f'{name}.verdicts', verdicts)
  work.write_record(folder, name, record)


def _write_matches(folder, name, matcher, verdicts):
  """Write what is shared with test sets, and set the verdicts of what is excluded; returns the counts."""
  documents = matcher.documents()
  verdicts[[document for document, kept in documents.items() if not kept]] = EXCLUDED
  stretches = [(document, *span) for document, kept in sorted(documents.items()) for span in kept]
  found, counts = matcher.found()
  work.write(folder / f'{name}.found', found.astype('<u4'))
  work.write(folder / f'{name}.stretches', np.array(stretches, match.STRETCH))
  return {'shared': counts}


def _write_keys(folder, name, found, kept, recipe):
  """Write the keys of documents; returns their number and that of the bits of the prefixes.

  Args:
    folder, name: of the result.
    found: Features.
    kept: bool array: which of its documents that the filters keep are not excluded.
    recipe: webtext.Recipe.
  """
  signatures = found.signatures[kept]
  exact = _exact_keys([digest for digest, keep in zip(found.digests, kept, strict=True) if keep])
  bands = _band_keys(signatures, recipe.near)
  bits = max(0, len(exact).bit_length() - 4)
  work.write(folder / f'{name}.exact', exact)
  work.write(folder / f'{name}.bands', bands)
  work.write(folder / f'{name}.signatures', signatures)
  prefixes = [_prefixes(keys['key'], bits) for keys in (exact, *bands)]
  work.write(folder / f'{name}.prefixes', np.array(prefixes))
  return {'kept': len(exact), 'prefix_bits': bits}


def features(pieces, recipe):
  """Return the Features of documents.

  Args:
    pieces: iterable of files.Piece; of a document in several pieces, the first one is judged.
    recipe: webtext.Recipe; without filters there are no digests and signatures.
  """
  verdicts, digests, signatures, no_origin = [], [], [], 0
  words, size = [], 0
  for piece in pieces:
    if piece.start:
      continue
    if piece.problem or not recipe.filters:
      verdicts.append(UNUSABLE if piece.problem else 0)
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
  return Features(verdicts, digests, np.concatenate(signatures), no_origin)


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
