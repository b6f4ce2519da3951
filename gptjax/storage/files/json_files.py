"""Untrusted JSON files: bounded, strict, and checked against a layout.

A layout is a type or a tuple of types; [layout] for a list; {str: layout} for an object with any names;
{'name': layout, ...} for an object with these names and possibly others, where '?name' is optional.
"""

import math

from gptjax import domains
from gptjax.errors import InputError
from gptjax.storage.files import access, bounded, lfs
from gptjax.text import text_checks

NUMBER = int, float
OPTIONAL_NUMBER = int, float, type(None)
DEPTH = 100  # of nested lists and objects, because readers of a value may recurse


def parse(content, max_values=bounded.MAX_FILE_VALUES, finite=True):
  """Return the value of JSON (str or bytes).

  Args:
    content: the text.
    max_values: maximum number of values.
    finite: whether to refuse NaN, infinity and numbers that overflow a float.

  Raises:
    ValueError: it is not JSON in UTF-8, has a duplicate name, numbers that are not finite, more than
      `max_values` values, or is nested more than DEPTH deep.
  """
  numbers = {'parse_constant': _number, 'parse_float': _number} if finite else {}
  value = bounded.parse(content, max_values, object_pairs_hook=_object, **numbers)
  _check_depth(value)
  return value


def read(path, layout=dict, max_bytes=bounded.MAX_FILE_BYTES):
  """Return the value in a JSON file.

  Args:
    path: pathlib.Path or paths.Url.
    layout: of the value.
    max_bytes: maximum size of the file.

  Raises:
    InputError: it cannot be read, is larger, is not JSON as `parse` takes it, or has another layout.
  """
  try:
    content = access.read(path, max_bytes)
    lfs.refuse_content(path, content)
    value = parse(content)
  except InputError:
    raise
  except OSError as error:
    raise InputError(f'{path}: {error.strerror}') from None
  except ValueError as error:
    raise InputError(f'{path} is not JSON: {error}') from None
  text_checks.require_valid_json(value, str(path))
  if fault := layout_fault(value, layout):
    raise InputError(f'{path}: {fault}')
  return value


def layout_fault(value, layout, path=''):
  """Return a description of the first difference between a value and a layout, or None.

  Args:
    value: parsed JSON.
    layout: see `read`.
    path: of the value in the file, like 'tasks.lambada'; '' for the whole content.
  """
  where = path or 'its content'
  if isinstance(layout, list):
    if not isinstance(value, list):
      return f'{where} is not a list'
    inner = ((item, layout[0], f'{path}[{i}]') for i, item in enumerate(value))
  elif isinstance(layout, dict):
    if not isinstance(value, dict):
      return f'{where} is not an object'
    if str in layout:
      inner = ((item, layout[str], f'{path}.{name}'.lstrip('.')) for name, item in value.items())
    else:
      missing = [name for name in layout if not name.startswith('?') and name not in value]
      if missing:
        return f'{where} has no {missing[0]!r}'
      inner = ((value[name], part, f'{path}.{name}'.lstrip('.')) for name, part in
               ((name.removeprefix('?'), part) for name, part in layout.items()) if name in value)
  else:
    types = layout if isinstance(layout, tuple) else (layout,)
    wrong = not isinstance(value, types) or (isinstance(value, bool) and not {bool, object} & set(types))
    names = ' or '.join('null' if type_ is type(None) else type_.__name__ for type_ in types)
    return f'{where} is {shown(value)}, not {names}' if wrong else None
  return next((fault for arguments in inner if (fault := layout_fault(*arguments))), None)


def shown(value):
  """Return the beginning of any value, however large, for a message."""
  if isinstance(value, list | dict) and len(value) > 9:
    return f'a {type(value).__name__} of {len(value):,}'
  if isinstance(value, int) and value.bit_length() > 100:
    return 'a number of many digits'
  return domains.format_value(value)


def _object(pairs):
  result = dict(pairs)
  if len(result) < len(pairs):
    seen = set()
    twice = next(name for name, _ in pairs if name in seen or seen.add(name))
    raise ValueError(f'it has the name {twice[:40]!r} twice')
  return result


def _number(text):
  value = float(text)
  if not math.isfinite(value):
    raise ValueError(f'it has {text[:40]}, which is not a number')
  return value


def _check_depth(value):
  level, depth = [value], 0
  while level := [child for parent in level if isinstance(parent, dict | list)
                  for child in (parent.values() if isinstance(parent, dict) else parent)
                  if isinstance(child, dict | list)]:
    depth += 1
    if depth > DEPTH:
      raise ValueError(f'it is nested more than {DEPTH} deep')
