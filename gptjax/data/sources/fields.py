"""Fields of records, by their name or by a dotted one, and where a document comes from."""

from gptjax.data.sources import files

ORIGIN_FIELDS = ('url', 'domain', 'title')  # of a record, beside its text: what the cleaning looks at
ORIGIN_PREFIXES = ('', 'meta.', 'metadata.')  # where they are looked for, the first of them first
ABSENT = object()


def lookup(record, name):
  """The value of a field like 'text', or 'meta.text' in the object `meta`; ABSENT if there is none."""
  if not isinstance(record, dict):
    return ABSENT
  if name in record:  # names may have dots of their own
    return record[name]
  head, dot, rest = name.partition('.')
  return lookup(record.get(head), rest) if dot else ABSENT


def origin_fields(record):
  """{name: value} of those of FIELDS that are text, at the top of a record or in SECTIONS; not blank."""
  found = {}
  for name in ORIGIN_FIELDS:
    values = [value for section in ORIGIN_PREFIXES
              if isinstance(value := lookup(record, section + name), str) and value.strip()]
    if values:
      found[name] = values[0]
  return found


def record_pieces(record, place, field):
  """The pieces of a record (a dict of str, bytes and such dicts) whose text is in `field`, maybe dotted."""
  value = lookup(record, field)
  if value is ABSENT:
    has = sorted(record) if isinstance(record, dict) else type(record).__name__
    yield files.Piece('', place, problem=f'no such field: {field!r} is not in {has}')
    return
  kept = origin_fields(record)
  if isinstance(value, bytes):
    yield from files.decode_document(value, place, kept)
  elif isinstance(value, str):
    yield from files.document_pieces(value, place, kept)
  else:
    kind = 'empty' if value is None else f'not text: {field!r} is {type(value).__name__}'
    yield files.Piece('', place, problem=kind)
