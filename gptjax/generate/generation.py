"""Text from a model: python -m gptjax.generate --from=gpt2 --prompt='Once upon a time'

What is written for a prompt depends on the seed, the prompt, the number of the sample and the options, and
not on what else is in the batch; but for rounding, which differs with the size of a batch.
"""

import zlib
from pathlib import Path

import jax
import numpy as np

from gptjax.command import bars
from gptjax.command.flag_types import SEED, integer, real
from gptjax.data.tokenizers import special
from gptjax.errors import InputError
from gptjax.generate import kv_cache
from gptjax.generate.sampling import SamplingOptions, row_keys
from gptjax.generate.streaming import GeneratedText
from gptjax.kernels import cpu
from gptjax.parallel import sharding
from gptjax.text import text_checks

PAPER_TOP_K = 40  # of the samples in the GPT-2 paper's appendix
ON_FULL = ('stop', 'slide')
DOMAINS = {'num_samples': integer(1, 1_000_000), 'max_tokens': integer(1), 'seed': integer(0, SEED),
           'temperature': real(1e-6, 1e6, also={0: 'greedy'}), 'top_k': integer(0), 'top_p': real(1e-6, 1),
           'batch_size': integer(1, 1_000_000)}


def sample(source, *, prompt=None, prompt_file=None, num_samples=1, max_tokens=256, temperature=1.0,
           top_k=None, top_p=None, seed=0, stop=None, on_full='stop', batch_size=16, listen=None,
           special_tokens=()):
  """Texts that continue prompts.

  Args:
    source: what `gptjax.load` takes, or the model and tokenizer that it gives.
    prompt: str, or several. Without any a text begins after the end-of-text token, as the papers' samples do.
    prompt_file: path of a file that holds a prompt, or several; they come after those of `prompt`.
    num_samples: int, texts a prompt.
    max_tokens: int, tokens a text may have at most, the prompt not counted.
    temperature: float, 0 or from 1e-6 to 1e6, what logits are divided by; 0: always the likeliest token.
    top_k: int, draw from this many of the likeliest tokens; 0: from all. None: from all, but from 40 where
      there is neither a prompt nor top_p.
    top_p: float in [1e-6, 1], draw from the fewest tokens that together have at least this probability.
    seed: int in [0, 2^32).
    stop: str, or several, before which a text ends.
    on_full: what happens when the model's context is full. 'stop': the text ends. 'slide': the last half of
      the context is read again, and the text goes on.
    batch_size: int, texts at a time; it changes what is needed of memory and not what is written.
    listen: function of (number of the text, its next piece, why it ended: see `streaming.Text`), called as
      the text comes, token by token if there is only one.
    special_tokens: names of special tokens that a prompt may contain, or ['all']; others are text.

  Returns:
    list of str: for each prompt its samples, without the prompt, the end-of-text token and the stop string.

  Raises:
    ValueError: one line: an option out of its range, an empty prompt, one longer than the context, no
      tokenizer, a model whose logits are not numbers, or what `gptjax.load` says.
  """
  prompts, stop = [*_several(prompt), *map(read_prompt, _several(prompt_file))], _several(stop)
  check_options(prompts, num_samples, max_tokens, temperature, top_k, top_p, seed, stop, on_full, batch_size)
  sharding.ensure_mesh()
  if isinstance(source, str | Path):
    from gptjax import pretrained
    source = pretrained.load(source)
  model, tokenizer = source
  if tokenizer is None:
    raise InputError('no tokenizer lies with the weights: put its files beside them')
  if top_k is None and top_p is None and not prompts:
    top_k = PAPER_TOP_K
  choice = SamplingOptions(temperature or None, top_k or None, None if top_p == 1 else top_p,
                           min(model.n_vocab, tokenizer.n_vocab))
  begun = encode_prompts(prompts, tokenizer, model.n_ctx, special_tokens)
  made = [GeneratedText(tokenizer, ids, number, max_tokens, stop)
          for ids in begun for number in range(num_samples)]
  # The weights as they were loaded can go.
  model, source = kv_cache.prepare_for_decoding(model), None
  _require_memory(model, made, batch_size)
  generate_texts(model, tokenizer, made, choice, seed, on_full, batch_size, listen)
  return [text.text for text in made]


def check_options(prompts, num_samples, max_tokens, temperature, top_k, top_p, seed, stop, on_full,
                  batch_size):
  """Refuses options out of their range (ValueError)."""
  given = {'num_samples': num_samples, 'max_tokens': max_tokens, 'temperature': temperature, 'top_k': top_k,
           'top_p': top_p, 'seed': seed, 'batch_size': batch_size}
  for name, value in given.items():
    if value is not None:
      DOMAINS[name].require(name, value)
  if on_full not in ON_FULL:
    raise InputError(f'on_full = {on_full!r} is not one of {", ".join(ON_FULL)}')
  if '' in stop:
    raise InputError('a stop string is empty: leave it out')
  if '' in prompts:
    raise InputError('a prompt is empty: leave it out for a text that begins after the end-of-text token')
  for text in (*prompts, *stop):
    text_checks.require_valid(text, 'a prompt or stop string')


