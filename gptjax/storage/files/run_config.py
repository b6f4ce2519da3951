"""`config.json` of a workdir: the fields of its run, checked when read."""

from gptjax import defaults, domains
from gptjax.errors import InputError
from gptjax.storage.files import access, json_files, records


def read(path):
  """Return ({field: value} of a `config.json` (Path or Url), digest of the corpus).

  Fields that its version did not have get the value that reproduces that version.

  Raises:
    InputError: it is not a config.json of gptjax.
  """
  try:
    stored = records.remove_checksum(records.parse(access.read(path)))
    values, digest = flat(stored['config']), stored['corpus_digest']
    for section, tree in defaults.FIELDS.items():
      if isinstance(tree, dict) and section in values:
        raise TypeError(f'{section} has no fields')
    if not isinstance(digest, str):
      raise TypeError(f'corpus_digest is {json_files.shown(digest)}')
  except (InputError, FileNotFoundError):
    raise
  except OSError as error:
    raise InputError(f'{path}: {error.strerror}') from None
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    raise InputError(f'{path} is damaged, or not a config.json of gptjax ({error}): restore it from a copy, '
                     'or use another workdir') from None
  for name, field in defaults.declared().items():
    stored = values.setdefault(name, _as_json(legacy_value(field)))
    if why := domains.violation(field.domain, as_tuple(stored)):
      raise InputError(f'{path}: config.{name} {why}: restore it from a copy, or use another workdir')
  return values, digest


def legacy_value(field):
  """Return the value of a field in the runs of versions that did not have it."""
  return field.default if field.legacy_default is None else field.legacy_default


def flat(config):
  """Return {'model.n_layer': 12, ...} of a ConfigDict or nested dicts."""
  values = {}
  for key, value in config.items():
    if hasattr(value, 'items'):
      values.update({f'{key}.{inner}': v for inner, v in flat(value).items()})
    else:
      values[key] = _as_json(value)
  return values


def _as_json(value):
  """Replace tuples by lists, as JSON does."""
  if isinstance(value, dict):
    return {name: _as_json(item) for name, item in value.items()}
  return list(map(_as_json, value)) if isinstance(value, tuple | list) else value


def as_tuple(value):
  """Replace lists of JSON by tuples, as in a config."""
  return tuple(map(as_tuple, value)) if isinstance(value, list) else value
