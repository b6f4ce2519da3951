"""Encodes texts that contain special tokens, or begin with one.

No part of a text is a special token unless its name is requested. The text between two special tokens is
encoded separately, and each requested name becomes its token.

What precedes a text that a model scores or continues is as in lm-evaluation-harness: `text_prefix`, which
the folder of a Llama sets to its begin-of-text token; and of a text without a context at least the
tokenizer's `start_of_text`.
"""

import functools

import numpy as np
import regex

from gptjax.errors import InputError

ALL = 'all'
MAX_NAME_LENGTH = 1000  # characters of a name


def resolve_names(tokenizer, names):
  """Return the names as a tuple, after checking that the tokenizer has these special tokens.

  Args:
    tokenizer: any tokenizer of gptjax.
    names: special tokens, like `<|endoftext|>`; or ('all',): all special tokens of the tokenizer.

  Raises:
    InputError: a special token is missing; the message lists the available ones.
  """
  available = tokenizer.special_tokens
  names = tuple(available) if tuple(names) == (ALL,) else tuple(names)
  for name in names:
    if name not in available:
      raise InputError(f'special token {name!r} is not one of the tokenizer {tokenizer.name}, which has '
                       f'{", ".join(map(repr, available)) or "none"}')
    if len(name) > MAX_NAME_LENGTH:
      raise InputError(f'the special token {name[:30]!r}... has {len(name):,} characters, but names '
                       f'in texts may have at most {MAX_NAME_LENGTH:,}')
  return names


def encode(tokenizer, names, text, first=True):
  """Return int32[n] ids of a text, or of a part of one, with special tokens.

  Args:
    tokenizer: any tokenizer of gptjax.
    names: from `resolve_names`.
    text: str.
    first: whether the text starts a document (see the tokenizers' `encode_part`).
  """
  if not names:
    return tokenizer.encode_part(text, first)
  ids = []
  for number, piece in enumerate(_splitter(names).split(text)):
    if number % 2:
      ids.append(np.array([tokenizer.special_tokens[piece]], np.int32))
    elif piece:
      ids.append(tokenizer.encode_part(piece, first or number > 0))
  return np.concatenate([np.empty(0, np.int32), *ids])


def after_prefix(tokenizer, ids):
  """Return int32[n], the ids of a text after the tokenizer's `text_prefix`, unless they begin with it.

  A model whose texts begin otherwise, with another `start_of_text`, was trained without the prefix.
  """
  prefix = tokenizer.text_prefix if tokenizer.start_of_text in tokenizer.text_prefix else ()
  prefix, ids = np.array(prefix, np.int32), np.asarray(ids, np.int32)
  return ids if np.array_equal(ids[:len(prefix)], prefix) else np.concatenate([prefix, ids])


@functools.cache
def _splitter(names):
  """Return a pattern that matches any of the names, the longest first."""
  return regex.compile(f'({"|".join(map(regex.escape, sorted(names, key=len, reverse=True)))})')
