"""Reads documents from sources: text, JSON lines, tables, TFDS, corpora, Python's own documentation.

A source is `KIND:WHERE`:

    text:GLOB                         one document per file, or split at a separator
    jsonl:GLOB[:FIELD]                one JSON object per line; FIELD is `text` by default
    parquet:GLOB[:FIELD]              one document per row of a table
    arrow:GLOB[:FIELD]                the same, of Arrow files
    arrow:FOLDER[:SPLIT][:FIELD]      the same, of a folder of the library `datasets`; SPLIT is `train` by
                                      default, and only given if the folder has splits
    warc:GLOB                         web archives: one document per HTML page
    tar:GLOB                          archives: one document per file in them, or split at a separator
    tfds:NAME[/CONFIG][:VERSION][:SPLIT][:FIELD]     SPLIT is `train` by default
    corpus:FOLDER[:SPLIT]             a prepared corpus; SPLIT is `train` by default
    python:                           the documentation that ships with every Python

FIELD may be dotted: `meta.text` is the field `text` of the object, or column, `meta`.

Files may be plain, `.gz`, `.zst` (`.zstd`), `.bz2` or `.xz`, local or on any file system of fsspec (`gs://`,
`s3://`, `hf://`, `memory://`).
A source is a list of units (a file, a shard of a data set) in a fixed order, and a unit is a reproducible
sequence of pieces. Large units can also be read in parts, between `positions`.
"""

import hashlib
import json
import platform
import re
from pathlib import Path

from gptjax.data.sources import decompression, file_access, files, hub_revisions, jsonl
from gptjax.data.sources.unit import DEFAULT_FIELD, Unit
from gptjax.errors import InputError
from gptjax.storage.files import access, paths
from gptjax.text.redacted import redacted, redacted_values

COMPRESSIONS = ('.gz', '.zst', '.zstd', '.bz2', '.xz')  # ends of names
KINDS = ('text', 'jsonl', 'parquet', 'arrow', 'tar', 'warc', 'tfds', 'corpus', 'python')


def units(sources, tfds_dir, tfds_download=False):
  """Return the units of all sources, in the order of `sources` and sorted by file name.

  Args:
    sources: list of KIND:WHERE.
    tfds_dir: where TFDS keeps its data sets; '': its own default.
    tfds_download: whether to prepare a missing data set, which may download it.

  Raises:
    ValueError: unknown kind of source; a pattern that matches no file; a missing data set, split or field.
  """
  if not sources:
    raise InputError('no source: give at least one --source=KIND:WHERE')
  hub_revisions.forget()
  return [unit for source in sources for unit in _units(source, tfds_dir, tfds_download)]


def kind_of(file):
  """Return the kind of source that a file of this name probably is."""
  archives = ('.tar', '.tgz', '.tzst', '.tbz2', '.tbz', '.txz')
  name = next((file.removesuffix(suffix) for suffix in COMPRESSIONS if file.endswith(suffix)), file)
  kinds = {'.jsonl': 'jsonl', '.parquet': 'parquet', '.arrow': 'arrow', '.warc': 'warc',
           **dict.fromkeys(archives, 'tar')}
  return next((kind for suffix, kind in kinds.items() if name.endswith(suffix)), 'text')


def _units(source, tfds_dir, tfds_download):
  kind, colon, where = paths.expanded(source, KINDS).partition(':')
  if not colon or kind not in KINDS or (kind != 'python' and not where) or source == 'python':
    if '://' not in source and not colon and file_access.find_files(source):
      raise InputError(f'source {source!r} has no kind: write {kind_of(source)}:{source}')
    raise InputError(f'source {source!r} is none of text:GLOB, jsonl:GLOB[:FIELD], '
                     'parquet:GLOB[:FIELD], arrow:GLOB[:FIELD], arrow:FOLDER[:SPLIT][:FIELD], tar:GLOB, '
                     'warc:GLOB, tfds:NAME[/CONFIG][:SPLIT][:FIELD], corpus:FOLDER[:SPLIT], python:')
  if kind == 'python':
    return [Unit('python', platform.python_version(), 0)]
  if kind == 'tfds':
    from gptjax.data.sources import tfds
    return tfds.units(where, tfds_dir, tfds_download)
  if kind == 'corpus':
    from gptjax.data.sources import corpus
    return corpus.units(where)
  if kind == 'warc':
    _warc_pages()
  if kind == 'arrow':
    from gptjax.data.sources.columns import datasets_folder
    matches, field = datasets_folder.find(where)
  else:
    matches, field = file_access.find_files(where), ''
  if kind in ('jsonl', 'parquet'):
    field = DEFAULT_FIELD
    pattern, _, last = where.rpartition(':')
    if not matches and pattern and re.fullmatch(r'[^/*]+', last):
      matches, field = file_access.find_files(pattern), last
  if not matches:
    if '://' not in where and access.is_folder(Path(where)):
      raise InputError(f'source {source!r} is a folder: name its files, as in {source.rstrip("/")}/**/*')
    raise InputError(f'source {source!r}: no file has this name')
  compressed = [path for path, _ in matches
                if kind == 'parquet' and decompression.format_of(path)]
  if compressed:
    tool = decompression.format_of(compressed[0]).command
    raise InputError(f'{compressed[0]} is compressed Parquet, which cannot be read in parts: decompress it '
                     f'with {tool} (Parquet compresses its columns itself)')
  return [Unit(kind, path, size, field) for path, size in matches]


