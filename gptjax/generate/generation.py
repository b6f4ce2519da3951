"""Generates texts from prompts in batches.

A text depends on the seed, the prompt, the index of the sample and the options, but not on the other texts of
the batch, except for rounding, which depends on the batch size.
"""

import zlib
from pathlib import Path

import jax
import numpy as np

from gptjax.command import bars
from gptjax.command.parsers.generate import DOMAINS
from gptjax.data.tokenizers import special, tokenizer_files
from gptjax.errors import InputError
from gptjax.generate import kv_cache
from gptjax.generate.sampling import SamplingOptions, row_keys
from gptjax.generate.streaming import GeneratedText
from gptjax.kernels import cpu
from gptjax.parallel import sharding
from gptjax.storage.files import access, paths
from gptjax.storage.files.paths import Url
from gptjax.text import text_checks

PAPER_TOP_K = 40  # of the samples in the appendix of the GPT-2 paper
ON_FULL = ('stop', 'slide')



def sample(source, *, prompt=None, prompt_file=None, num_samples=1, max_tokens=256, temperature=1.0,
           top_k=None, top_p=None, seed=0, stop=None, on_full='stop', batch_size=16, listen=None,
           special_tokens=(), weight_dtype=None):
  """Generate texts that continue prompts.

  Args:
    source: path as for `gptjax.load`, or the model and tokenizer that it returns.
    prompt: str, or several. Without a prompt, a text starts after the start-of-text token, which is the
      end-of-text token of the papers' models.
    prompt_file: path of a file with a prompt, or several; these prompts follow those of `prompt`.
    num_samples: int, texts per prompt.
    max_tokens: int, maximum tokens of a text, without the prompt.
    temperature: float, 0 or from 1e-6 to 1e6, the divisor of the logits; 0: always the most likely token.
    top_k: int, sample from this many of the most likely tokens; 0: from all. None: from all, or from 40 if
      there is neither a prompt nor top_p.
    top_p: float in [1e-6, 1], sample from the smallest set of tokens with at least this total probability.
    seed: int in [0, 2^32).
    stop: str, or several, before which a text ends.
    on_full: what to do when the model's context is full. 'stop': end the text. 'slide': continue with the
      last half of the context.
    batch_size: int, texts per batch; it affects the memory, not the texts.
    listen: function of (index of the text, its next piece, its finish_reason: see `streaming.GeneratedText`),
      called during generation, for every token if there is only one text.
    special_tokens: names of special tokens that a prompt may contain, or ['all']; others are plain text.
    weight_dtype: 'int8': round matrices to int8 with one scale per output, which is faster for few texts on a
      CPU and changes the texts. None: the compute dtype of the model.

  Returns:
    list of str: the samples of each prompt, without the prompt, the end-of-text token and the stop string.

  Raises:
    ValueError: with a one-line message: an option out of its range, an empty prompt, one longer than the
      context, no tokenizer, a model with NaN logits, or an error of `gptjax.load`.
  """
  prompts, stop = [*_as_list(prompt), *map(read_prompt, _as_list(prompt_file))], _as_list(stop)
  check_options(prompts, num_samples, max_tokens, temperature, top_k, top_p, seed, stop, on_full, batch_size,
                weight_dtype)
  sharding.ensure_mesh()
  if isinstance(source, str | Path | Url):
    from gptjax import pretrained
    source = pretrained.load(source)
  model, tokenizer = source
  if tokenizer is None:
    raise InputError(tokenizer_files.missing_message('the folder of the weights'))
  if top_k is None and top_p is None and not prompts:
    top_k = PAPER_TOP_K
  choice = SamplingOptions(temperature or None, top_k or None, None if top_p == 1 else top_p,
                           min(model.n_vocab, tokenizer.n_vocab))
  prompt_ids = encode_prompts(prompts, tokenizer, model.n_ctx, special_tokens)
  texts = [GeneratedText(tokenizer, ids, number, max_tokens, stop)
          for ids in prompt_ids for number in range(num_samples)]
  # Release the weights as loaded.
  model, source = kv_cache.prepare_for_decoding(model, weight_dtype), None
  require_memory(model, texts, batch_size)
  generate_texts(model, tokenizer, texts, choice, seed, on_full, batch_size, listen)
  return [text.text for text in texts]


def check_options(prompts, num_samples, max_tokens, temperature, top_k, top_p, seed, stop, on_full,
                  batch_size, weight_dtype=None):
  """Raise ValueError for options out of their range."""
  options = {'num_samples': num_samples, 'max_tokens': max_tokens, 'temperature': temperature, 'top_k': top_k,
           'top_p': top_p, 'seed': seed, 'batch_size': batch_size}
  for name, value in options.items():
    if value is not None:
      DOMAINS[name].require(name, value)
  if on_full not in ON_FULL:
    raise InputError(f'on_full = {on_full!r} is not one of {", ".join(ON_FULL)}')
  if weight_dtype not in kv_cache.WEIGHT_DTYPES:
    raise InputError(f'weight_dtype = {weight_dtype!r} is not int8')
  if '' in stop:
    raise InputError('a stop string is empty: remove it')
  if '' in prompts:
    raise InputError('a prompt is empty: remove it for a text that starts after the start-of-text token')
  for text in (*prompts, *stop):
    text_checks.require_valid(text, 'a prompt or stop string')


def require_memory(model, texts, batch_size):
  """Raise InputError if the keys and values of a batch exceed the memory of all devices."""
  slots = max(min(len(text.ids) + text.remaining, model.n_ctx) for text in texts)
  rows = min(batch_size, len(texts))
  needed = kv_cache.bytes_per_token(model) * rows * slots
  limits = [(device.memory_stats() or {}).get('bytes_limit', 0) for device in jax.local_devices()]
  available = sum(limits) or cpu.memory()
  if needed > available:
    raise InputError(f'batch_size = {batch_size}: {rows:,} texts of up to {slots:,} tokens need {needed:,} '
                     f'bytes for their keys and values, but only {available:,} bytes of memory are '
                     'available: lower it')


