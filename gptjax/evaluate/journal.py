"""What an evaluation has found so far, on disk as it comes, so that a run which is stopped goes on there."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import jax

from gptjax.files import atomic, records
from gptjax.files.json_files import NUMBER

# Layout of `grids` in results.json: cells of how a score depends on the protocol.
GRIDS = {str: [{'text': str, 'stride': (int, type(None)), 'unit': str, 'value': NUMBER, 'paper': bool}]}


class Part(NamedTuple):
  """The answers to one list of questions.

  done: {number of a question: answer} that are known, answers as JSON has them.
  keep: function of (number, answer) that writes one down.
  """
  known: dict
  record: Any


def no_journal(name, digests):
  """A Part that keeps nothing."""
  del name, digests
  return Part({}, lambda number, answer: None)


class Journal:
  """The file of one task; each line is [part, digest of the question, answer, CRC-32 of these].

  It stays when the task is done: with a larger `eval.limit` only the further questions are asked.

  Args:
    path: of the file; its folder is made. Only process 0 writes, all read it when it is opened.
    say: called with a line about damaged answers, which are left out.
  """

  def __init__(self, path, say=records.log):
    self._path, self._found = Path(path), {}
    self._good = records.read_lines(self._path, _read, say)
    for part, digest, answer in self._good:
      self._found.setdefault(part, {})[digest] = answer
    self._file = None

  @property
  def size(self):
    """Answers that were there when it was opened."""
    return sum(map(len, self._found.values()))

  def open(self):
    """Begins to write, once all processes have read."""
    if jax.process_index() == 0:
      self._path.parent.mkdir(parents=True, exist_ok=True)
      atomic.write(self._path, ''.join(map(_line, self._good)))
      self._file = open(self._path, 'a', buffering=1, opener=atomic.no_follow)
    self._good = []

  def part(self, name, digests):
    """The Part of this name for questions with these digests."""
    known = self._found.get(name, {})
    def keep(number, answer):
      if self._file:
        self._file.write(_line([name, digests[number], answer]))
    return Part({number: known[digest] for number, digest in enumerate(digests) if digest in known}, keep)

  def close(self):
    if self._file:
      self._file.close()


def _line(entry):
  return json.dumps([*entry, records.checksum(list(entry))]) + '\n'


def _read(line):
  entry = records.parse(line)
  named = isinstance(entry, list) and len(entry) == 4 and all(isinstance(one, str) for one in entry[:2])
  if not named or records.checksum(entry[:3]) != entry[3]:
    raise ValueError('it is not an answer with its checksum')
  return entry[:3]
