"""Domains of numeric flags: each command states beside a flag which numbers it takes.

    parser.add_argument('--workers', type=flag_types.integer(1, 1024))

Everything outside is refused while the flags are read: in one line, with the value and the domain.
"""

import argparse
import math
import os
from typing import NamedTuple

from gptjax.errors import InputError

INT32 = 2**31 - 1    # the largest number of tokens, rows or steps that arrays can count
SEED = 2**32 - 1     # the largest seed
WORKERS = max(64, 4 * (os.cpu_count() or 1))  # the most processes that one command starts
SHOWN = 40           # characters of a refused value that a message repeats


class Domain(NamedTuple):
  """The numbers that a flag takes; argparse calls it with the text of the flag.

  kind: int or float.
  low, high: the smallest and the largest number; both belong to the domain unless they are in `without`.
  without: bounds that do not belong to it.
  also: numbers outside of the bounds that belong to it.
  """
  kind: type
  low: float
  high: float
  without: tuple = ()
  also: tuple = ()

  def __call__(self, text):
    shown = text if len(text) <= SHOWN else f'{text[:SHOWN]}...'
    try:
      value = self.kind(text)
    except ValueError:
      raise argparse.ArgumentTypeError(f'{shown!r} must be {self}') from None
    if not self.holds(value):
      raise argparse.ArgumentTypeError(f'{shown} must be {self}')
    return value

  def holds(self, value):
    """Whether a number is in the domain; NaN is in none."""
    return value in self.also or (self.low <= value <= self.high and value not in self.without)

  def require(self, name, value):
    """Refuses an argument of a function that is not in the domain (InputError)."""
    if not self.holds(value):
      raise InputError(f'{name} = {value} must be {self}')

  def parsed(self, name, text):
    """The number that a part of an argument gives; InputError if it is not in the domain."""
    try:
      return self(text)
    except argparse.ArgumentTypeError as error:
      raise InputError(f'{name}: {error}') from None

  def __str__(self):
    name = {int: 'an integer', float: 'a number'}[self.kind]
    number = lambda value: f'{value:,}' if self.kind is int else f'{value:g}'
    either = ''.join(f'{number(value)} or ' for value in self.also)
    low = f'{"above" if self.low in self.without else "from"} {number(self.low)}'
    high = f'{"below" if self.high in self.without else "to"} {number(self.high)}'
    return f'{either}{name} {low} {high}'


def integer(low, high=INT32):
  """The domain of a flag that is an integer from low to high."""
  return Domain(int, low, high)


def real(low, high, without=(), also=()):
  """The domain of a flag that is a finite number; see `Domain`."""
  assert math.isfinite(low) and math.isfinite(high)
  return Domain(float, low, high, tuple(without), tuple(also))


class Listed(NamedTuple):
  """Numbers of one domain separated by commas; '' is an empty list if `empty`."""
  domain: Domain
  empty: bool = False

  def __call__(self, text):
    if self.empty and not text:
      return []
    return [self.domain(part) for part in text.split(',')]
