"""What every command does first, before it imports anything large: what surrounds it must not end it."""

import os
import sys
import warnings

from gptjax.command import shutdown, streams

OTHERS = r'(?!gptjax\b)'  # modules, as a filter of warnings names them


def begin(command, line, code=None, product=False):
  """Protects the standard streams, settles what variables of the environment would break, catches signals.

  Args:
    command, line, code: see `shutdown.catch`.
    product: whether stdout is what the command is for (see `streams.protect`).
  """
  streams.protect(product)
  os.environ.setdefault('NO_COLOR', '1')  # colours of libraries would be escaped, as what others write is
  os.environ['MPLBACKEND'] = 'Agg'  # a notebook's, which its shells inherit, can be imported there alone
  if any(option.startswith('error') for option in sys.warnoptions):
    relax_libraries()
  shutdown.catch(command, line, code)


def relax_libraries():
  """Gives warnings of libraries Python's default treatment, where `-W error` makes all warnings errors.

  Libraries warn while they are imported, and those who use them cannot change that.
  """
  warnings.filterwarnings('default', module=OTHERS)
  for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
    warnings.filterwarnings('ignore', category=category, module=OTHERS)
