"""Reads pieces of documents in source order, from any position, and groups them into blocks for workers."""

import collections
import itertools
from typing import NamedTuple

from gptjax.data.clean import webtext
from gptjax.data.sources import documents as sources
from gptjax.errors import InputError
from gptjax.text.printable import printable
from gptjax.text.redacted import redacted

BLOCK_CHARACTERS = 1 << 20  # a block is complete once it has this many characters
BLOCK_PIECES = 4096         # or this many pieces


class ReadOptions(NamedTuple):
  """The sources to read, and how to read them."""
  units: list           # of sources.Unit
  separator: str        # between documents of a text file; '': the file is one document
  tfds_dir: str
  stop_on_error: bool   # at the first unusable document
  recipe: webtext.Recipe


class Position(NamedTuple):
  """How much of the sources has been read."""
  unit: int = 0         # index of the current unit
  pieces: int = 0       # pieces of it that were read
  documents: int = 0    # documents of all units that were started


class Block(NamedTuple):
  """The end of a block of pieces for one worker, and the documents that were skipped in it."""
  position: Position    # after the last piece
  skipped: dict         # {reason: number of documents}
  messages: list        # a line for each document with a problem


def read_pieces(reading, position):
  """Yield (position after it, piece) for all pieces from a position, including pieces with a problem."""
  unit, skip, documents = position
  for number in range(unit, len(reading.units)):
    pieces = sources.pieces(reading.units[number], reading.separator, reading.tfds_dir)
    for count, piece in enumerate(itertools.islice(pieces, skip, None), skip + 1):
      if piece.problem and reading.stop_on_error:
        raise InputError(unusable_document_message(piece.location, piece.problem))
      documents += piece.start == 0
      yield Position(number, count, documents), piece
    skip = 0


def unusable_document_message(location, problem):
  """The error message for the first unusable document."""
  return f'{location}: {problem.rstrip(".")}; --on_error=skip would leave it out'


def label_pieces(reading, position, verdicts):
  """Yield (position after it, piece, reason why it is skipped or '') for all pieces from a position."""
  for after, piece in read_pieces(reading, position):
    reason = piece.problem.partition(':')[0]
    if not reason and len(verdicts) and (verdict := verdicts[after.documents - 1]):
      reason = reading.recipe.reason(verdict)
    yield after, piece, reason


def make_blocks(pieces, position, payload):
  """Yield (Block, [payload(position, piece)]), of about BLOCK_CHARACTERS each.

  Args:
    pieces: an iterator as returned by `label_pieces`.
    position: the position of its first piece.
    payload: function that returns the part of a piece that a worker needs.
  """
  size, n_pieces, payloads, skipped, messages = 0, 0, [], collections.Counter(), []
  after = position
  for after, piece, reason in pieces:
    n_pieces += 1
    if reason:
      skipped[reason] += piece.start == 0
      if piece.problem:
        messages.append(printable(redacted(f'{piece.location}: {piece.problem}')) + '\n')
    else:
      payloads.append(payload(after, piece))
      size += len(piece.text)
    if size >= BLOCK_CHARACTERS or n_pieces >= BLOCK_PIECES:
      yield Block(after, skipped, messages), payloads
      size, n_pieces, payloads, skipped, messages = 0, 0, [], collections.Counter(), []
  yield Block(after, skipped, messages), payloads
