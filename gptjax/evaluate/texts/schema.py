"""Schemas of published data sets, declared beside the reader of each set and checked before scoring.

A Schema has the fields of a record and the Kind of each. A record that does not fit raises an error with its
location. Blank texts that a published set is known to have are kept, counted and reported. A set with another
number of records, or another file, than the published one is reported, since its results are not comparable.
"""

import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

from gptjax import domains
from gptjax.errors import InputError


class Fault(NamedTuple):
  """A value that is not of a Kind.

  location: of the value inside the field, like '[3].input_text'; '' for the field itself.
  value: the value there.
  expected: description of a valid value, as in "must be ...".
  """
  location: str
  value: Any
  expected: str


class Kind(NamedTuple):
  """The values that a field can have.

  fault: function of a value of any type that returns its Fault, or None.
  blanks: function of a value without a Fault that returns the number of blank texts in it.
  optional: whether the field may be missing.
  """
  fault: Callable[[Any], Fault | None]
  blanks: Callable[[Any], int] = lambda value: 0
  optional: bool = False


class Schema(NamedTuple):
  """The records of a set.

  record_noun: plural noun for the records.
  fields: {name: Kind}.
  count: number of records of the published set; 0: unknown.
  sha256: of the published file; '' if there is more than one file.
  """
  record_noun: str
  fields: dict
  count: int = 0
  sha256: str = ''


def text(blank=False, max_length=None):
  """Kind of texts; `blank`: whether they may be empty or white space; max_length: in characters."""
  if max_length is not None:
    return Kind(lambda value: _fault(value, isinstance(value, str) and value.strip()
                                     and len(value) <= max_length,
                                     f'a text that is not blank, of at most {max_length} characters'))
  if blank:
    return Kind(lambda value: _fault(value, isinstance(value, str), 'a text'),
                lambda value: not value.strip())
  return Kind(lambda value: _fault(value, isinstance(value, str) and value.strip(),
                                   'a text that is not blank'))


def text_of_words(min_words):
  """Kind of texts of at least min_words words, separated by white space."""
  return Kind(lambda value: _fault(value, isinstance(value, str) and len(value.split()) >= min_words,
                                   f'a text of at least {min_words} words'))


def integer(low, high):
  """Kind of whole numbers from `low` to `high`."""
  return Kind(lambda value: _fault(value, domains.is_integer(value) and low <= value <= high,
                                   f'a whole number from {low} to {high}'))


def one_of(*values):
  """Kind of texts that are one of these values."""
  return Kind(lambda value: _fault(value, isinstance(value, str) and value in values,
                                   f'one of {", ".join(values)}'))


def list_of(kind, min_items=1, max_items=None):
  """Kind of lists of items of a Kind."""
  number = (f'{min_items}' if min_items == max_items else f'at least {min_items}' if max_items is None
            else f'{min_items} to {max_items}') + f' value{"s" * ((max_items or min_items) != 1)}'
  def fault(value):
    if not isinstance(value, list) or len(value) < min_items or (
        max_items is not None and len(value) > max_items):
      return Fault('', value, f'a list of {number}')
    return _first((f'[{i}]', kind.fault(item)) for i, item in enumerate(value))
  return Kind(fault, lambda value: sum(map(kind.blanks, value)))


def record(fields):
  """Kind of objects with these fields, {name: Kind}."""
  def fault(value):
    if not isinstance(value, dict):
      return Fault('', value, f'an object with {", ".join(fields)}')
    for name, kind in fields.items():
      if name not in value:
        if not kind.optional:
          return Fault('', sorted(value), f'an object with the field {name!r}')
        continue
      if field_fault := kind.fault(value[name]):
        return field_fault._replace(location=f'.{name}{field_fault.location}')
    return None
  return Kind(fault, lambda value: sum(kind.blanks(value[name]) for name, kind in fields.items()
                                       if name in value))


def dict_of(kind, optional=False):
  """Kind of objects with any names and values of a Kind."""
  def fault(value):
    if not isinstance(value, dict):
      return Fault('', value, 'an object')
    return _first((f'.{name}', kind.fault(item)) for name, item in value.items())
  return Kind(fault, lambda value: sum(map(kind.blanks, value.values())), optional)


def _fault(value, holds, expected):
  return None if holds else Fault('', value, expected)


def _first(faults):
  return next((fault._replace(location=where + fault.location) for where, fault in faults if fault), None)


def check_record(schema, value, location):
  """Raise an error for a record that does not fit.

  Args:
    schema: Schema.
    value: of any type.
    location: of the record, 'FILE:LINE'.

  Returns:
    The number of blank texts in it.

  Raises:
    InputError: the record does not fit; the message has the location, the value and what is expected.
  """
  kind = record(schema.fields)
  if fault := kind.fault(value):
    inside = fault.location.removeprefix('.')
    field = f'{inside} = ' if inside else ''
    raise InputError(f'{location}: {field}{domains.format_value(fault.value)} must be {fault.expected}')
  return kind.blanks(value)


def check_count(schema, n, blanks, location, note):
  """Raise an error for a set without records, and note how a set differs from the published one.

  Args:
    schema: Schema.
    n: number of records; None: only a part of them has been read.
    blanks: number of blank texts in them.
    location: of the set, for messages.
    note: function that takes a line.

  Raises:
    InputError: the set has no records.
  """
  if n == 0:
    raise InputError(f'{location} has no {schema.record_noun}: get the published set again')
  if blanks:
    note(f'{location}: {blanks:,} of the texts {"is" if blanks == 1 else "are"} blank, and used as published')
  if n is not None and schema.count and n != schema.count:
    note(f'{location} has {n:,} {schema.record_noun}, the published set {schema.count:,}: results are not '
         'comparable with published ones')


def note_digest(sha256, content, location, note):
  """Note that a file, with this content, is not the published one."""
  if sha256 and hashlib.sha256(content).hexdigest() != sha256:
    note(f'{location} is not the published file (SHA-256 {sha256[:12]}...)')
