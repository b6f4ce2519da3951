"""Answers of an evaluation, written to disk at once, so that a stopped run resumes after the last one."""

import json
from typing import Any, NamedTuple

import jax

from gptjax.storage.files import access, local, parts, paths, records
from gptjax.storage.files.json_files import NUMBER
from gptjax.storage.files.paths import Url

PART_SECONDS = 10.0  # between parts of a journal in a bucket: an evaluation that is stopped ends at once

# Layout of `grids` in results.json: cells of how a score depends on the protocol.
GRIDS = {str: [{'text': str, 'stride': (int, type(None)), 'unit': str, 'value': NUMBER, 'paper': bool}]}


class Part(NamedTuple):
  """The answers to one list of questions.

  known: {number of a question: answer} so far, answers as JSON values.
  record: function of (number, answer) that appends an answer to the file.
  """
  known: dict
  record: Any


def no_journal(name, digests):
  """A Part that records nothing."""
  del name, digests
  return Part({}, lambda number, answer: None)


class Journal:
  """The file of one task; each line is [part, digest, answer, CRC-32 of these].

  The digest is that of the model, then that of the question. Answers of another model, which a workdir has
  if its `results.json` was deleted, are not used; nor are those of versions that did not store the model.

  In a bucket it is a sequence of parts, see `gptjax.storage.files.parts`.

  The file is kept when the task is done: with a larger `eval.limit` only the additional questions are run.

  Args:
    path: of the file; its folder is created. Only process 0 writes; all processes read it at the start.
    model: digest of the model, see `gptjax.evaluate.run.model_digest`.
    log: function that logs a line about damaged answers, which are skipped.
  """

  def __init__(self, path, model, log=records.log):
    self._path, self._answers, self._model = paths.location(path), {}, f'{model} '
    self._valid = records.read_lines(self._path, _read, log)
    for part, digest, answer in self._valid:
      if digest.startswith(self._model):
        self._answers.setdefault(part, {})[digest] = answer
    self._file = None

  @property
  def size(self):
    """Number of answers of this model in the file when it was read."""
    return sum(map(len, self._answers.values()))

  def begin(self):
    """Open the file for writing, once all processes have read it."""
    if jax.process_index() == 0 and isinstance(self._path, Url):
      self._file = parts.Writer(self._path, records.log, PART_SECONDS)
    elif jax.process_index() == 0:
      access.make_folder(self._path.parent)
      parts.replace(self._path, ''.join(map(_line, self._valid)))
      self._file = local.lines_at_end(self._path)
    self._valid = []

  def part(self, name, digests):
    """Return the Part of this name for the questions with these digests."""
    known, digests = self._answers.get(name, {}), [self._model + digest for digest in digests]
    def record(number, answer):
      if self._file:
        self._file.write(_line([name, digests[number], answer]))
    return Part({number: known[digest] for number, digest in enumerate(digests) if digest in known}, record)

  def close(self):
    if self._file:
      self._file.close()


def _line(entry):
  return json.dumps([*entry, records.checksum(list(entry))]) + '\n'


def _read(line):
  entry = records.parse(line)
  well_formed = (isinstance(entry, list) and len(entry) == 4
                 and all(isinstance(field, str) for field in entry[:2]))
  if not well_formed or records.checksum(entry[:3]) != entry[3]:
    raise ValueError('not an answer with its checksum')
  return entry[:3]
