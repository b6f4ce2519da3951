"""Types of numeric flags: each command states beside a flag which numbers it takes.

    parser.add_argument('--workers', type=flag_types.integer(1, 1024))

Everything outside of the domain (see `gptjax.domains`) is refused while the flags are read: in one line, with
the value and the domain.
"""

import argparse
import math
import os
from typing import NamedTuple

from gptjax import domains
from gptjax.domains import LARGEST, LARGEST_SEED
from gptjax.errors import InputError

SEED = LARGEST_SEED
WORKERS = max(64, 4 * (os.cpu_count() or 1))  # the most processes that one command starts
SHOWN = 40           # characters of a refused value that a message repeats


class Number(NamedTuple):
  """The type of a flag that is a number; argparse calls it with the text of the flag.

  kind: int or float.
  domain: domains.Domain of the numbers that it takes.
  """
  kind: type
  domain: domains.Domain

  def __call__(self, text):
    shown = text if len(text) <= SHOWN else f'{text[:SHOWN]}...'
    try:
      value = self.kind(text)
    except ValueError:
      raise argparse.ArgumentTypeError(f'{shown!r} must be {self.domain.words}') from None
    if not self.domain.holds(value):
      raise argparse.ArgumentTypeError(f'{shown} must be {self.domain.words}')
    return value

  def require(self, name, value):
    """Refuses an argument of a function that is not in the domain (InputError)."""
    if why := domains.violation(self.domain, value):
      raise InputError(f'{name} {why}')

  def parse(self, name, text):
    """The number that a part of an argument gives; InputError if it is not in the domain."""
    try:
      return self(text)
    except argparse.ArgumentTypeError as error:
      raise InputError(f'{name}: {error}') from None


def integer(low, high=LARGEST):
  """The type of a flag that is an integer from low to high."""
  return Number(int, domains.integer(low, high))


def real(low, high, **options):
  """The type of a flag that is a finite number; arguments as for `domains.real`."""
  assert math.isfinite(low) and math.isfinite(high)
  return Number(float, domains.real(low, high, **options))


class Listed(NamedTuple):
  """Numbers of one type separated by commas; '' is an empty list if `empty`."""
  number: Number
  empty: bool = False

  def __call__(self, text):
    if self.empty and not text:
      return []
    return [self.number(part) for part in text.split(',')]
