"""The first calls of every command, before any large import."""

import os
import sys
import warnings

from gptjax.command import shutdown, streams

OTHERS = r'(?!gptjax\b)'  # regular expression for modules in a warnings filter


def begin(command, line, code=None, stdout_is_result=False):
  """Protect the standard streams, override harmful environment variables, and catch signals.

  Args:
    command, line, code: see `shutdown.catch`.
    stdout_is_result: whether the result of the command goes to stdout (see `streams.protect`).
  """
  streams.protect(stdout_is_result)
  os.environ.setdefault('NO_COLOR', '1')  # colour codes of libraries would be escaped, like untrusted text
  os.environ['MPLBACKEND'] = 'Agg'  # a notebook's backend, which its shells inherit, fails elsewhere
  if any(option.startswith('error') for option in sys.warnoptions):
    relax_libraries()
  shutdown.catch(command, line, code)


def relax_libraries():
  """Reset the warnings of libraries to Python's default, although `-W error` makes all warnings errors.

  Libraries warn while they are imported, which their users cannot change.
  """
  warnings.filterwarnings('default', module=OTHERS)
  for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
    warnings.filterwarnings('ignore', category=category, module=OTHERS)
