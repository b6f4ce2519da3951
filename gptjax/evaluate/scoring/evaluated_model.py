"""The model under evaluation, its tokenizer, and how a task queries it."""

import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from gptjax.evaluate.journal import no_journal
from gptjax.evaluate.scoring import scores
from gptjax.evaluate.scoring.scores import Request, Score
from gptjax.evaluate.texts.sources import NotRun


class Stopped(Exception):
  """The run was told to stop; what has been found so far is in the journal."""


class EvaluatedModel(NamedTuple):
  """A model under test.

  model: a `scores.prepare_model` GPT; its mesh is set.
  tokenizer: its own.
  batch_size: sequences of full length at a time, over all devices; of shorter ones there are more.
  grid: whether to run the protocols beside the paper's too.
  seed: of what a task draws.
  pulse: function to call after each batch; it raises Stopped where the run is to stop.
  kept: function of (name of a part, [digest of each question]) that gives a `journal.Part`.
  show: whether to draw progress bars.
  """
  model: Any
  tokenizer: Any
  batch_size: int
  grid: bool
  seed: int
  after_batch: Callable[[], None]
  journal_part: Callable[[str, list], Any]
  show_progress: bool


def make_evaluated_model(model, tokenizer, batch_size, *, grid=False, seed=0, after_batch=lambda: None,
                         journal_part=no_journal,
                         show_progress=False):
  """A Subject; the model may be any GPT."""
  return EvaluatedModel(scores.prepare_model(model), tokenizer, batch_size, grid, seed, after_batch,
                        journal_part, show_progress)


class Task(NamedTuple):
  """One thing that a model can be good at.

  name: as in `config.eval.tasks`.
  title: as in the table.
  read: function of `sources.DataOptions` that returns a list of examples, of a type of the task's own; raises
    NotRun where they are not there, ValueError where they are damaged.
  evaluate: function of (EvaluatedModel, examples) that returns a TaskResult; raises NotRun for a model that
    does not suit.
  """
  name: str
  title: str
  read: Callable
  evaluate: Callable


class TaskResult(NamedTuple):
  """What a task has found.

  metrics: {name: float or int}.
  protocol: str, how it was measured, with prompts in full.
  cells: tuple of {'text', 'stride', 'unit', 'value', 'paper': bool}: the same by other protocols.
  rows: tuple of [cell of a table, ...], for tasks that have one; the first row is its head.
  examples: tuple of {'text', a score or several, ...}, one an example: what the metrics are means of.
  """
  metrics: dict
  protocol: str
  cells: tuple = ()
  rows: tuple = ()
  examples: tuple = ()


def make_request(evaluated, before, after):
  """The Request that scores the text `after`, given the text `before`; cut on the left to fit the context.

  Both are encoded as one text; scored are the tokens that are not those of `before` alone. Where nothing
  comes before, the end-of-text token does; for a tokenizer without one the first token is given, not scored.
  """
  encode, n_ctx = evaluated.tokenizer.encode, evaluated.model.n_ctx
  whole, alone = encode(before + after), encode(before) if before else []
  n = min(len(whole), len(alone))
  same = np.flatnonzero(np.asarray(whole[:n]) != np.asarray(alone[:n]))
  start = int(same[0]) if len(same) else n
  return truncate_request(request_after_end_of_text(evaluated, whole, start), n_ctx)


def request_after_end_of_text(evaluated, ids, start):
  """A Request for tokens from the very beginning of a text, `start` of them given."""
  end = evaluated.tokenizer.end_of_text
  if start:
    return Request(np.asarray(ids), start)
  return Request(np.asarray(ids) if end is None else np.append(np.int32(end), ids), 1)


def truncate_request(request, n_ctx):
  """The request without what is too long ago for the context."""
  over = max(0, len(request.ids) - n_ctx - 1)
  if request.start <= over:
    raise NotRun(f'{len(request.ids) - request.start} tokens to score do not fit into a context of {n_ctx}: '
                 'this task needs a model with a longer one')
  return Request(request.ids[over:], request.start - over)


def score_with_journal(evaluated, name, requests, excluded=None):
  """[Score of each Request]; those that the journal has under this name are not asked again."""
  part = evaluated.journal_part(name, [arrays_digest([np.append(ids, start)]) for ids, start in requests])
  done = {number: Score(*answer) for number, answer in part.known.items()}
  return scores.score_requests(evaluated.model, requests, evaluated.batch_size, excluded=excluded, known=done,
                               on_score=part.record,
                        after_batch=evaluated.after_batch, name=name, show_progress=evaluated.show_progress)


def arrays_digest(arrays):
  """16 hex digits that name a list of int arrays."""
  made = hashlib.sha256()
  for array in arrays:
    made.update(len(array).to_bytes(8, 'little') + np.asarray(array, '<i4').tobytes())
  return made.hexdigest()[:16]
