"""Small files of a folder of weights: JSON, and the sizes that it names."""

from gptjax import defaults, domains
from gptjax.errors import InputError
from gptjax.files.json_files import shown


def read_sizes(path, values, names):
  """The sizes of a model, {field of `config.model`: int}.

  Args:
    path: the file that they come from, for messages.
    values: what it holds.
    names: {field of `config.model`: name in the file}.
  """
  found = {field: values.get(name) for field, name in names.items()}
  for field, name in names.items():
    if type(found[field]) is not int or found[field] < 1:
      said = f'is {shown(found[field])}' if name in values else 'is missing'
      raise InputError(f'{path}: {name} {said}: it must be a positive integer')
  if found['n_embd'] % found['n_head']:
    raise InputError(f'{path}: {names["n_embd"]} = {found["n_embd"]} cannot be divided by '
                     f'{names["n_head"]} = {found["n_head"]}')
  return found


def check_fields(path, fields, names):
  """Refuses fields of a model that are outside their domain (InputError).

  Args:
    path: the file that they come from, for messages.
    fields: {field of `config.model`: value}.
    names: {field of `config.model`: name in the file}, of those that have another.
  """
  for field, value in fields.items():
    if why := domains.violation(defaults.declared()[f'model.{field}'].domain, value):
      raise InputError(f'{path}: {names.get(field, field)} {why}')
