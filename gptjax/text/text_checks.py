"""Text that cannot be encoded is refused where it is read, and text that is printed never ends a command.

A str can hold half of a surrogate pair: Python makes one of each byte that is not UTF-8 in an argument or a
file name, and JSON can spell one as "\\ud800". No encoder, tokenizer or file takes it; when one is met late,
the work up to there is lost.
"""

import os
import sys

from gptjax.errors import InputError


def is_valid(text):
  """Whether a str can be encoded as UTF-8."""
  return not any('\ud800' <= c <= '\udfff' for c in text)


def require_valid(text, where):
  """Refuses text that is not valid Unicode.

  Args:
    text: str.
    where: what it is, for the message: 'prompt', 'FILE:3'.

  Raises:
    InputError: shows the text around the first fault.
  """
  if text.isascii() or is_valid(text):
    return
  at = next(i for i, c in enumerate(text) if '\ud800' <= c <= '\udfff')
  raise InputError(f'{where} is not valid Unicode: {text[max(at - 20, 0):at + 20]!r} has half of a surrogate '
                   'pair or a byte that is not UTF-8')


def require_valid_json(value, where):
  """Refuses strings and keys that are not valid Unicode anywhere in a value that JSON made (InputError)."""
  waiting = [value]
  while waiting:
    one = waiting.pop()
    if isinstance(one, str):
      require_valid(one, where)
    elif isinstance(one, dict):
      waiting += [*one.keys(), *one.values()]
    elif isinstance(one, list | tuple):
      waiting += one


def require_valid_arguments(arguments):
  """Refuses arguments of a command, and a current folder, that are not UTF-8 (InputError)."""
  try:
    here = os.getcwd()
  except FileNotFoundError:
    raise InputError('the current folder no longer exists: change to another') from None
  require_valid(here, 'the name of the current folder')
  for argument in arguments:
    if is_valid(argument):
      continue
    hint = 'use names and text in UTF-8'
    if is_valid(os.fsencode(argument).decode('utf-8', 'surrogateescape')):
      hint = 'it is UTF-8, but the locale is not: set PYTHONUTF8=1 or LANG=C.UTF-8'
    raise InputError(f'the argument {argument!r} cannot be encoded as UTF-8: {hint}')


def escape_output():
  """Makes standard output and error write what their encoding lacks as \\u escapes, and not fail."""
  for stream in (sys.stdout, sys.stderr):
    if hasattr(stream, 'reconfigure'):  # a notebook or a test may have put something else in its place
      stream.reconfigure(errors='backslashreplace')
