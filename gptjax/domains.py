"""Fields of the config: each has a default, a domain of allowed values and a meaning.

The functions below create domains. A domain contains all values that a config file or the command line may
set, including those that mean "fill it in" (0, '', auto). Numeric flags have domains too, see
`gptjax.command.flag_types`.
"""

import math
import numbers
import unicodedata
from collections.abc import Callable
from typing import Any, NamedTuple

LARGEST = 2**31 - 1  # of integers: steps, sizes and ids are int32 on the devices
LARGEST_SEED = 2**32 - 1


class Domain(NamedTuple):
  """The allowed values of a field.

  words: description that completes "must be ...".
  holds: predicate of a value of any type: whether it is allowed.
  low, high: the smallest and the largest number, for domains of numbers; else None.
  path: whether the values are paths on this machine, which become absolute when the config is read.
  bucket: whether a path may also be `gs://BUCKET/NAME` or `s3://BUCKET/NAME`.
  hub: whether a path may also be the name of a model on the Hugging Face Hub, which stays as it is.
  """
  words: str
  holds: Callable[[Any], bool]
  low: float | None = None
  high: float | None = None
  path: bool = False
  bucket: bool = False
  hub: bool = False


class Field(NamedTuple):
  """One field of the config.

  default: value if nothing else is set.
  domain: Domain.
  meaning: with the unit, if there is one.
  legacy_default: the value that reproduces versions without this field, with which a run of such a version
    resumes; None: the default.
  """
  default: Any
  domain: Domain
  meaning: str
  legacy_default: Any = None


def violation(domain, value):
  """Return why a value is not allowed, "= VALUE must be ..."; '' if it is allowed."""
  return '' if domain.holds(value) else f'= {format_value(value)} must be {domain.words}'


def format_value(value):
  """Return any value as one readable line for a message, truncated if necessary."""
  if isinstance(value, int) and value.bit_length() > 200:
    return f'{"-" * (value < 0)}2**{value.bit_length() - 1} or more'
  text = repr(value)
  return text if len(text) <= 120 else f'{text[:117]}...'


def integer(low, high=LARGEST, also=()):
  """The integers from `low` to `high`; `also`: {further value: meaning}."""
  return Domain(f'a whole number from {low} to {high}{_others(also)}',
                lambda x: is_integer(x) and (low <= x <= high or x in dict(also)), low, high)


def is_integer(value):
  """Whether a value is an integer and not a bool."""
  return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def real(low, high, open_left=False, open_right=False, also=()):
  """The finite numbers from `low` to `high`, which an open end excludes; `also` as for `integer`."""
  words = f'a number in {"(" if open_left else "["}{low:g}, {high:g}{")" if open_right else "]"}'
  def holds(x):
    if not isinstance(x, numbers.Real) or isinstance(x, bool):
      return False
    inside = (low < x if open_left else low <= x) and (x < high if open_right else x <= high)
    return bool(inside or x in dict(also))  # NaN and infinity are not
  return Domain(words + _others(also), holds, low, high)


def _others(also):
  return ''.join(f', or {value} ({meaning})' for value, meaning in dict(also).items())


RATE = real(0, 1)           # a probability, a share, or a rate that multiplies
RATE_BELOW_1 = real(0, 1, open_right=True)


def flag(unset=False):
  """True or False; with `unset` also None: decided when the run starts."""
  return Domain('True or False', lambda x: isinstance(x, bool) or (unset and x is None))


def one_of(*choices, note=''):
  """One of these strings; `note` follows them in the message."""
  return Domain(f'one of {", ".join(choice or repr(choice) for choice in choices)}{note}',
                lambda x: isinstance(x, str) and x in choices)


def text(several_lines=False):
  """Valid Unicode without control characters; with `several_lines`, tabs and line ends are allowed."""
  allowed = '\t\n\r' if several_lines else ''
  words = 'text of valid Unicode without control characters' + ' except tabs and line ends' * several_lines
  def holds(x):
    return isinstance(x, str) and all(c in allowed or unicodedata.category(c) not in ('Cc', 'Cs') for c in x)
  return Domain(words, holds)


_is_plain_text = text().holds


def path():
  """'' or the path of a folder."""
  return Domain('the path of a folder, of valid Unicode without control characters', _is_plain_text,
                path=True)


def path_or_bucket():
  """'' or the path of a folder, here or in a bucket."""
  return path()._replace(bucket=True)


def path_or_hub_name():
  """'' or the path of a folder, here or in a bucket, or the name of a model on the Hugging Face Hub."""
  return Domain('the path of a folder or a name on the Hugging Face Hub, of valid Unicode without control '
                'characters', _is_plain_text, path=True, bucket=True, hub=True)


def comma_separated():
  """'' or names separated by single commas."""
  return Domain('names separated by single commas, or empty', lambda x: _is_plain_text(x) and (
    not x or all(name.strip() for name in x.split(','))))


def names():
  """A tuple of names."""
  return Domain("names, ('A', 'B')", lambda x: isinstance(x, tuple | list) and all(
    _is_plain_text(name) and name.strip() for name in x))


def declarations():
  """Dicts of names, numbers, and tuples and dicts of these; their users check the meaning."""
  def plain(x):
    if isinstance(x, tuple | list):
      return all(map(plain, x))
    if isinstance(x, dict):
      return all(_is_plain_text(name) and plain(value) for name, value in x.items())
    return _is_plain_text(x) or is_integer(x) or (isinstance(x, float) and math.isfinite(x))
  return Domain("dicts in a tuple, (dict(name='films', ...),), of text, numbers, tuples and dicts",
                lambda x: isinstance(x, tuple | list) and all(isinstance(y, dict) and plain(y) for y in x))


def weighted_folders():
  """Pairs of a folder and a positive weight."""
  weight = real(0, 1e30, open_left=True).holds
  def pair(x):
    return isinstance(x, tuple | list) and len(x) == 2 and _is_plain_text(x[0]) and x[0] and weight(x[1])
  return Domain("pairs of folder and weight, (('FOLDER', 0.7), ('FOLDER', 0.3)), weights positive and finite",
                lambda x: isinstance(x, tuple | list) and all(map(pair, x)))


def interval():
  """(first, end): two steps."""
  step = integer(0).holds
  return Domain('two steps, (first, end), first not after end', lambda x: (
    isinstance(x, tuple | list) and len(x) == 2 and all(map(step, x)) and x[0] <= x[1]))
