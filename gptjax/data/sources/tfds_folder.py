"""Finds folders of prepared TensorFlow Datasets by name, and validates them before TFDS reads them.

TFDS imports the module of every class that `features.json` or `dataset_info.json` refers to, and `python -m`
adds the current folder to the module path. Such folders are untrusted, so classes outside
`tensorflow_datasets` and file names that lead out of the folder are rejected first.
"""

import os
import re
from pathlib import Path

from gptjax.errors import InputError
from gptjax.storage.files import access, bounded, cache, paths

FEATURES, INFO = 'features.json', 'dataset_info.json'
CONFIGS_METADATA = '.config/metadata.json'  # of all configs of a data set
PACKAGE = 'tensorflow_datasets.'
# Fields with the name of a class in the two files. Old versions use `type`, which also has other meanings.
CLASS_FIELDS, JSON_FIELD = ('pythonClassName', 'python_class_name', 'type'), 'json'
VERSION = re.compile(r'\d+\.\d+\.\d+')
PLAIN_NAME = re.compile(r'[\w.+=-]*')
TEMPLATE = re.compile(r'(?:[\w.-]|\{[A-Z_]+\}|(?<=.)/)*')  # of file names, like {SPLIT}/data.{FILEFORMAT}


def find_folder(name, tfds_dir):
  """Return the folder of a prepared data set, or None; of one in a bucket, that of a copy on this machine.

  Args:
    name: NAME[/CONFIG][:VERSION]; by default the newest version and the default config.
    tfds_dir: where TFDS keeps its data sets; '': its own default.
  """
  root = _root(tfds_dir)
  name, _, version = name.partition(':')
  folder = root / name
  versions = _versions(folder) or _versions(folder / _default_config(folder))
  found = versions.get(version) if version else next(reversed(versions.values()), None)
  return found and Path(cache.folder(found))


def _root(tfds_dir):
  root = paths.parsed(tfds_dir or os.environ.get('TFDS_DATA_DIR') or '~/tensorflow_datasets')
  return root.expanduser() if isinstance(root, Path) else root


def _versions(folder):
  """Return {version: folder} of the prepared versions in the folder of a config, the newest last."""
  versions = {name: folder / name for name in access.names(folder)
              if VERSION.fullmatch(name) and access.is_file(folder / name / INFO)}
  numbers = lambda name: tuple(map(int, name.split('.')))
  return {name: versions[name] for name in sorted(versions, key=numbers)}


def _default_config(folder):
  """Return the name of the default config from the metadata that TFDS writes beside the configs, or ''."""
  if not access.is_file(folder / CONFIGS_METADATA):
    return ''
  content = _read(folder / CONFIGS_METADATA)
  name = content.get('default_config_name') if isinstance(content, dict) else None
  return name if isinstance(name, str) and PLAIN_NAME.fullmatch(name) and name not in ('.', '..') else ''


def require_safe(folder):
  """Reject a data set that would run its own code or read files outside its folder.

  Args:
    folder: from `find_folder`.

  Raises:
    InputError: the data set is unsafe; or a file is missing or not JSON.
  """
  if not access.is_file(folder / FEATURES):
    raise InputError(f'{folder} has no {FEATURES}: prepare the data set again with TensorFlow Datasets 4 or '
                     'newer')
  for path in (folder / FEATURES, folder / INFO):
    for name in _classes(_read(path)):
      if not name.startswith(PACKAGE):
        raise InputError(f'{path} names the class {name!r}, code outside of {PACKAGE[:-1]}, which is never '
                         'run: write the data set again with the features of TFDS, or as JSON lines')
  content = _read(folder / INFO)
  splits = content.get('splits', []) if isinstance(content, dict) else [content]
  if not isinstance(splits, list) or not all(isinstance(split, dict) for split in splits):
    raise InputError(f'{folder / INFO} does not describe a data set of TFDS')
  names = [content.get('name', ''), *(split.get('name', '') for split in splits)]
  fields = 'filepathTemplate', 'filepath_template'
  templates = [split.get(field, '') for split in splits for field in fields]
  checks = [(name, PLAIN_NAME) for name in names] + [(template, TEMPLATE) for template in templates]
  for value, pattern in checks:
    if not isinstance(value, str) or not pattern.fullmatch(value) or '..' in value:
      raise InputError(f'{folder / INFO}: the name {value!r} may lead to files outside of the folder')


def _classes(value):
  """Yield the names of classes with a module, anywhere in the content of one of the files."""
  waiting = [value]
  while waiting:
    value = waiting.pop()
    if isinstance(value, list):
      waiting += value
    for field, inner in value.items() if isinstance(value, dict) else ():
      if isinstance(inner, dict | list):
        waiting.append(inner)
      elif field in CLASS_FIELDS and isinstance(inner, str) and '.' in inner:
        yield inner
      elif field == JSON_FIELD and isinstance(inner, str):
        waiting.append(_nested(inner))


def _nested(text):
  """Return the value of JSON nested in a string; None for invalid JSON, which TFDS rejects."""
  try:
    return bounded.parse(text)
  except ValueError:
    return None


def _read(path):
  """Return the content of a JSON file; InputError if it is not JSON."""
  content = access.read(path)
  try:
    return bounded.parse(content, bounded.MAX_FILE_VALUES)
  except ValueError as error:
    raise InputError(f'{path} is not JSON of TFDS: {error}') from None
