"""The model under evaluation, its tokenizer, and how a task queries it."""

import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from gptjax.data.tokenizers import special
from gptjax.evaluate.journal import no_journal
from gptjax.evaluate.scoring import scores
from gptjax.evaluate.scoring.scores import Request, Score
from gptjax.evaluate.texts.sources import NotRun


class Stopped(Exception):
  """The run is to stop; the answers so far are in the journal."""


class EvaluatedModel(NamedTuple):
  """The model under evaluation.

  model: a `scores.prepare_model` GPT; its mesh is set.
  tokenizer: the tokenizer of the model.
  batch_size: full-length sequences per batch, over all devices; batches of shorter ones are larger.
  grid: whether to run other protocols besides the paper's.
  seed: of random choices in a task.
  after_batch: function to call after each batch; it raises Stopped if the run is to stop.
  journal_part: function of (name of a part, [digest of each question]) that returns a `journal.Part`.
  show_progress: whether to show progress bars.
  counterfactual: whether to run the counterfactual control of CORE's tasks.
  """
  model: Any
  tokenizer: Any
  batch_size: int
  grid: bool
  seed: int
  after_batch: Callable[[], None]
  journal_part: Callable[[str, list], Any]
  show_progress: bool
  counterfactual: bool = False


def make_evaluated_model(model, tokenizer, batch_size, *, grid=False, seed=0, after_batch=lambda: None,
                         journal_part=no_journal, show_progress=False, counterfactual=False):
  """Return an EvaluatedModel; the model may be any GPT."""
  return EvaluatedModel(scores.prepare_model(model), tokenizer, batch_size, grid, seed, after_batch,
                        journal_part, show_progress, counterfactual)


class Task(NamedTuple):
  """A task that a model is evaluated on.

  name: as in `config.eval.tasks`.
  title: of its row in the table.
  read: function of `sources.DataOptions` that returns a list of examples, of a type of the task's own; raises
    NotRun if they are missing, ValueError if they are damaged.
  evaluate: function of (EvaluatedModel, examples) that returns a TaskResult; raises NotRun for a model that
    does not suit.
  """
  name: str
  title: str
  read: Callable
  evaluate: Callable


class TaskResult(NamedTuple):
  """The result of a task.

  metrics: {name: float or int}.
  protocol: str, how it was measured, with complete prompts.
  cells: tuple of {'text', 'stride', 'unit', 'value', 'paper': bool}: the score under other protocols.
  rows: tuple of [cell of a table, ...], for tasks that have a table; the first row is the header.
  examples: tuple of {'text', one or more scores, ...}, one per example; metrics are means of these scores.
  """
  metrics: dict
  protocol: str
  cells: tuple = ()
  rows: tuple = ()
  examples: tuple = ()


def make_request(evaluated, before, after):
  """Return the Request that scores the text `after`, given the text `before`.

  Both are encoded as one text. The scored tokens are those that differ from the encoding of `before` alone.
  If `before` is empty, the tokenizer's start-of-text token precedes the text; without such a token, the first
  token of the text is not scored. Requests are truncated on the left to fit the context.
  """
  encode, n_ctx = evaluated.tokenizer.encode, evaluated.model.n_ctx
  ids, before_ids = encode(before + after), encode(before) if before else []
  start = common_prefix(ids, before_ids)
  return truncate_request(request_from_start(evaluated, ids, start), n_ctx)


def common_prefix(first, second):
  """The number of leading elements that two sequences have in common."""
  n = min(len(first), len(second))
  differing = np.flatnonzero(np.asarray(first[:n]) != np.asarray(second[:n]))
  return int(differing[0]) if len(differing) else n


def request_from_start(evaluated, ids, start):
  """Return a Request for tokens from the beginning of a text, of which the first `start` are not scored."""
  first = evaluated.tokenizer.start_of_text
  if start:
    whole = special.after_prefix(evaluated.tokenizer, ids)
    return Request(whole, start + len(whole) - len(ids))
  return Request(np.asarray(ids) if first is None else np.append(np.int32(first), ids), 1)


def truncate_request(request, n_ctx):
  """Return the request, truncated on the left to fit the context."""
  excess = max(0, len(request.ids) - n_ctx - 1)
  if request.start <= excess:
    raise NotRun(f'{len(request.ids) - request.start} tokens to score do not fit into a context of {n_ctx}: '
                 'this task needs a model with a longer context')
  return Request(request.ids[excess:], request.start - excess)


def score_with_journal(evaluated, name, requests, excluded=None):
  """Return [Score of each Request]; those that the journal has under this name are not computed again."""
  part = evaluated.journal_part(name, [arrays_digest([np.append(ids, start)]) for ids, start in requests])
  known = {number: Score(*answer) for number, answer in part.known.items()}
  return scores.score_requests(
    evaluated.model, requests, evaluated.batch_size, excluded=excluded, known=known, on_score=part.record,
    after_batch=evaluated.after_batch, name=name, show_progress=evaluated.show_progress)


def arrays_digest(arrays):
  """Return 16 hex digits that identify a list of int arrays."""
  sha256 = hashlib.sha256()
  for array in arrays:
    sha256.update(len(array).to_bytes(8, 'little') + np.asarray(array, '<i4').tobytes())
  return sha256.hexdigest()[:16]
