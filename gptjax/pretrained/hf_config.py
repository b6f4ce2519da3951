"""The model that a config.json of transformers describes, as fields of `config.model`, and back."""

from gptjax.errors import InputError
from gptjax.pretrained.architectures import ARCHITECTURES, NUMBER
from gptjax.pretrained.checked_fields import check_fields, check_heads, read_sizes
from gptjax.storage.files import json_files
from gptjax.storage.files.json_files import shown

UNSUPPORTED = ('add_cross_attention', 'quantization_config', 'pruned_heads')  # in any architecture
# The rotary positions in files of transformers 4, which take precedence, and of transformers 5.
ROTARY_FIELDS = ('rope_scaling', 'rope_parameters')
ROTARY_BASE = 10_000.0  # default of transformers


def architecture_of(path, values):
  """Return the Architecture of a config.json; InputError for another `model_type`.

  Args:
    path: the file, for messages.
    values: its content.
  """
  kind = values.get('model_type')
  for architecture in ARCHITECTURES:
    if kind == architecture.model_type:
      return architecture
  known = ', '.join(architecture.model_type for architecture in ARCHITECTURES)
  raise InputError(f'{path}: model_type = {shown(kind)} is not supported, only {known}')


def model_fields(path, values):
  """Return {field of `config.model`: value} of a config.json; InputError for unsupported values.

  Args:
    path, values: as for `architecture_of`.
  """
  architecture = architecture_of(path, values)
  _refuse_options(path, values, architecture.supported)
  fields = architecture.constants | read_sizes(path, values, architecture.sizes)
  fields['activation_function'] = _activation(path, values, architecture)
  for field, option in architecture.options.items():
    value = values.get(option.name, option.default)
    if fault := json_files.layout_fault(value, option.types, option.name):
      raise InputError(f'{path}: {fault}')
    fields[field] = 0 if value is None else value
  if fields.get('positions') == 'rotary':
    fields['rotary_base'] = _rotary_base(path, values)
  names = architecture.sizes | {field: option.name for field, option in architecture.options.items()}
  names['rotary_base'] = 'rope_theta'
  check_fields(path, fields, names)
  check_heads(path, fields, names, architecture.whole_heads)
  if 'rotary_base' in fields:
    fields['rotary_base'] = float(fields['rotary_base'])
  implied = {'n_inner': 4 * fields['n_embd'], 'n_kv_head': fields['n_head'],
             'head_size': fields['n_embd'] // fields['n_head']}
  return {name: value or implied.get(name, value) for name, value in fields.items()}


def _refuse_options(path, values, supported):
  """Raise InputError for the first option of a model that gptjax does not have."""
  for name in UNSUPPORTED:
    if values.get(name):
      raise InputError(f'{path}: {name} = {shown(values[name])} is not supported')
  for name, choices in supported.items():
    value = values.get(name)
    entries = value if isinstance(value, list) else () if value is None else (value,)
    for entry in entries:
      if entry not in choices:
        only = f', only {" or ".join(map(repr, choices))}' if choices else ''
        raise InputError(f'{path}: {name} = {shown(entry)} is not supported{only}')


def _activation(path, values, architecture):
  """Return the `activation_function` of a config.json."""
  name, known = architecture.activation, architecture.activations
  value = values.get(name, next(iter(known)))
  if not isinstance(value, str) or value not in known:
    raise InputError(f'{path}: {name} = {shown(value)} is not supported: it must be one of '
                     f'{", ".join(known)}')
  return known[value]


def _rotary_base(path, values):
  """Return the `rotary_base` of a config.json; InputError for other rotations than the default one."""
  where = next((name for name in ROTARY_FIELDS if values.get(name)), None)
  rotation = values[where] if where else {}
  if fault := json_files.layout_fault(rotation, dict, where):
    raise InputError(f'{path}: {fault}')
  kind = rotation.get('rope_type', rotation.get('type', 'default'))
  if kind != 'default' or any(isinstance(value, dict) for value in rotation.values()):
    raise InputError(f'{path}: {where} = {shown(rotation)} is not supported, only rope_type = \'default\'')
  read = lambda name, default: rotation.get(name, values.get(name, default))
  if (part := read('partial_rotary_factor', None)) not in (None, 1):
    raise InputError(f'{path}: partial_rotary_factor = {shown(part)} is not supported, only 1')
  base = read('rope_theta', ROTARY_BASE)
  if fault := json_files.layout_fault(base, NUMBER, 'rope_theta'):
    raise InputError(f'{path}: {fault}')
  return base


def config_values(architecture, fields):
  """Return the content of the config.json of a model, without its tokens.

  Args:
    architecture: Architecture.
    fields: {field of `config.model`: value}, none of them 0 for what other fields determine.
  """
  names = {activation: name for name, activation in reversed(architecture.activations.items())}
  values = {'model_type': architecture.model_type, 'architectures': [architecture.class_name],
            architecture.activation: names[fields['activation_function']]}
  values |= {name: fields[field] for field, name in architecture.sizes.items()}
  for field, option in architecture.options.items():
    implied = option.default is None and fields[field] == 4 * fields['n_embd']  # n_inner of GPT-2
    values |= dict.fromkeys((option.name, *option.copies), None if implied else fields[field])
  if architecture.constants.get('positions') == 'rotary':
    base = fields['rotary_base']  # of transformers 4, and of 5
    values |= {'rope_theta': base, 'rope_parameters': {'rope_type': 'default', 'rope_theta': base}}
  return values
