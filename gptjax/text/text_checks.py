"""Checks that text is valid Unicode, and makes output streams accept any text.

A str can contain an unpaired surrogate: Python decodes each byte that is not UTF-8 in an argument or a file
name to one, and JSON can contain "\\ud800". Encoders, tokenizers and files fail on it, so it is refused when
the text is read, before work is lost.
"""

import os
import sys

from gptjax.errors import InputError


def is_valid(text):
  """Whether a str can be encoded as UTF-8."""
  return not any('\ud800' <= c <= '\udfff' for c in text)


def require_valid(text, where):
  """Check that text is valid Unicode.

  Args:
    text: str.
    where: name of the text in the message, 'prompt' or 'FILE:3'.

  Raises:
    InputError: it is not; the message has the text around the first error.
  """
  if text.isascii() or is_valid(text):
    return
  at = next(i for i, c in enumerate(text) if '\ud800' <= c <= '\udfff')
  raise InputError(f'{where} is not valid Unicode: {text[max(at - 20, 0):at + 20]!r} has an unpaired '
                   'surrogate or a byte that is not UTF-8')


def require_valid_json(value, where):
  """Check that all strings and keys in a parsed JSON value are valid Unicode (InputError)."""
  stack = [value]
  while stack:
    item = stack.pop()
    if isinstance(item, str):
      require_valid(item, where)
    elif isinstance(item, dict):
      stack += [*item.keys(), *item.values()]
    elif isinstance(item, list | tuple):
      stack += item


def require_valid_arguments(arguments):
  """Check that the arguments of a command and the current folder are UTF-8 (InputError)."""
  try:
    current = os.getcwd()
  except FileNotFoundError:
    raise InputError('the current folder no longer exists: change to another') from None
  require_valid(current, 'the name of the current folder')
  for argument in arguments:
    if is_valid(argument):
      continue
    hint = 'use names and text in UTF-8'
    if is_valid(os.fsencode(argument).decode('utf-8', 'surrogateescape')):
      hint = 'it is UTF-8, but the locale is not: set PYTHONUTF8=1 or LANG=C.UTF-8'
    raise InputError(f'the argument {argument!r} cannot be encoded as UTF-8: {hint}')


def escape_output():
  """Make stdout and stderr write characters that their encoding lacks as \\u escapes, instead of failing."""
  for stream in (sys.stdout, sys.stderr):
    if hasattr(stream, 'reconfigure'):  # a notebook or a test may have replaced it
      stream.reconfigure(errors='backslashreplace')
