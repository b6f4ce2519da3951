"""Scores any text: log probability of each token, perplexity and bits per byte.

    python -m gptjax.evaluate.score --from=gpt2 FILE

A text is scored after the start-of-text token, so its first token is scored too; if the tokenizer has no such
token, the first token of the text is not scored. A text longer than the model's context is scored in windows
of the context, which advance by the stride; every token is scored once, in the first window that has it. So
with a stride of s, each token after the first window has at least (context - s) tokens before it: a smaller
stride is more accurate and slower. The default is half of the context. Texts are independent of each other.
"""

if __name__ == '__main__':
  from gptjax.command import early, startup
  from gptjax.command.parsers.score import parser
  startup.begin('score', 'stopped', stdout_is_result=True)
  early.handle_help(parser, 'score')
  from gptjax.parallel import jax_settings
  jax_settings.begin('score', own_cache=True)

import json
import math
import sys
from typing import NamedTuple

import jax
import numpy as np

from gptjax.command import run, streams
from gptjax.command.parsers.score import BATCH_SIZES, JSON, STRIDES, parser
from gptjax.config import resolve
from gptjax.data.tokenizers import special, tokenizer_files
from gptjax.errors import InputError
from gptjax.evaluate.scoring import scores
from gptjax.evaluate.tasks.language_modelling import windows
from gptjax.kernels import cpu
from gptjax.parallel import jax_settings, sharding
from gptjax.storage.files import access, paths
from gptjax.text import text_checks

STDIN = '-'
MAX_FILE = 1 << 30  # bytes of a file of text


class TextScore(NamedTuple):
  """The score of a text, or of several together.

  ids: int32[n] tokens of the text.
  log_probs: float32[n] log probability of each token given those before it, nats; NaN: not scored.
  n_bytes: UTF-8 bytes of the scored part of the text.
  """
  ids: np.ndarray
  log_probs: np.ndarray
  n_bytes: int

  @property
  def n_tokens(self):
    """The number of scored tokens."""
    return int((~np.isnan(self.log_probs)).sum())

  @property
  def log_prob(self):
    """The log probability of the text in nats."""
    return float(np.nansum(self.log_probs, dtype=np.float64))

  @property
  def perplexity(self):
    """Perplexity per token; NaN without scored tokens."""
    return math.exp(min(-self.log_prob / self.n_tokens, 700)) if self.n_tokens else math.nan

  @property
  def bits_per_byte(self):
    """Bits per UTF-8 byte, which do not depend on the tokenizer; NaN without scored bytes."""
    return -self.log_prob / self.n_bytes / math.log(2) if self.n_bytes else math.nan


