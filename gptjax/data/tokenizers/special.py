"""Texts in which some names are special tokens.

Nothing in a text is a special token unless it is asked for by name. Where it is, the text is encoded piece by
piece: what stands between two names as a text of its own, and each name as its token.
"""

import functools

import numpy as np
import regex

from gptjax.errors import InputError

ALL = 'all'
MAX_NAME_LENGTH = 1000  # characters of a name


def resolve_names(tokenizer, names):
  """The names as a tuple, after checking that the tokenizer has these special tokens.

  Args:
    tokenizer: one of gptjax's.
    names: special tokens, like `<|endoftext|>`; or `all` alone, which stands for every one that there is.

  Raises:
    InputError: names the one that is not there, and those that are.
  """
  there = tokenizer.special_tokens
  names = tuple(there) if tuple(names) == (ALL,) else tuple(names)
  for name in names:
    if name not in there:
      raise InputError(f'special token {name!r} is not one of the tokenizer {tokenizer.name}, which has '
                       f'{", ".join(map(repr, there)) or "none"}')
    if len(name) > MAX_NAME_LENGTH:
      raise InputError(f'the special token {name[:30]!r}... has {len(name):,} characters: a name that is '
                       f'looked for in texts has {MAX_NAME_LENGTH:,} at most')
  return names


def encode(tokenizer, names, text, first=True):
  """int32[n] ids of a text, or of a part of one, in which these names are special tokens.

  Args:
    tokenizer: one of gptjax's.
    names: of `named`.
    text: str.
    first: whether the text begins a document (see the tokenizers' `encode_part`).
  """
  if not names:
    return tokenizer.encode_part(text, first)
  found = []
  for number, piece in enumerate(_splitter(names).split(text)):
    if number % 2:
      found.append(np.array([tokenizer.special_tokens[piece]], np.int32))
    elif piece:
      found.append(tokenizer.encode_part(piece, first or number > 0))
  return np.concatenate([np.empty(0, np.int32), *found])


@functools.cache
def _splitter(names):
  """The pattern of any of the names, the longest first."""
  return regex.compile(f'({"|".join(map(regex.escape, sorted(names, key=len, reverse=True)))})')
