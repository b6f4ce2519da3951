"""Looks up fields of records by name or dotted name, and the fields that describe a document's origin."""

import functools

from gptjax.data.sources import files
from gptjax.data.sources.unit import DEFAULT_FIELD

ORIGIN_FIELDS = ('url', 'domain', 'title')  # fields of a record that the filters use
ORIGIN_PREFIXES = ('', 'meta.', 'metadata.')  # prefixes under which they are looked up, in this order
ABSENT = object()
JSON_NAMES = {list: 'array', str: 'string', bool: 'boolean', type(None): 'null'}  # of values without fields


def lookup(record, name):
  """Return the value of a field such as 'text', or 'meta.text' in the object `meta`; ABSENT if missing."""
  if not isinstance(record, dict):
    return ABSENT
  if name in record:  # a name may contain dots
    return record[name]
  head, dot, rest = name.partition('.')
  return lookup(record.get(head), rest) if dot else ABSENT


def origin_prefixes(field):
  """Return the prefixes of the origin fields if `field` has the text; for `a.text` the last one is `a.`."""
  head, dot, _ = field.rpartition('.')
  return tuple(dict.fromkeys((*ORIGIN_PREFIXES, head + dot)))


def needed_names(field):
  """Return the names of the fields to read: `field`, which has the text, then those of the origin."""
  origins = [prefix + name for prefix in origin_prefixes(field) for name in ORIGIN_FIELDS]
  return list(dict.fromkeys([field, *origins]))


def origin_fields(record, field=DEFAULT_FIELD):
  """Return {name: value} of the ORIGIN_FIELDS that are nonblank text, under any of the `origin_prefixes`."""
  origin = {}
  for name, names in _origin_names(field):
    for one in names:
      value = lookup(record, one)
      if isinstance(value, str) and value.strip():
        origin[name] = value
        break
  return origin


@functools.cache  # it is asked for each document
def _origin_names(field):
  return [(name, [prefix + name for prefix in origin_prefixes(field)]) for name in ORIGIN_FIELDS]


def record_pieces(record, location, field):
  """Yield the pieces of a record (nested dicts of str and bytes); `field`, maybe dotted, has the text."""
  value = lookup(record, field)
  if value is ABSENT:
    problem = (f'no such field: {field!r} is not in {sorted(record)}' if isinstance(record, dict) else
               f'not an object: a JSON {JSON_NAMES.get(type(record), "number")}, which has no fields')
    yield files.Piece('', location, problem=problem)
    return
  origin = origin_fields(record, field)
  if isinstance(value, bytes):
    yield from files.decode_document(value, location, origin)
  elif isinstance(value, str):
    yield from files.document_pieces(value, location, origin)
  else:
    kind = 'empty' if value is None else f'not text: {field!r} is {type(value).__name__}'
    yield files.Piece('', location, problem=kind)