def score(model, tokenizer, texts, *, stride=None, batch_size=None, special_tokens=(), show_progress=False):
  """Return the TextScore of each text.

    model, tokenizer = gptjax.load('gpt2')
    [found] = gptjax.score(model, tokenizer, 'The quick brown fox')
    found.log_probs, found.perplexity, found.bits_per_byte

  Args:
    model: a `gptjax.model.gpt.GPT`.
    tokenizer: its tokenizer.
    texts: str, or several.
    stride: tokens by which the windows of a long text advance, at most the context; None: half of the
      context.
    batch_size: sequences of full length per batch, over all devices; batches of shorter ones are larger. It
      affects memory and speed. None: 8,192 tokens per device, 1,024 on CPUs.
    special_tokens: names of special tokens that a text may contain, or ['all']; others are plain text.
    show_progress: whether to show a progress bar.

  Raises:
    ValueError: an option out of its range, no tokenizer, a text that is not valid Unicode or that the
      tokenizer cannot encode, or logits that are NaN.
  """
  if tokenizer is None:
    raise InputError(tokenizer_files.missing_message('the folder of the weights'))
  texts = [texts] if isinstance(texts, str) else list(texts)
  stride = max(1, model.n_ctx // 2) if stride is None else stride
  STRIDES.require('stride', stride)
  if stride > model.n_ctx:
    raise InputError(f'stride = {stride} is longer than the context of {model.n_ctx}: lower it')
  if batch_size is None:
    batch_size = resolve.evaluation_batch_size(model.n_ctx, jax.devices()[0])
  BATCH_SIZES.require('batch_size', batch_size)
  names = special.resolve_names(tokenizer, special_tokens)
  encoded, requests, text_indices = [], [], []
  for number, text in enumerate(texts):
    text_checks.require_valid(text, f'text {number + 1}')
    encoded.append(special.encode(tokenizer, names, text))
    if encoded[-1].max(initial=0) >= model.n_vocab:
      raise InputError(f'text {number + 1} has the token {encoded[-1].max()}, but the model has only '
                       f'{model.n_vocab}: use its own tokenizer')
    found = windows(_from_start(encoded[-1], tokenizer), 1, model.n_ctx, stride)
    requests += found
    text_indices += [number] * len(found)
  sharding.ensure_mesh()
  with scores.matmul_precision(model.dtype):
    scored = scores.score_requests(
      scores.prepare_model(model), requests, batch_size, make_result=lambda log_probs, *_: log_probs,
      show_progress=show_progress) if requests else []
  parts = [[] for _ in texts]
  for number, log_probs in zip(text_indices, scored, strict=True):
    parts[number].append(log_probs)
  return [_text_score(tokenizer, *entry) for entry in zip(texts, encoded, parts, strict=True)]


def _from_start(ids, tokenizer):
  first = tokenizer.start_of_text
  return ids if first is None else np.append(np.int32(first), ids)


def _text_score(tokenizer, text, ids, parts):
  """Return the TextScore of a text from the log probabilities in its windows."""
  log_probs, n_bytes = np.concatenate([np.empty(0, np.float32), *parts]), len(text.encode())
  if tokenizer.start_of_text is None and len(ids):
    log_probs = np.append(np.float32(np.nan), log_probs)
    n_bytes -= _n_bytes(tokenizer, ids[:1])
  return TextScore(ids, log_probs, n_bytes)


def _n_bytes(tokenizer, ids):
  """Return the number of bytes of tokens, which may begin or end inside a character."""
  if hasattr(tokenizer, 'decode_bytes'):
    return len(tokenizer.decode_bytes(ids))
  return len(tokenizer.decode(ids).encode())


def combine(scores):
  """Return the TextScore of several texts together."""
  return TextScore(np.concatenate([np.empty(0, np.int32), *(score.ids for score in scores)]),
                   np.concatenate([np.empty(0, np.float32), *(score.log_probs for score in scores)]),
                   sum(score.n_bytes for score in scores))


def as_json(name, found, tokenizer):
  """Return the JSON object of a TextScore; values that do not exist are null."""
  number = lambda value: float(value) if math.isfinite(value) else None
  tokens = [{'id': int(i), 'text': tokenizer.decode([i]), 'log_prob': number(log_prob)}
            for i, log_prob in zip(found.ids, found.log_probs, strict=True)]
  return {'name': name, 'n_tokens': found.n_tokens, 'n_bytes': found.n_bytes,
          'log_prob': number(found.log_prob),
          'perplexity': number(found.perplexity), 'bits_per_byte': number(found.bits_per_byte),
          'tokens': tokens}


def as_table(names, scores):
  """Return the lines of a table: one per text, and one for all texts together if there are several."""
  rows = list(zip(names, scores, strict=True))
  if len(rows) > 1:
    rows.append(('all', combine(scores)))
  cells = [('text', 'tokens', 'bytes', 'log prob', 'perplexity', 'bits/byte')]
  cells += [(name, f'{score.n_tokens:,}', f'{score.n_bytes:,}', f'{score.log_prob:.2f}',
             f'{score.perplexity:.4g}', f'{score.bits_per_byte:.4f}') for name, score in rows]
  widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
  return [''.join([f'{first:<{widths[0]}}',
                   *(f'  {cell:>{width}}' for cell, width in zip(rest, widths[1:], strict=True))])
          for first, *rest in cells]


def read_texts(files, lines):
  """Return [(name, text)] of files in UTF-8 (-: stdin); with `lines`, of each line that is not empty."""
  texts = []
  for file in files:
    try:
      content = sys.stdin.buffer.read() if file == STDIN else access.read(paths.location(file), MAX_FILE)
      text = content.decode('utf-8-sig')
    except (OSError, UnicodeDecodeError) as error:
      raise InputError(f'{file}: {getattr(error, "strerror", None) or "not UTF-8 text"}') from None
    if lines:
      texts += [(f'{file}:{number}', line) for number, line in
                enumerate((line.removesuffix('\r') for line in text.split('\n')), 1) if line]
    else:
      texts.append((file, text))
  return texts


def main(arguments):
  flags = parser().parse_args(arguments)
  files = [file if file == STDIN else paths.anywhere(file) for file in flags.files]
  texts = [*((f'text {number}', text) for number, text in enumerate(flags.text, 1)),
           *read_texts(files, flags.lines)]
  if not texts:
    raise InputError('there is no text to score: give a FILE, or --text=TEXT')
  cpu.configure_devices()
  jax_settings.check_devices()
  jax_settings.use_cache_of_flag(flags.compilation_cache)
  import gptjax
  model, tokenizer = gptjax.load(flags.source)
  names = [name for name, _ in texts]
  scores = score(model, tokenizer, [text for _, text in texts], stride=flags.stride,
                 batch_size=flags.batch_size, special_tokens=flags.special_tokens, show_progress=True)
  if flags.format == JSON:
    for name, score_of_text in zip(names, scores, strict=True):
      streams.write_generated(json.dumps(as_json(name, score_of_text, tokenizer), allow_nan=False) + '\n')
  else:
    streams.write_generated('\n'.join(as_table(names, scores)) + '\n')


if __name__ == '__main__':
  run.run(main, 'score')
