"""Texts that the model generates after prompts, for the tasks that read them."""

import numpy as np

from gptjax.command import bars
from gptjax.evaluate.scoring.evaluated_model import arrays_digest
from gptjax.evaluate.texts.sources import NotRun
from gptjax.generate import cache, writer
from gptjax.generate.sampling import Choice
from gptjax.generate.streaming import Text

MIN_BATCH_SIZE = 8  # texts, at least: reading the weights for a token takes as long for one as for a few


def generate_texts(evaluated, name, prompts, max_tokens, stop=('\n',), top_k=1):
  """[(what was written, without the stop string; list of int, its tokens and maybe some after)].

  Args:
    evaluated: the EvaluatedModel.
    name: of this part in the journal.
    prompts: list of int32[n], n at most n_ctx - max_tokens.
    max_tokens: tokens to write at most.
    stop: strings before which a text ends.
    top_k: draw from so many of the likeliest tokens; 1: always the likeliest.
  """
  drawn = lambda number: [[number]] if top_k > 1 else []  # each text is drawn with a key of its own
  part = evaluated.journal_part(name, [arrays_digest([ids, *drawn(i)]) for i, ids in enumerate(prompts)])
  found = {number: tuple(answer) for number, answer in part.known.items()}
  left = sorted((i for i in range(len(prompts)) if i not in found), key=lambda i: -len(prompts[i]))
  n_vocab = min(evaluated.model.n_vocab, evaluated.tokenizer.n_vocab)
  choice = Choice(None if top_k == 1 else 1.0, None if top_k == 1 else top_k, None, n_vocab)
  model = cache.ready(evaluated.model) if left else None
  with bars.bar(shown=evaluated.show_progress, total=len(prompts), initial=len(found), desc=name, unit='text',
                leave=False) as bar:
    size = max(MIN_BATCH_SIZE, evaluated.batch_size)
    for at in range(0, len(left), size):
      rows = left[at:at + size]
      texts = [Text(evaluated.tokenizer, prompts[i], i, max_tokens, list(stop)) for i in rows]
      writer.extend(model, evaluated.tokenizer, texts, choice, evaluated.seed, 'stop', size, None)
      for i, text in zip(rows, texts):
        found[i] = text.said, text.ids[len(prompts[i]):]
        part.record(i, found[i])
      bar.update(len(rows))
      evaluated.after_batch()
  return [found[i] for i in range(len(prompts))]


def encode_prompt(evaluated, text, max_tokens):
  """int32[n]: the tokens of a prompt, cut on the left so that there is room to write.

  Raises:
    NotRun: the context is too short for this task.
  """
  return np.asarray(evaluated.tokenizer.encode(text), np.int32)[-max_prompt_tokens(evaluated, max_tokens):]


def max_prompt_tokens(evaluated, max_tokens):
  """Tokens that a prompt may have."""
  n_ctx = evaluated.model.n_ctx
  if n_ctx <= max_tokens:
    raise NotRun(f'{max_tokens} tokens to write leave no room for a prompt in a context of {n_ctx}: this '
                 'task needs a model with a longer one')
  return n_ctx - max_tokens


def answer_tokens(tokenizer, ids, said):
  """The first of the tokens `ids`, as many as it takes to write `said`."""
  n = 0
  while n < len(ids) and len(tokenizer.decode(ids[:n])) < len(said):
    n += 1
  return ids[:n]
