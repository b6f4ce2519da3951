"""What is evaluated: a model, its tokenizer, and how a task asks it."""

import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from gptjax.evaluate.journal import forgetful
from gptjax.evaluate.scoring import scores
from gptjax.evaluate.scoring.scores import Request, Score
from gptjax.evaluate.texts.sources import NotRun


class Stopped(Exception):
  """The run was told to stop; what has been found so far is in the journal."""


class Subject(NamedTuple):
  """A model under test.

  model: a `scores.ready` GPT; its mesh is set.
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
  pulse: Callable[[], None]
  kept: Callable[[str, list], Any]
  show: bool


def subject(model, tokenizer, batch_size, *, grid=False, seed=0, pulse=lambda: None, kept=forgetful,
            show=False):
  """A Subject; the model may be any GPT."""
  return Subject(scores.ready(model), tokenizer, batch_size, grid, seed, pulse, kept, show)


class Task(NamedTuple):
  """One thing that a model can be good at.

  name: as in `config.eval.tasks`.
  title: as in the table.
  read: function of `sources.Data` that gives a list of examples (what they are is the task's own business);
    raises NotRun where they are not there, ValueError where they are damaged.
  evaluate: function of (Subject, examples) that gives a Found; raises NotRun for a model that does not suit.
  """
  name: str
  title: str
  read: Callable
  evaluate: Callable


class Found(NamedTuple):
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


def request(subject, before, after):
  """The Request that scores the text `after`, given the text `before`; cut on the left to fit the context.

  Both are encoded as one text; scored are the tokens that are not those of `before` alone. Where nothing
  comes before, the end-of-text token does; for a tokenizer without one the first token is given, not scored.
  """
  encode, n_ctx = subject.tokenizer.encode, subject.model.n_ctx
  whole, alone = encode(before + after), encode(before) if before else []
  n = min(len(whole), len(alone))
  same = np.flatnonzero(np.asarray(whole[:n]) != np.asarray(alone[:n]))
  start = int(same[0]) if len(same) else n
  return fitted(prefixed(subject, whole, start), n_ctx)


def prefixed(subject, ids, start):
  """A Request for tokens from the very beginning of a text, `start` of them given."""
  end = subject.tokenizer.end_of_text
  if start:
    return Request(np.asarray(ids), start)
  return Request(np.asarray(ids) if end is None else np.append(np.int32(end), ids), 1)


def fitted(request, n_ctx):
  """The request without what is too long ago for the context."""
  over = max(0, len(request.ids) - n_ctx - 1)
  if request.start <= over:
    raise NotRun(f'{len(request.ids) - request.start} tokens to score do not fit into a context of {n_ctx}: '
                 'this task needs a model with a longer one')
  return Request(request.ids[over:], request.start - over)


def scored(subject, name, requests, barred=None):
  """[Score of each Request]; those that the journal has under this name are not asked again."""
  part = subject.kept(name, [digest([np.append(ids, start)]) for ids, start in requests])
  done = {number: Score(*answer) for number, answer in part.done.items()}
  return scores.scores(subject.model, requests, subject.batch_size, barred=barred, done=done, keep=part.keep,
                        pulse=subject.pulse, name=name, show=subject.show)


def digest(arrays):
  """16 hex digits that name a list of int arrays."""
  made = hashlib.sha256()
  for array in arrays:
    made.update(len(array).to_bytes(8, 'little') + np.asarray(array, '<i4').tobytes())
  return made.hexdigest()[:16]
