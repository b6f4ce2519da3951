"""Divides the sources of a corpus into parts, which are read independently of each other.

A part is a run of units (files, shards of data sets) or of positions within large ones: bytes of JSON lines,
tokens of corpora. The division depends on the sources alone, so it does not depend on how many tasks
share the work. What is in a unit before and after a border is decided by the reader of its kind.
"""

import array
import collections
import itertools
import zlib
from typing import NamedTuple

import numpy as np

from gptjax.data.clean import webtext
from gptjax.data.links import url_list
from gptjax.data.sources import documents
from gptjax.data.stages import work
from gptjax.errors import InputError
from gptjax.storage.files import access
from gptjax.text.printable import printable
from gptjax.text.redacted import redacted

MOST_PARTS = 4096                        # about, if their size is between these two
MIN_BYTES, MAX_BYTES = 1 << 23, 1 << 30  # of text in a part, except for a unit that cannot be divided

CHECKSUMS = 'sources'                    # folder in the work folder


class ReadOptions(NamedTuple):
  """The sources to read, and how to read them."""
  units: list           # of sources.Unit
  separator: str        # between documents of a text file; '': the file is one document
  tfds_dir: str
  stop_on_error: bool   # at the first unusable document
  recipe: webtext.Recipe | None = None
  urls: url_list.UrlList | None = None  # of the pages of web archives to read; None: all


def borders(units):
  """Return the borders of the parts: [[unit, position in it], ...]; part i is between border i and i + 1.

  Args:
    units: list of sources.Unit.
  """
  sizes = [documents.text_bytes(unit) for unit in units]
  target = min(max(MIN_BYTES, sum(sizes) // MOST_PARTS), MAX_BYTES)
  found, filled = [[0, 0]], 0
  for number, (unit, size) in enumerate(zip(units, sizes, strict=True)):
    if filled and filled + size > target:
      found.append([number, 0])
      filled = 0
    if size > 2 * target:
      found += [[number, position] for position in documents.positions(unit, target)]
      size = target
    filled += size
  return [*found, [len(units), 0]]


def spans(part_borders, number):
  """Yield (unit, first position, end or None) of a part."""
  (unit, first), (end_unit, end) = part_borders[number:number + 2]
  for current in range(unit, end_unit + (end > 0)):
    yield current, first if current == unit else 0, end if current == end_unit else None


def text_bytes(job):
  """Return the list of the expected bytes of text in each part."""
  begun = collections.Counter(unit for unit, _ in job.borders[:-1])  # parts that begin in a unit
  sizes = [documents.text_bytes(unit) for unit in job.reading.units]
  return [max(1, round(sum(sizes[unit] / begun[unit] if first or end else sizes[unit]
                           for unit, first, end in spans(job.borders, number))))
          for number in range(len(job.borders) - 1)]


def pieces(job, number):
  """Yield the pieces of the documents of a part; see `read`.

  The first reading writes a checksum of each piece, `CHECKSUMS` of the work folder. Every later reading, of
  the same or another stage, compares them.

  Raises:
    InputError: as for `read`, and if a document is not what it was when another stage, or an earlier attempt,
      read it.
  """
  folder, name, found = job.work / CHECKSUMS, f'{number:05d}.pieces', array.array('I')
  known = work.read(folder / name, '<u4') if access.is_file(folder / name) else None
  for piece in read(job, number):
    found.append(zlib.crc32(piece.digest + repr((piece.start, piece.length, bool(piece.problem))).encode()))
    if known is not None and not np.array_equal(known[len(found) - 1:len(found)], found[-1:]):
      raise changed(job, documents.shown_location(piece.location))
    yield piece
  if known is None:
    access.make_folder(folder)
    work.write(folder / name, np.array(found, '<u4'))
    work.sync_names(folder)  # before the record of the stage, which is in another one
  elif len(known) != len(found):
    unit, _ = job.borders[number]
    raise changed(job, redacted(job.reading.units[unit].path))


def read(job, number):
  """Yield the pieces of the documents of a part, also those with a problem.

  Raises:
    InputError: a document has a problem, and `job.reading.stop_on_error`.
  """
  reading = job.reading
  read_spans = (documents.pieces(reading.units[unit], reading.separator, reading.tfds_dir, first, end,
                                 reading.urls)
                for unit, first, end in spans(job.borders, number))
  for piece in itertools.chain.from_iterable(read_spans):
    if piece.problem and reading.stop_on_error:
      raise InputError(unusable_message(piece.location, piece.problem))
    yield piece


def changed(job, where):
  """Return the error that a source, named `where`, is not what it was."""
  return InputError(f'{where} has changed since this corpus was begun: restore the file, or remove {job.out} '
                    'and begin again')


def unusable_message(location, problem):
  """Return the message about the first unusable document."""
  return f'{documents.shown_location(location)}: {problem.rstrip(".")}; --on_error=skip would leave it out'


def problem_line(location, problem):
  """Return the line of `skipped.txt` about an unusable document."""
  return printable(redacted(f'{documents.shown_location(location)}: {problem}')) + '\n'
