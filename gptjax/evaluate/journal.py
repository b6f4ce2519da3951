"""What an evaluation has found so far, on disk as it comes, so that a run which is stopped goes on there."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import jax

from gptjax import atomic
from gptjax.errors import InputError


class Part(NamedTuple):
  """The answers to one list of questions.

  done: {number of a question: answer} that are known, answers as JSON has them.
  keep: function of (number, answer) that writes one down.
  """
  done: dict
  keep: Any


def forgetful(name, digest):
  """A Part that keeps nothing."""
  del name, digest
  return Part({}, lambda number, answer: None)


class Journal:
  """The file of one task; each line is [part, digest, number, answer].

  Args:
    path: of the file; its folder is made. Only process 0 writes, all read it when it is opened.
  """

  def __init__(self, path):
    self._path, self._found, good = Path(path), {}, []
    text = self._path.read_text() if self._path.exists() else ''
    for line in text.split('\n')[:-1]:  # a last one without its end was cut short by a kill
      try:
        part, digest, number, answer = json.loads(line)
      except (ValueError, TypeError):
        raise InputError(f'{path} is damaged at {line[:60]!r}: remove it to begin the task again') from None
      self._found.setdefault((part, digest), {})[number] = answer
      good.append(line)
    self._file = None
    self._good = good

  @property
  def size(self):
    """Answers that were there when it was opened."""
    return sum(map(len, self._found.values()))

  def open(self):
    """Begins to write, once all processes have read."""
    if jax.process_index() == 0:
      self._path.parent.mkdir(parents=True, exist_ok=True)
      atomic.write(self._path, ''.join(line + '\n' for line in self._good))
      self._file = open(self._path, 'a', buffering=1)
    self._good = []

  def part(self, name, digest):
    """The Part of this name; only answers to the same questions, by their digest, are known."""
    def keep(number, answer):
      if self._file:
        self._file.write(json.dumps([name, digest, number, answer]) + '\n')
    return Part(self._found.get((name, digest), {}), keep)

  def close(self):
    if self._file:
      self._file.close()

  def discard(self):
    """Removes the file: the task is done, its results are elsewhere."""
    if jax.process_index() == 0:
      self._path.unlink(missing_ok=True)
