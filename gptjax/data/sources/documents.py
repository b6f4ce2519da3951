"""Documents from where they lie: text, JSON lines, Parquet, TFDS, corpora, Python's own documentation.

A source is `KIND:WHERE`:

    text:GLOB                         a file a document, or split at a separator
    jsonl:GLOB[:FIELD]                a JSON object a line; FIELD is `text` if not given
    parquet:GLOB[:FIELD]              a row of a table
    tar:GLOB                          archives: a file in one is a document, or split at a separator
    tfds:NAME[/CONFIG][:VERSION][:SPLIT][:FIELD]     SPLIT is `train` if not given
    corpus:FOLDER[:SPLIT]             a prepared corpus; SPLIT is `train` if not given
    python:                           the documentation that ships with every Python

FIELD may be dotted: `meta.text` is the field `text` of the object, or column, `meta`.

Files may be plain, `.gz` or `.zst`, local or whatever fsspec opens (`gs://`, `s3://`, `memory://`).
A source is a list of units (a file, a shard of a data set), in a fixed order; a unit is a sequence
of pieces, always the same. So (unit, number of pieces) is a position that one can come back to.
"""

import hashlib
import json
import platform
import re

from gptjax.data.sources import files, jsonl
from gptjax.data.sources.unit import DEFAULT_FIELD, Unit
from gptjax.errors import InputError
from gptjax.files import paths
from gptjax.text.redacted import redacted, redacted_values

KINDS = ('text', 'jsonl', 'parquet', 'tar', 'tfds', 'corpus', 'python')




def units(sources, tfds_dir, tfds_download=False):
  """The units of all sources, in the order of `sources` and of the names of files.

  Args:
    sources: list of KIND:WHERE.
    tfds_dir: where TFDS keeps its data sets; '': its own default.
    tfds_download: whether a data set that is not there is prepared, which may download it.

  Raises:
    ValueError: no such kind of source; a pattern without a file; no such data set, split, field.
  """
  if not sources:
    raise InputError('no source: give at least one --source=KIND:WHERE')
  return [unit for source in sources for unit in _units(source, tfds_dir, tfds_download)]


def _units(source, tfds_dir, tfds_download):
  kind, colon, where = paths.expanded(source, KINDS).partition(':')
  if not colon or kind not in KINDS or (kind != 'python' and not where) or source == 'python':
    raise InputError(f'source {source!r} is none of text:GLOB, jsonl:GLOB[:FIELD], '
                     'parquet:GLOB[:FIELD], tar:GLOB, tfds:NAME[/CONFIG][:SPLIT][:FIELD], '
                     'corpus:FOLDER[:SPLIT], python:')
  if kind == 'python':
    return [Unit('python', platform.python_version(), 0)]
  if kind == 'tfds':
    from gptjax.data.sources import tfds
    return tfds.units(where, tfds_dir, tfds_download)
  if kind == 'corpus':
    from gptjax.data.sources import corpus
    return corpus.units(where)
  found, field = files.find_files(where), ''
  if kind not in ('text', 'tar'):
    field = DEFAULT_FIELD
    pattern, _, last = where.rpartition(':')
    if not found and pattern and re.fullmatch(r'[^/*]+', last):
      found, field = files.find_files(pattern), last
  if not found:
    raise InputError(f'source {source!r}: no file has this name')
  packed = [path for path, _ in found if kind == 'parquet' and path.endswith(files.COMPRESSED_SUFFIXES)]
  if packed:
    tool = 'gunzip' if packed[0].endswith('.gz') else 'zstd -d'
    raise InputError(f'{packed[0]} is compressed Parquet, of which parts cannot be read: unpack it with '
                     f'{tool} (Parquet compresses its columns itself)')
  return [Unit(kind, path, size, field) for path, size in found]


def recorded_sources(sources, found):
  """The sources as files may name them: `redacted`, each with the field that it names.

  Args:
    sources: list of KIND:WHERE.
    found: their units.
  """
  names = {f':{unit.field}' for unit in found if unit.field}
  kept = []
  for source in sources:
    shown = redacted(source)
    field = next((name for name in names if source.endswith(name) and not shown.endswith(name)), '')
    kept.append(shown + field)
  return kept


def units_digest(found):
  """SHA-256 (hex) of units, without what gives access to them."""
  return _digest(redacted_values(found))


def legacy_units_digest(found):
  """`digest` as versions up to 0.1.0 made it, of URLs as they were given."""
  return _digest(found)


def _digest(found):
  return hashlib.sha256(json.dumps(found).encode()).hexdigest()


def pieces(unit, separator, tfds_dir):
  """The pieces of a unit's documents, in a fixed order.

  Args:
    unit: a Unit.
    separator: what stands between documents in a text file, or a file of an archive; '': it is one document.
    tfds_dir: where TFDS keeps its data sets; '': its own default.

  Yields:
    files.Piece; one with a `problem` in place of each document that cannot be used.

  Raises:
    ValueError: the unit cannot be read at all, for a reason that is not in its data.
  """
  if unit.kind == 'python':
    from gptjax.data.sources import python
    return python.pieces()
  if unit.kind == 'tfds':
    from gptjax.data.sources import tfds
    return tfds.pieces(unit, tfds_dir)
  if unit.kind == 'corpus':
    from gptjax.data.sources import corpus
    return corpus.pieces(unit)
  if unit.kind == 'jsonl':
    return jsonl.pieces(unit.path, unit.field)
  if unit.kind == 'parquet':
    from gptjax.data.sources import parquet
    return parquet.pieces(unit.path, unit.field)
  if unit.kind == 'tar':
    from gptjax.data.sources import tar
    return tar.pieces(unit.path, separator)
  return files.text_pieces(unit.path, separator)


def is_uncompressed(unit):
  """Whether the size of a unit is about that of its text: a file that is not compressed."""
  return unit.kind in ('text', 'jsonl', 'tar') and not unit.path.endswith(files.COMPRESSED_SUFFIXES)


def usable_pieces(unit, separator, tfds_dir):
  """The pieces of a unit; ValueError, with file and line, at the first one with a problem."""
  for piece in pieces(unit, separator, tfds_dir):
    if piece.problem:
      raise InputError(f'{piece.place}: {piece.problem}')
    yield piece
