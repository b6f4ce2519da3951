"""Folders of prepared TensorFlow Datasets: found by name, and checked before TFDS reads them.

TFDS imports the module of every class that `features.json` or `dataset_info.json` names, whatever it is, and
`python -m` lets it find modules in the current folder. Such a folder may come from anyone, so classes outside
of `tensorflow_datasets`, and names of files that lead out of the folder, are refused first.
"""

import os
import re

from gptjax.errors import InputError
from gptjax.files import bounded

FEATURES, INFO = 'features.json', 'dataset_info.json'
CONFIGS_METADATA = '.config/metadata.json'  # of all configs of a set
PACKAGE = 'tensorflow_datasets.'
# How the two files spell the name of a class; `type` in old versions, where others use it for other things.
CLASS_FIELDS, JSON_FIELD = ('pythonClassName', 'python_class_name', 'type'), 'json'
VERSION = re.compile(r'\d+\.\d+\.\d+')
PLAIN_NAME = re.compile(r'[\w.+=-]*')
TEMPLATE = re.compile(r'(?:[\w.-]|\{[A-Z_]+\}|(?<=.)/)*')  # of files, like {SPLIT}/data.{FILEFORMAT}


def find_folder(name, tfds_dir):
  """The folder of a prepared data set; None if it is not there. TensorFlow is not needed for local disks.

  Args:
    name: NAME[/CONFIG][:VERSION]; without a version the newest that is there, without a config the default.
    tfds_dir: where TFDS keeps its data sets; '': its own default.
  """
  root = _path(tfds_dir or os.environ.get('TFDS_DATA_DIR') or '~/tensorflow_datasets').expanduser()
  name, _, version = name.partition(':')
  folder = root / name
  found = _versions(folder) or _versions(folder / _default_config(folder))
  return found.get(version) if version else next(reversed(found.values()), None)


def _path(text):
  from etils import epath  # a pathlib.Path for local folders; buckets too
  return epath.Path(text)


def _versions(folder):
  """{version: folder} of what is prepared in the folder of a config, the newest last."""
  if not folder.is_dir():
    return {}
  found = {path.name: path for path in folder.iterdir()
           if VERSION.fullmatch(path.name) and (path / INFO).is_file()}
  return {name: found[name] for name in sorted(found, key=lambda name: tuple(map(int, name.split('.'))))}


def _default_config(folder):
  """The name of the config that is meant where none is given, from what TFDS writes beside the configs."""
  if not (folder / CONFIGS_METADATA).is_file():
    return ''
  content = _read(folder / CONFIGS_METADATA)
  name = content.get('default_config_name') if isinstance(content, dict) else None
  return name if isinstance(name, str) and PLAIN_NAME.fullmatch(name) and name not in ('.', '..') else ''


def require_safe(folder):
  """Refuses a data set that would have code run, or files outside of its folder read.

  Args:
    folder: as `find` gives it.

  Raises:
    InputError: names the file and the class or name; or the file is missing or not JSON.
  """
  if not (folder / FEATURES).is_file():
    raise InputError(f'{folder} has no {FEATURES}: prepare the set again with TensorFlow Datasets 4 or newer')
  for path in (folder / FEATURES, folder / INFO):
    for name in _classes(_read(path)):
      if not name.startswith(PACKAGE):
        raise InputError(f'{path} names the class {name!r}, code outside of {PACKAGE[:-1]}, which is never '
                         'run: write the data set again with the features of TFDS, or as JSON lines')
  content = _read(folder / INFO)
  splits = content.get('splits', []) if isinstance(content, dict) else [content]
  if not isinstance(splits, list) or not all(isinstance(split, dict) for split in splits):
    raise InputError(f'{folder / INFO} is not that of a data set of TFDS')
  names = [content.get('name', ''), *(split.get('name', '') for split in splits)]
  fields = 'filepathTemplate', 'filepath_template'
  templates = [split.get(field, '') for split in splits for field in fields]
  for value, pattern in [(name, PLAIN_NAME) for name in names] + [(one, TEMPLATE) for one in templates]:
    if not isinstance(value, str) or not pattern.fullmatch(value) or '..' in value:
      raise InputError(f'{folder / INFO}: the name {value!r} may lead to files outside of the folder')


def _classes(value):
  """The names of classes, those with a module, anywhere in the content of one of the files."""
  waiting = [value]
  while waiting:
    one = waiting.pop()
    if isinstance(one, list):
      waiting += one
    for field, inner in one.items() if isinstance(one, dict) else ():
      if isinstance(inner, dict | list):
        waiting.append(inner)
      elif field in CLASS_FIELDS and isinstance(inner, str) and '.' in inner:
        yield inner
      elif field == JSON_FIELD and isinstance(inner, str):
        waiting.append(_nested(inner))


def _nested(text):
  """The value of JSON within JSON; None for text that is none, which TFDS refuses."""
  try:
    return bounded.parse(text)
  except ValueError:
    return None


def _read(path):
  """The content of a JSON file (InputError if it is none)."""
  try:
    return bounded.parse(bounded.read(path), bounded.MANY)
  except ValueError as error:
    raise InputError(f'{path} is not JSON of TFDS: {error}') from None
