"""Texts that the model writes after prompts, for the tasks that read them."""

import numpy as np

from gptjax.command import bars
from gptjax.evaluate.scoring.subject import digest
from gptjax.evaluate.texts.sources import NotRun
from gptjax.generate import generation, kv_cache
from gptjax.generate.sampling import SamplingOptions
from gptjax.generate.streaming import GeneratedText

AT_ONCE = 8  # texts, at least: reading the weights for a token takes as long for one as for a few


def written(subject, name, prompts, max_tokens, stop=('\n',), top_k=1):
  """[(what was written, without the stop string; list of int, its tokens and maybe some after)].

  Args:
    subject: the Subject.
    name: of this part in the journal.
    prompts: list of int32[n], n at most n_ctx - max_tokens.
    max_tokens: tokens to write at most.
    stop: strings before which a text ends.
    top_k: draw from so many of the likeliest tokens; 1: always the likeliest.
  """
  drawn = lambda number: [[number]] if top_k > 1 else []  # each text is drawn with a key of its own
  part = subject.kept(name, [digest([ids, *drawn(i)]) for i, ids in enumerate(prompts)])
  found = {number: tuple(answer) for number, answer in part.done.items()}
  left = sorted((i for i in range(len(prompts)) if i not in found), key=lambda i: -len(prompts[i]))
  n_vocab = min(subject.model.n_vocab, subject.tokenizer.n_vocab)
  choice = SamplingOptions(None if top_k == 1 else 1.0, None if top_k == 1 else top_k, None, n_vocab)
  model = kv_cache.prepare_for_decoding(subject.model) if left else None
  with bars.bar(shown=subject.show, total=len(prompts), initial=len(found), desc=name, unit='text',
                leave=False) as bar:
    size = max(AT_ONCE, subject.batch_size)
    for at in range(0, len(left), size):
      rows = left[at:at + size]
      texts = [GeneratedText(subject.tokenizer, prompts[i], i, max_tokens, list(stop)) for i in rows]
      generation.generate_texts(model, subject.tokenizer, texts, choice, subject.seed, 'stop', size, None)
      for i, text in zip(rows, texts):
        found[i] = text.text, text.ids[len(prompts[i]):]
        part.keep(i, found[i])
      bar.update(len(rows))
      subject.pulse()
  return [found[i] for i in range(len(prompts))]


def prompt(subject, text, max_tokens):
  """int32[n]: the tokens of a prompt, cut on the left so that there is room to write.

  Raises:
    NotRun: the context is too short for this task.
  """
  return np.asarray(subject.tokenizer.encode(text), np.int32)[-room(subject, max_tokens):]


def room(subject, max_tokens):
  """Tokens that a prompt may have."""
  n_ctx = subject.model.n_ctx
  if n_ctx <= max_tokens:
    raise NotRun(f'{max_tokens} tokens to write leave no room for a prompt in a context of {n_ctx}: this '
                 'task needs a model with a longer one')
  return n_ctx - max_tokens


def spelled(tokenizer, ids, said):
  """The first of the tokens `ids`, as many as it takes to write `said`."""
  n = 0
  while n < len(ids) and len(tokenizer.decode(ids[:n])) < len(said):
    n += 1
  return ids[:n]
