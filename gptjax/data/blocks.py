"""Pieces of documents in the order of the sources, from any position on, in blocks for workers."""

import collections
import itertools
from typing import NamedTuple

from gptjax.data.clean import webtext
from gptjax.data.sources import documents as sources
from gptjax.errors import InputError
from gptjax.text.printable import printable
from gptjax.text.redacted import redacted

BLOCK_CHARACTERS = 1 << 20  # a worker gets pieces of documents up to this
BLOCK_PIECES = 4096         # and of this number


class ReadOptions(NamedTuple):
  """What is read, and how."""
  units: list           # of sources.Unit
  separator: str        # between documents of a text file; '': a file is one
  tfds_dir: str
  stop_on_error: bool   # at the first document that cannot be used
  recipe: webtext.Recipe


class Position(NamedTuple):
  """How far the sources were read."""
  unit: int = 0         # the unit being read,
  pieces: int = 0       # so many of its pieces are read,
  documents: int = 0    # and this many documents of all units are begun


class Block(NamedTuple):
  """Pieces that a worker gets at once, and what was left out on the way to them."""
  position: Position    # after the last of them
  skipped: dict         # {why: documents}
  messages: list        # a line for each document with a problem


def read_pieces(reading, position):
  """(position after it, piece) for all pieces from a position on, those with a problem too."""
  unit, skip, documents = position
  for number in range(unit, len(reading.units)):
    found = sources.pieces(reading.units[number], reading.separator, reading.tfds_dir)
    for count, piece in enumerate(itertools.islice(found, skip, None), skip + 1):
      if piece.problem and reading.stop_on_error:
        raise InputError(unusable_document_message(piece.place, piece.problem))
      documents += piece.start == 0
      yield Position(number, count, documents), piece
    skip = 0


def unusable_document_message(place, problem):
  """The line that ends a command at the first document that cannot be used."""
  return f'{place}: {problem.rstrip(".")}; --on_error=skip would leave it out'


def label_pieces(reading, position, verdicts):
  """(position, piece, why it is left out or '') for all pieces from a position on."""
  for after, piece in read_pieces(reading, position):
    why = piece.problem.partition(':')[0]
    if not why and len(verdicts) and (verdict := verdicts[after.documents - 1]):
      why = reading.recipe.reason(verdict)
    yield after, piece, why


def make_blocks(found, position, payload):
  """(Block, [payload(position, piece)]) up to BLOCK_CHARACTERS at a time.

  Args:
    found: as `kept` gives it.
    position: where it begins.
    payload: what a worker needs of a piece that is kept.
  """
  size, seen, pieces, skipped, messages = 0, 0, [], collections.Counter(), []
  after = position
  for after, piece, why in found:
    seen += 1
    if why:
      skipped[why] += piece.start == 0
      if piece.problem:
        messages.append(printable(redacted(f'{piece.place}: {piece.problem}')) + '\n')
    else:
      pieces.append(payload(after, piece))
      size += len(piece.text)
    if size >= BLOCK_CHARACTERS or seen >= BLOCK_PIECES:
      yield Block(after, skipped, messages), pieces
      size, seen, pieces, skipped, messages = 0, 0, [], collections.Counter(), []
  yield Block(after, skipped, messages), pieces
