"""Validates the fields of a model in the JSON files of a folder of weights."""

from gptjax import defaults, domains
from gptjax.errors import InputError
from gptjax.storage.files.json_files import shown


def read_sizes(path, values, names):
  """Return the sizes of a model, {field of `config.model`: int}.

  Args:
    path: the file of the values, for messages.
    values: its content.
    names: {field of `config.model`: name in the file}.
  """
  sizes = {field: values.get(name) for field, name in names.items()}
  for field, name in names.items():
    if type(sizes[field]) is not int or sizes[field] < 1:
      problem = f'is {shown(sizes[field])}' if name in values else 'is missing'
      raise InputError(f'{path}: {name} {problem}: it must be a positive integer')
  if sizes['n_embd'] % sizes['n_head']:
    raise InputError(f'{path}: {names["n_embd"]} = {sizes["n_embd"]} is not divisible by '
                     f'{names["n_head"]} = {sizes["n_head"]}')
  return sizes


def check_fields(path, fields, names):
  """Raise InputError for fields of a model outside their domain.

  Args:
    path: the file of the fields, for messages.
    fields: {field of `config.model`: value}.
    names: {field of `config.model`: name in the file} where the names differ.
  """
  for field, value in fields.items():
    if why := domains.violation(defaults.declared()[f'model.{field}'].domain, value):
      raise InputError(f'{path}: {names.get(field, field)} {why}')