def _warc_pages():
  """Return the module that reads web archives."""
  try:
    from gptjax.data.sources.warc import pages
  except ModuleNotFoundError as missing:
    raise InputError("warc: needs libraries for web pages: pip install 'gptjax[webtext]' "
                     f'(the module {missing.name} is missing)') from None
  return pages


def library_versions(units):
  """Return {name: version} of the libraries on which the text of units depends; None if there are none."""
  return _warc_pages().versions() if any(unit.kind == 'warc' for unit in units) else None


def recorded_sources(sources, units):
  """Return the redacted sources, to be recorded in files; the field of each source is retained.

  Sources on the Hugging Face Hub are recorded with the commit that `units` has read.

  Args:
    sources: list of KIND:WHERE.
    units: their units.
  """
  names = {f':{unit.field}' for unit in units if unit.field}
  recorded = []
  for source in sources:
    kind, colon, where = source.partition(':')
    source = f'{kind}{colon}{hub_revisions.pinned(where)}'
    shown = redacted(source)
    field = next((name for name in names if source.endswith(name) and not shown.endswith(name)), '')
    recorded.append(shown + field)
  return recorded


def units_digest(units):
  """Return the SHA-256 (hex) of units, without their credentials."""
  return _digest(redacted_values(units))


def legacy_units_digest(units):
  """Return the digest of versions up to 0.1.0, which includes unredacted URLs."""
  return _digest(units)


def _digest(units):
  return hashlib.sha256(json.dumps(units).encode()).hexdigest()


# Bytes of text in a unit per byte of its size: of a file with columns, an example of a data set, a token.
TEXT_BYTES = {'parquet': 3, 'arrow': 1, 'tfds': 1500, 'corpus': 5, 'warc': 1}
COMPRESSED = 4


def text_bytes(unit):
  """Return about how many bytes of text a unit has."""
  return unit.size * (1 if is_uncompressed(unit) else TEXT_BYTES.get(unit.kind, COMPRESSED))


def positions(unit, target):
  """Return the sorted positions at which a large unit can be divided into parts of about `target` bytes."""
  if unit.kind == 'jsonl' and is_uncompressed(unit):
    return list(range(target, unit.size - target // 2, target))
  if unit.kind == 'warc' and (unit.path.endswith('.gz') or not decompression.format_of(unit.path)):
    return list(range(target, unit.size - target // 2, target))
  if unit.kind == 'parquet':
    from gptjax.data.sources.columns import parquet
    return parquet.positions(unit.path, target)
  if unit.kind == 'corpus':
    from gptjax.data.sources import corpus
    return corpus.positions(unit, target // TEXT_BYTES['corpus'])
  return []


def shown_location(location):
  """Return a location of a piece as it is shown: `FILE:LINE`."""
  return jsonl.shown_location(location)


def pieces(unit, separator, tfds_dir, first=0, end=None, urls=None):
  """Return an iterator of the pieces of a unit's documents, in a fixed order.

  Args:
    unit: a Unit.
    separator: text between documents in a text file or a file of an archive; '': the file is one document.
    tfds_dir: where TFDS keeps its data sets; '': its own default.
    first, end: of a unit that is divided, the part between these `positions`; None: to its end.
    urls: url_list.UrlList: only pages of web archives with these URLs; None: all.

  Yields:
    files.Piece; each unusable document is one piece with a `problem`.

  Raises:
    ValueError: the unit cannot be read for a reason other than its data.
  """
  if unit.kind == 'python':
    from gptjax.data.sources import python
    return python.pieces()
  if unit.kind == 'tfds':
    from gptjax.data.sources import tfds
    return tfds.pieces(unit, tfds_dir)
  if unit.kind == 'corpus':
    from gptjax.data.sources import corpus
    return corpus.pieces(unit, first, end)
  if unit.kind == 'jsonl':
    return jsonl.pieces(unit.path, unit.field, first, end)
  if unit.kind == 'parquet':
    from gptjax.data.sources.columns import parquet
    return parquet.pieces(unit.path, unit.field, first, end)
  if unit.kind == 'arrow':
    from gptjax.data.sources.columns import arrow
    return arrow.pieces(unit.path, unit.field)
  if unit.kind == 'warc':
    return _warc_pages().pieces(unit.path, urls, first, end)
  if unit.kind == 'tar':
    from gptjax.data.sources import tar
    return tar.pieces(unit.path, separator)
  return files.text_pieces(unit.path, separator)


def is_uncompressed(unit):
  """Whether the size of a unit is about the size of its text: a file without compression."""
  return unit.kind in ('text', 'jsonl', 'tar') and not decompression.format_of(unit.path)


def usable_pieces(unit, separator, tfds_dir):
  """Yield the pieces of a unit; ValueError, with file and line, at the first piece with a problem."""
  for piece in pieces(unit, separator, tfds_dir):
    if piece.problem:
      raise InputError(f'{piece.location}: {piece.problem}')
    yield piece
