"""The stage `judge`: what documents share with test sets, the filters, and keys for finding duplicates.

A document that is excluded because of a test set is counted as such, also if a filter would remove it. Both
are decided for each document alone. Duplicates are then searched among the others, so no document is removed
as a duplicate of one that is not in the corpus itself.

The documents of a part are judged in segments: runs of so many that what is found out about them takes at
most about SEGMENT_BYTES, however large the part is. The result of a part:

    NAME.found          with test sets, see `match`

and for each of its segments, with n documents of which m are kept:

    NAME.K.verdicts     uint8[n]: 0, the number of the filter that removes the document, EXCLUDED or UNUSABLE
    NAME.K.stretches    with test sets, see `match`
    NAME.K.exact ...    with filters of duplicates, see `segment_keys`

A document is called by its number among the m, its rank.
"""

import collections
import itertools
import operator
from typing import NamedTuple

import numpy as np

from gptjax.data.clean import near_duplicates, webtext
from gptjax.data.stages import excluded, lists, match, parts, segment_keys, work

EXCLUDED, UNUSABLE = 254, 255
SEGMENT_BYTES = 1 << 27       # in memory for the documents of a segment, beside a batch of their texts
BATCH_CHARACTERS = 1 << 20    # of which the signatures are computed together


class Features(NamedTuple):
  """What `judge` finds out about the documents of a segment; m of them are kept by the filters."""
  verdicts: bytearray      # of all documents
  digests: bytearray       # of 16 bytes each, 16 m in total
  signatures: list         # of uint32[k, bands * rows], or uint32[k, 0]; m rows in total
  no_origin: int           # documents without a url or domain


def segment_documents(job):
  """Return the number of documents in a segment; the last one of a part may have fewer."""
  recipe = job.reading.recipe
  near = recipe.near.bands * (recipe.near.rows * 4 + 8) if 'near_duplicate' in recipe.filters else 0
  return max(1, SEGMENT_BYTES // (64 + near + 512 * bool(job.excluded)))


def by_segment(job, part):
  """Yield (number of a segment of a part, iterator of its pieces), each after the pieces before are read."""
  size = segment_documents(job)
  def numbered():
    document = -1
    for piece in parts.pieces(job, part):
      document += piece.start == 0
      yield document // size, piece
  for number, group in itertools.groupby(numbered(), operator.itemgetter(0)):
    yield number, (piece for _, piece in group)


def judge(job, number):
  """Judge a part."""
  folder, name, recipe = job.work / 'judge', f'{number:05d}', lists.recipe(job)
  keys = excluded.keys(job) if job.excluded else None
  segments, no_origin, shared = [], 0, collections.Counter()
  found = np.zeros(len(keys.keys.keys), bool) if keys else None
  for segment, pieces in by_segment(job, number):
    matcher = match.Matcher(keys, job.excluded.n, job.excluded.spans) if keys else None
    own = features(matcher.added(pieces) if matcher else pieces, recipe)
    verdicts = np.array(own.verdicts, np.uint8)
    passed = np.flatnonzero(verdicts == 0)  # the filters
    if matcher:
      index, counts = matcher.found()
      found[index] = True
      shared.update(counts)
      _write_matches(folder, f'{name}.{segment}', matcher, verdicts)
    kept = verdicts[passed] == 0
    segments.append({'documents': len(verdicts), 'kept': int(kept.sum())})
    if segment_keys.kinds(recipe):
      segments[-1]['bits'] = segment_keys.write(folder, f'{name}.{segment}', own, kept, recipe)
    work.write(folder / f'{name}.{segment}.verdicts', verdicts)
    no_origin += own.no_origin
  record = {'segments': segments, 'no_origin': no_origin}
  if keys:
    work.write(folder / f'{name}.found', np.flatnonzero(found).astype('<u4'))
    record['shared'] = {name: shared[name] for name in keys.members}
  work.write_record(folder, name, record)


def _write_matches(folder, name, matcher, verdicts):
  """Write what is left of documents that share words with test sets; set the verdicts of what is excluded."""
  documents = matcher.documents()
  verdicts[[document for document, kept in documents.items() if not kept]] = EXCLUDED
  stretches = [(document, *span) for document, kept in sorted(documents.items()) for span in kept]
  work.write(folder / f'{name}.stretches', np.array(stretches, match.STRETCH))


def features(pieces, recipe):
  """Return the Features of documents.

  Args:
    pieces: iterable of files.Piece; of a document in several pieces, the first one is judged.
    recipe: webtext.Recipe; without filters there are no digests and signatures.
  """
  verdicts, digests, signatures, no_origin = bytearray(), bytearray(), [], 0
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
    digests += piece.digest
    words.append(document.words)
    size += len(piece.text)
    if size >= BATCH_CHARACTERS:
      signatures.append(_signatures(words, recipe))
      words, size = [], 0
  signatures.append(_signatures(words, recipe))
  return Features(verdicts, digests, signatures, no_origin)


def _signatures(words, recipe):
  """Return uint32[n, bands * rows], or uint32[n, 0] if near duplicates are kept."""
  if 'near_duplicate' not in recipe.filters:
    return np.empty((len(words), 0), np.uint32)
  return near_duplicates.signatures(words, recipe.near)


def records(job):
  """Return the records of all parts, after `judge`."""
  return work.read_records(job, 'judge', job.n_parts)


class Segment(NamedTuple):
  """A segment of all parts."""
  name: str        # of its files
  documents: int
  kept: int
  bits: int        # see `segment_keys`


class Segments(NamedTuple):
  """The segments of all parts, in order."""
  all: list      # of Segment
  borders: list  # parts + 1: the first segment of each part


def segments(job):
  """Return the Segments, after `judge`; each process finds them once."""
  if 'segments' not in job.known:
    found, borders = [], [0]
    for part, record in enumerate(records(job)):
      found += [Segment(f'{part:05d}.{number}', own['documents'], own['kept'], own.get('bits', 0))
                for number, own in enumerate(record['segments'])]
      borders.append(len(found))
    job.known['segments'] = Segments(found, borders)
  return job.known['segments']
