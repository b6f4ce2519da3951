"""Generation of continuations of prompts, for the tasks that score generated text."""

from gptjax.command import bars
from gptjax.data.tokenizers import special
from gptjax.evaluate.scoring.evaluated_model import arrays_digest
from gptjax.evaluate.texts.sources import NotRun
from gptjax.generate import generation, kv_cache
from gptjax.generate.sampling import SamplingOptions
from gptjax.generate.streaming import GeneratedText

MIN_BATCH_SIZE = 8  # generation is bound by reading the weights, so a small batch takes as long as one text


def generate_with_journal(evaluated, name, prompts, max_tokens, stop=('\n',), top_k=1):
  """Return (text, tokens) for each prompt: the text ends before the stop string; the tokens may include it.

  Args:
    evaluated: EvaluatedModel.
    name: of this part in the journal.
    prompts: list of int32[n], n at most n_ctx - max_tokens.
    max_tokens: maximum number of tokens to generate.
    stop: strings that end a text.
    top_k: sample from this number of most likely tokens; 1: greedy.
  """
  sampling_key = lambda number: [[number]] if top_k > 1 else []  # each text is sampled with its own key
  part = evaluated.journal_part(name, [arrays_digest([ids, *sampling_key(i)])
                                       for i, ids in enumerate(prompts)])
  results = {number: tuple(answer) for number, answer in part.known.items()}
  remaining = sorted((i for i in range(len(prompts)) if i not in results), key=lambda i: -len(prompts[i]))
  n_vocab = min(evaluated.model.n_vocab, evaluated.tokenizer.n_vocab)
  options = SamplingOptions(None if top_k == 1 else 1.0, None if top_k == 1 else top_k, None, n_vocab)
  model = kv_cache.prepare_for_decoding(evaluated.model) if remaining else None
  with bars.bar(shown=evaluated.show_progress, total=len(prompts), initial=len(results), desc=name,
                unit='text', leave=False) as bar:
    size = max(MIN_BATCH_SIZE, evaluated.batch_size)
    for begin in range(0, len(remaining), size):
      rows = remaining[begin:begin + size]
      texts = [GeneratedText(evaluated.tokenizer, prompts[i], i, max_tokens, list(stop)) for i in rows]
      generation.generate_texts(model, evaluated.tokenizer, texts, options, evaluated.seed, 'stop', size,
                                None, show_progress=False)
      for i, text in zip(rows, texts):
        results[i] = text.text, text.ids[len(prompts[i]):]
        part.record(i, results[i])
      bar.update(len(rows))
      evaluated.after_batch()
  return [results[i] for i in range(len(prompts))]


def encode_prompt(evaluated, text, max_tokens):
  """Return int32[n], the tokens of a prompt, truncated on the left to leave room for max_tokens.

  Raises:
    NotRun: the context is too short for this task.
  """
  ids = special.after_prefix(evaluated.tokenizer, evaluated.tokenizer.encode(text))
  return ids[-max_prompt_tokens(evaluated, max_tokens):]


def max_prompt_tokens(evaluated, max_tokens):
  """The maximum number of tokens of a prompt."""
  n_ctx = evaluated.model.n_ctx
  if n_ctx <= max_tokens:
    raise NotRun(f'{max_tokens} tokens to generate leave no room for a prompt in a context of {n_ctx}: '
                 'this task needs a model with a longer context')
  return n_ctx - max_tokens


def answer_tokens(tokenizer, ids, text):
  """Return the shortest prefix of the tokens `ids` that decodes to at least `text`."""
  # An incomplete character is decoded as U+FFFD; some tokenizers drop a space at the start.
  decoded_length = lambda n: len(tokenizer.decode(ids[:n]).rstrip('\ufffd').lstrip())
  n = 0
  while n < len(ids) and decoded_length(n) < len(text.lstrip()):
    n += 1
  return ids[:n]
