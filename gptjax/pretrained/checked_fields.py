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
  return sizes


def check_heads(path, fields, names, whole_heads=True):
  """Raise InputError if sizes that belong to attention heads do not divide each other.

  Args:
    path: the file of the fields, for messages.
    fields: {field of `config.model`: value}.
    names: {field of `config.model`: name in the file}.
    whole_heads: whether n_head must divide n_embd even if the size of the heads is given.
  """
  n_embd, n_head, size = fields['n_embd'], fields['n_head'], fields.get('head_size', 0)
  for field, divisor, needed in (('n_embd', 'n_head', whole_heads or not size),
                                 ('n_head', 'n_kv_head', fields.get('n_kv_head', 0))):
    if needed and fields[field] % fields[divisor]:
      raise InputError(f'{path}: {names[field]} = {fields[field]} is not divisible by '
                       f'{names[divisor]} = {fields[divisor]}')
  size = size or n_embd // n_head
  if fields.get('positions') == 'rotary' and size % 2:
    raise InputError(f'{path}: the heads have the odd size {size}, but rotary positions need an even one')


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
