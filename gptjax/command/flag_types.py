"""Types of numeric flags, each with a domain.

    parser.add_argument('--workers', type=flag_types.integer(1, 1024))

Values outside the domain (see `gptjax.domains`) are refused while the flags are parsed, by one line with the
value and the domain.
"""

import argparse
import math
import os
from typing import NamedTuple

from gptjax import domains
from gptjax.domains import LARGEST, LARGEST_SEED
from gptjax.errors import InputError

SEED = LARGEST_SEED
WORKERS = max(64, 4 * (os.cpu_count() or 1))  # maximum number of worker processes of a command
MAX_SHOWN = 40       # characters of a refused value that a message repeats


class Number(NamedTuple):
  """The type of a numeric flag; argparse calls it with the text of the flag.

  kind: int or float.
  domain: domains.Domain of the allowed numbers.
  """
  kind: type
  domain: domains.Domain

  def __call__(self, text):
    shown = text if len(text) <= MAX_SHOWN else f'{text[:MAX_SHOWN]}...'
    try:
      value = self.kind(text)
    except ValueError:
      raise argparse.ArgumentTypeError(f'{shown!r} must be {self.domain.words}') from None
    if not self.domain.holds(value):
      raise argparse.ArgumentTypeError(f'{shown} must be {self.domain.words}')
    return value

  def require(self, name, value):
    """Raise InputError if an argument of a function is not in the domain."""
    if why := domains.violation(self.domain, value):
      raise InputError(f'{name} {why}')

  def parse(self, name, text):
    """Parse the number in a part of an argument; InputError if it is not in the domain."""
    try:
      return self(text)
    except argparse.ArgumentTypeError as error:
      raise InputError(f'{name}: {error}') from None


def integer(low, high=LARGEST):
  """Return the type of a flag that is an integer from low to high."""
  return Number(int, domains.integer(low, high))


def real(low, high, **options):
  """Return the type of a flag that is a finite number; arguments as for `domains.real`."""
  assert math.isfinite(low) and math.isfinite(high)
  return Number(float, domains.real(low, high, **options))


class Listed(NamedTuple):
  """The type of a flag with numbers separated by commas; '' is an empty list if `empty`."""
  number: Number
  empty: bool = False

  def __call__(self, text):
    if self.empty and not text:
      return []
    return [self.number(part) for part in text.split(',')]