def encode_prompts(prompts, tokenizer, n_ctx, special_tokens=()):
  """Return [int32[p] tokens of each prompt], or [the start-of-text token] if there are no prompts.

  A prompt begins with the tokenizer's `text_prefix`, as in transformers.
  """
  if not prompts:
    if tokenizer.start_of_text is None:
      raise InputError(f'the tokenizer {tokenizer.name} has no start-of-text token to start with: give a '
                       'prompt')
    return [np.array([tokenizer.start_of_text], np.int32)]
  names = special.resolve_names(tokenizer, special_tokens)
  encoded = []
  for prompt in prompts:
    ids = special.encode(tokenizer, names, prompt)
    if not len(ids):
      raise InputError(f'the prompt {prompt!r} is empty: the tokenizer {tokenizer.name} encodes it '
                       'to no tokens')
    encoded.append(ids := special.after_prefix(tokenizer, ids))
    if len(ids) > n_ctx:
      raise InputError(f'a prompt of {len(ids)} tokens is longer than the context of {n_ctx}: shorten it '
                       f'({prompt[:30]!r}...)')
  return encoded


def generate_texts(model, tokenizer, texts, choice, seed, on_full, batch_size, listen, show_progress=True):
  """Generate tokens until each text has ended.

  Args:
    model: a GPT from `kv_cache.prepare_for_decoding`; its mesh is set.
    tokenizer: tokenizer of the texts.
    texts: list of GeneratedText, changed in place.
    choice: sampling.SamplingOptions.
    seed, on_full, batch_size, listen: as for `sample`.
    show_progress: whether to show a progress bar.
  """
  ends = np.array(tokenizer.eos_ids or [-1], np.int32)
  stream = listen is not None and len(texts) == 1
  checksums = [zlib.crc32(np.array(text.ids, '<i4').tobytes()) for text in texts]
  with bars.bar(shown=show_progress and not stream, total=sum(text.remaining for text in texts), unit='token',
                desc='generate', leave=False) as bar:
    def on_tokens(row, tokens, finish_reason):
      piece = texts[row].append(tokens, finish_reason)
      bar.update(len(tokens) + (texts[row].remaining if texts[row].finish_reason else 0))
      if listen:
        listen(row, piece, texts[row].finish_reason)

    order = sorted(range(len(texts)), key=lambda row: len(texts[row].ids))
    for at in range(0, len(order), batch_size):
      rows = order[at:at + batch_size]
      # Texts with a full context continue in a new window.
      while rows := [row for row in rows if not texts[row].finish_reason]:
        _extend_window(model, texts, rows, checksums, choice, seed, ends, on_full, stream, on_tokens)


def _extend_window(model, texts, rows, checksums, choice, seed, ends, on_full, stream, on_tokens):
  """Prefill a batch of texts, or the last halves of full ones, and generate until the context is full."""
  n_ctx = model.n_ctx
  half = max(n_ctx // 2, 1)
  read = [texts[row].ids[-half:] if len(texts[row].ids) > n_ctx else texts[row].ids for row in rows]
  room = [min(texts[row].remaining, n_ctx + 1 - len(ids)) for row, ids in zip(rows, read)]
  tokens, lengths, slots = kv_cache.pad_prompts(read, max(room), n_ctx)
  pad = lambda values, dtype: np.resize(np.array(values, dtype), len(tokens))
  keys = row_keys(np.uint32(seed), pad([checksums[row] for row in rows], np.uint32),
                  pad([texts[row].sample_index for row in rows], np.int32))
  counts = pad([len(texts[row].ids) for row in rows], np.int32)
  full = '' if on_full == 'slide' else 'context'
  logits, cache = kv_cache.prefill(model, tokens, lengths, slots)
  new = np.asarray(kv_cache.sample_first(logits, keys, counts, choice))[:, None]
  running, written = np.arange(len(tokens)) < len(rows), 0
  while True:
    for i in np.flatnonzero(running):
      text, row_tokens = texts[rows[i]], new[i, :room[i] - written].tolist()
      if -1 in row_tokens:
        raise InputError('the logits of the model are NaN: its weights are damaged')
      last = written + len(row_tokens) == room[i]
      reason = '' if not last else 'length' if text.remaining == len(row_tokens) else full
      on_tokens(rows[i], row_tokens, reason)
      running[i] = not (last or text.finish_reason)
    written += new.shape[1]
    if not running.any():
      return
    # Few tokens at first: most answers to a question are short.
    most = 1 if stream else min(max(written, 8), kv_cache.MAX_DECODE_TOKENS)
    n = min(most, max(room[i] for i in np.flatnonzero(running)) - written)
    counts = counts + np.int32(new.shape[1])
    new, n, cache = kv_cache.decode(model, cache, new[:, -1], ~running, np.int32(n), keys, counts, choice,
                                    ends)
    new = np.asarray(new)[:, :int(n)]


def _as_list(one_or_more):
  """Return a list of zero, one or several values."""
  if one_or_more is None or isinstance(one_or_more, str | Path | Url):
    return [one_or_more] if one_or_more is not None else []
  return list(one_or_more)


def read_prompt(path):
  try:
    return access.read(paths.location(path)).decode().replace('\r\n', '\n').replace('\r', '\n')
  except (OSError, UnicodeDecodeError) as error:
    raise InputError(f'{path}: {getattr(error, "strerror", None) or "not UTF-8 text"}') from None
