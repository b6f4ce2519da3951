"""Small files of a folder of weights: JSON, and the sizes that it names."""

import json

from gptjax import lfs
from gptjax.errors import InputError


def read_json(path, kind=dict):
  """The object, or value of another kind, in a JSON file (ValueError if it holds no such thing)."""
  lfs.refuse_pointer(path)
  try:
    value = json.loads(path.read_text(encoding='utf-8'))
  except OSError as error:
    raise InputError(f'{path}: {error.strerror}') from None
  except (ValueError, RecursionError) as error:
    raise InputError(f'{path} is not JSON: {error}') from None
  if not isinstance(value, kind):
    raise InputError(f'{path} holds a {type(value).__name__}, not a {kind.__name__}')
  return value


def sizes(path, values, names):
  """The sizes of a model, {field of `config.model`: int}.

  Args:
    path: the file that they come from, for messages.
    values: what it holds.
    names: {field of `config.model`: name in the file}.
  """
  found = {field: values.get(name) for field, name in names.items()}
  for field, name in names.items():
    if type(found[field]) is not int or found[field] < 1:
      said = f'is {found[field]!r}' if name in values else 'is missing'
      raise InputError(f'{path}: {name} {said}: it must be a positive integer')
  if found['n_embd'] % found['n_head']:
    raise InputError(f'{path}: {names["n_embd"]} = {found["n_embd"]} cannot be divided by '
                     f'{names["n_head"]} = {found["n_head"]}')
  return found