def _require_memory(model, texts, batch_size):
  """Refuses a batch whose keys and values exceed the memory of all devices (InputError)."""
  slots = max(min(len(text.ids) + text.remaining, model.n_ctx) for text in texts)
  rows = min(batch_size, len(texts))
  needed = 2 * model.n_layer * model.n_embd * np.dtype(model.dtype).itemsize * rows * slots
  limits = [(device.memory_stats() or {}).get('bytes_limit', 0) for device in jax.local_devices()]
  there = sum(limits) or cpu.memory()
  if needed > there:
    raise InputError(f'batch_size = {batch_size}: {rows:,} texts of up to {slots:,} tokens need {needed:,} '
                     f'bytes for their keys and values, and there are {there:,} bytes of memory: lower it')


def encode_prompts(prompts, tokenizer, n_ctx, special_tokens=()):
  """[int32[p] tokens of each prompt]; without any, the end-of-text token (ValueError if that cannot be)."""
  if not prompts:
    if tokenizer.end_of_text is None:
      raise InputError(f'the tokenizer {tokenizer.name} has no end-of-text token to begin with: give a '
                       'prompt')
    return [np.array([tokenizer.end_of_text], np.int32)]
  names = special.resolve_names(tokenizer, special_tokens)
  found = [special.encode(tokenizer, names, prompt) for prompt in prompts]
  for prompt, ids in zip(prompts, found):
    if not len(ids):
      raise InputError(f'the prompt {prompt!r} is empty: the tokenizer {tokenizer.name} makes no '
                       'tokens of it')
    if len(ids) > n_ctx:
      raise InputError(f'a prompt of {len(ids)} tokens is longer than the context of {n_ctx}: shorten it '
                       f'({prompt[:30]!r}...)')
  return found


def generate_texts(model, tokenizer, texts, choice, seed, on_full, batch_size, listen):
  """Writes on until each text has ended.

  Args:
    model: a `kv_cache.prepare_for_decoding` GPT; its mesh is set.
    tokenizer: the texts'.
    texts: list of Text, changed in place.
    choice: sampling.Choice.
    seed, on_full, batch_size, listen: as for `sample`.
  """
  ends = np.array(tokenizer.eos_ids or [-1], np.int32)
  soon = listen is not None and len(texts) == 1
  checksums = [zlib.crc32(np.array(text.ids, '<i4').tobytes()) for text in texts]
  with bars.bar(shown=not soon, total=sum(text.remaining for text in texts), unit='token', desc='generate',
                leave=False) as bar:
    def hear(row, tokens, ended):
      piece = texts[row].append(tokens, ended)
      bar.update(len(tokens) + (texts[row].remaining if texts[row].finish_reason else 0))
      if listen:
        listen(row, piece, texts[row].finish_reason)

    order = sorted(range(len(texts)), key=lambda row: len(texts[row].ids))
    for at in range(0, len(order), batch_size):
      rows = order[at:at + batch_size]
      # Those whose context is full go on in a window of their own.
      while rows := [row for row in rows if not texts[row].finish_reason]:
        _extend_window(model, texts, rows, checksums, choice, seed, ends, on_full, soon, hear)


def _extend_window(model, texts, rows, checksums, choice, seed, ends, on_full, soon, hear):
  """Reads a batch of texts, of those that are full the last halves, and writes until the context is full."""
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
  going, written = np.arange(len(tokens)) < len(rows), 0
  while True:
    for i in np.flatnonzero(going):
      text, mine = texts[rows[i]], new[i, :room[i] - written].tolist()
      if -1 in mine:
        raise InputError('the model gives logits that are not numbers: its weights are damaged')
      last = written + len(mine) == room[i]
      hear(rows[i], mine, '' if not last else 'length' if text.remaining == len(mine) else full)
      going[i] = not (last or text.finish_reason)
    written += new.shape[1]
    if not going.any():
      return
    # Few tokens at first: most answers to a question end soon.
    most = 1 if soon else min(max(written, 8), kv_cache.MAX_DECODE_TOKENS)
    n = min(most, max(room[i] for i in np.flatnonzero(going)) - written)
    counts = counts + np.int32(new.shape[1])
    new, n, cache = kv_cache.decode(model, cache, new[:, -1], ~going, np.int32(n), keys, counts, choice,
                                    ends)
    new = np.asarray(new)[:, :int(n)]


def _several(one_or_more):
  """A list, of nothing, one or several."""
  if one_or_more is None or isinstance(one_or_more, str | Path):
    return [one_or_more] if one_or_more is not None else []
  return list(one_or_more)


def read_prompt(path):
  try:
    return Path(path).read_text(encoding='utf-8')
  except (OSError, UnicodeDecodeError) as error:
    raise InputError(f'{path}: {getattr(error, "strerror", None) or "not UTF-8 text"}') from None






