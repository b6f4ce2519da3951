"""`config.json` of a workdir: the fields of its run, checked as they are read."""

from gptjax import defaults, domains
from gptjax.errors import InputError
from gptjax.files import bounded, json_files, records


def read(path):
  """({field: value} of a `config.json`, digest of the corpus); fields of later versions as before them.

  Raises:
    InputError: it is not a config.json of gptjax.
  """
  try:
    stored = records.remove_checksum(records.parse(bounded.read(path)))
    values, digest = flat(stored['config']), stored['corpus_digest']
    for section, tree in defaults.FIELDS.items():
      if isinstance(tree, dict) and section in values:
        raise TypeError(f'{section} holds no fields')
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
    as_ever = field.default if field.before is None else field.before
    stored = values.setdefault(name, list(as_ever) if isinstance(as_ever, tuple) else as_ever)
    if why := domains.violation(field.domain, as_tuple(stored)):
      raise InputError(f'{path}: config.{name} {why}: restore it from a copy, or use another workdir')
  return values, digest


def flat(config):
  """{'model.n_layer': 12, ...}; takes a ConfigDict or nested dicts."""
  values = {}
  for key, value in config.items():
    if hasattr(value, 'items'):
      values.update({f'{key}.{inner}': v for inner, v in flat(value).items()})
    else:
      values[key] = _as_json(value)
  return values


def _as_json(value):
  """Lists in the place of tuples, as JSON has them."""
  if isinstance(value, dict):
    return {name: _as_json(one) for name, one in value.items()}
  return list(map(_as_json, value)) if isinstance(value, tuple | list) else value


def as_tuple(value):
  """JSON's lists as the tuples that a config has in their place."""
  return tuple(map(as_tuple, value)) if isinstance(value, list) else value
