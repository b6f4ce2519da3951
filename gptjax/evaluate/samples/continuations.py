"""Continuations of prompts, in batches that are saved at once, with their log probabilities."""

import hashlib
import json
from typing import NamedTuple

import jax
import numpy as np

from gptjax.command import bars
from gptjax.config import resolve
from gptjax.evaluate.samples import store
from gptjax.evaluate.scoring import scores
from gptjax.generate import generation
from gptjax.generate.sampling import SamplingOptions
from gptjax.generate.streaming import GeneratedText


class Prompt(NamedTuple):
  """What a model continues.

  title: one line.
  text, ids: of the prompt.
  reference: how the text goes on; ''.
  max_tokens: of the continuation.
  """
  title: str
  text: str
  ids: np.ndarray
  reference: str
  max_tokens: int


class Decoding(NamedTuple):
  """How to continue: `number` samples with a temperature (0: greedy) and top_k (0: all tokens)."""
  number: int
  temperature: float
  top_k: int


GREEDY = Decoding(1, 0.0, 0)


def write(path, model, tokenizer, weights, prompts, decodings, seed, batch_size):
  """Write the samples of prompts that a file does not have yet; return all [store.Sample] of these prompts.

  Args:
    path: of the file, see `store`.
    model: GPT from `kv_cache.prepare_for_decoding`; its mesh is set.
    tokenizer: of the model.
    weights: digest of the weights.
    prompts: list of Prompt.
    decodings: list of Decoding.
    seed: of the samples.
    batch_size: texts per batch; it affects the memory, not the texts.

  Raises:
    InputError: the memory is too small, or logits are NaN.
  """
  stored = store.read(path)
  wanted = [_Wanted.of(prompt, number, decoding, seed) for decoding in decodings for prompt in prompts
            for number in range(decoding.number)]
  known = {line['id']: line for line in stored.lines if line.get('weights') == weights and 'id' in line}
  with store.appending(path, stored.lines) as append:
    append({'weights': weights, 'ids': [one.id for one in wanted]})
    with bars.bar(shown=True, total=len(wanted), desc='samples', unit='text', leave=False,
                  initial=sum(one.id in known for one in wanted)) as bar:
      for decoding in decodings:
        left = [one for one in wanted if one.decoding == decoding and one.id not in known]
        for at in range(0, len(left), batch_size):
          for sample in _generate(model, tokenizer, weights, left[at:at + batch_size], seed):
            known[sample['id']] = sample
            append(sample)
            bar.update(1)
  return [store.Sample(**known[one.id]) for one in wanted]


class _Wanted(NamedTuple):
  """A sample that is wanted, with its id."""
  prompt: Prompt
  number: int
  decoding: Decoding
  id: str
  group: str

  @classmethod
  def of(cls, prompt, number, decoding, seed):
    group = _digest(prompt.text, prompt.max_tokens)
    made = [np.asarray(prompt.ids).tolist(), prompt.max_tokens, number, *decoding[1:], seed]
    return cls(prompt, number, decoding, _digest(*made), group)


def _digest(*values):
  return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]


def _generate(model, tokenizer, weights, batch, seed):
  """Return the records of a batch with one Decoding."""
  texts = [GeneratedText(tokenizer, one.prompt.ids, one.number, one.prompt.max_tokens, []) for one in batch]
  generation.require_memory(model, texts, len(texts))
  decoding = batch[0].decoding
  options = SamplingOptions(decoding.temperature or None, decoding.top_k or None, None,
                            min(model.n_vocab, tokenizer.n_vocab))
  generation.generate_texts(model, tokenizer, texts, options, seed, 'stop', len(texts), None,
                            show_progress=False)
  starts = [len(one.prompt.ids) for one in batch]
  log_probs = _log_probs(model, [(text.ids, start) for text, start in zip(texts, starts, strict=True)])
  return [store.Sample(
    one.id, weights, one.group, one.prompt.title, one.prompt.text, text.text, one.prompt.reference,
    start, len(text.ids) - start, one.prompt.max_tokens, text.finish_reason,
    one.number + 1, decoding.temperature, decoding.top_k, seed, log_prob)._asdict()
    for one, text, start, log_prob in zip(batch, texts, starts, log_probs, strict=True)]


def _log_probs(model, texts):
  """Return the log probability of each (ids, start) from `start` on, None if there is nothing."""
  requests = [scores.Request(ids, start) for ids, start in texts if len(ids) > start]
  batch_size = resolve.evaluation_batch_size(model.n_ctx, jax.devices()[0])
  found = iter(scores.score_requests(model, requests, batch_size) if requests else ())
  return [next(found).log_prob if len(ids) > start else None for ids, start in texts]
