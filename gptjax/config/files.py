"""Config files: find and run them, with errors of one line.

A config file is a Python file with a function `get_config()` that returns a ConfigDict with the fields of
`gptjax.defaults`. `--config=FILE:TEXT` calls `get_config('TEXT')`. In a config file, `from configs import
default` imports gptjax's defaults, and `from configs import NAME` a file in the same folder or one of gptjax,
whatever the current folder is; no package called `configs` needs to be installed.
"""

import contextlib
import sys
import traceback
import types
from pathlib import Path

from gptjax import defaults
from gptjax.config import field_names
from gptjax.errors import InputError
from gptjax.text import words

PACKAGE = 'configs'  # the name under which config files import each other


def folder():
  """Return the folder of gptjax's configs: inside the package if installed, beside it in a checkout."""
  package = Path(__file__).parents[1]
  candidates = package / PACKAGE, package.parent / PACKAGE
  return next((path for path in candidates if (path / 'default.py').is_file()), candidates[0])


def names():
  """Return the names of gptjax's configs, sorted."""
  return sorted(path.stem for path in folder().glob('*.py') if path.stem not in ('default', '__init__'))


def find(path):
  """Return the file `path` if it exists, else gptjax's config of this name, with or without configs/ and .py.

  Raises:
    InputError: the file does not exist; the message has the nearest name.
  """
  file = Path(path).expanduser()
  if file.exists() and (file.suffix or not file.is_dir()):
    return file
  installed = folder() / (file.name if file.suffix else f'{file.name}.py')
  if file.parent in (Path(PACKAGE), Path()) and not file.is_absolute() and installed.is_file():
    return installed
  if file.is_dir():  # `load` gives the reason
    return file
  if file.with_name(f'{file.name}.py').is_file():
    raise InputError(f'--config={path}: no such file; did you mean {path}.py?')
  near = words.nearest_name(file.stem, names())
  raise InputError(f'--config={path}: no such file' + (f'; did you mean configs/{near}.py?' if near else
                   f'; the configs of gptjax are {", ".join(names())}'))


def load(path):
  """Load the config of a file.

  Args:
    path: as written after `--config=`: FILE, or FILE:TEXT for an argument of its `get_config`.

  Returns:
    A ConfigDict with exactly the fields of `gptjax.defaults`.

  Raises:
    InputError: the file is invalid; the message has the file, the line if known, and the reason.
  """
  from ml_collections import ConfigDict
  name, colon, text = path.partition(':')
  config = _run(find(name), name, [text] * bool(colon))
  if not isinstance(config, ConfigDict):
    raise InputError(f'{name}: get_config() returns {type(config).__name__}, not a ConfigDict: start with '
                     '`config = default.get_config()` and end with `return config`')
  _check_fields(config, name)
  return config


def shipped(name, *arguments):
  """Return `get_config(*arguments)` of `configs/NAME.py`; works without ml_collections (see `defaults`)."""
  return _run(folder() / f'{name}.py', f'configs/{name}.py', arguments)


def _run(file, name, arguments):
  """Run a config file and call its get_config; `name` is its name in messages."""
  try:
    code = compile(file.read_bytes(), str(file), 'exec')
  except OSError as error:
    raise InputError(f'--config={name} cannot be read ({error.strerror}): use a Python file') from None
  except (SyntaxError, ValueError) as error:  # a ValueError: NUL bytes
    line = f':{error.lineno}' if getattr(error, 'lineno', None) else ''
    raise InputError(f'{name}{line} is not a config file in Python ({_first_line(error)})') from None
  module = types.ModuleType('config')
  module.__file__ = str(file)
  with _configs_package(file.parent):
    try:
      exec(code, module.__dict__)
      if callable(getattr(module, 'get_config', None)):
        return module.get_config(*arguments)
    except (Exception, SystemExit) as error:
      location = _error_location(error, file, name)
      if isinstance(error, KeyError) and arguments and error.args == tuple(arguments):
        raise InputError(f'{location}: get_config does not know the argument {arguments[0]!r} of '
                         f'--config={name}:{arguments[0]}: use one that the file has') from error
      raise InputError(f'{location}: {type(error).__name__}: {_first_line(error)}') from error
  raise InputError(f'{name} has no function get_config: define one that returns the config')


def _check_fields(config, name):
  """Check that a config has exactly the fields of `gptjax.defaults`."""
  fields, expected = set(_names(config)), set(_names(defaults.get_config()))
  if missing := expected - fields:
    raise InputError(f'{name}: config.{min(missing)} is missing: start with `default.get_config()` and '
                     'keep all its fields')
  if unknown := fields - expected:
    raise InputError(f'{name}: {field_names.not_a_field(min(unknown))}')


def _names(config, prefix=''):
  """The dotted names of all fields."""
  for name in config:
    value = config.get_ref(name).get() if hasattr(config, 'get_ref') else config[name]
    yield from _names(value, f'{prefix}{name}.') if hasattr(value, 'items') else [f'{prefix}{name}']


def _error_location(error, file, name):
  """FILE:LINE of the innermost frame of an error in the config file, or in a config that it imports."""
  frames = [frame for frame in traceback.extract_tb(error.__traceback__)
            if Path(frame.filename).parent in (file.parent, folder())]
  if not frames:
    return name
  last = frames[-1]
  return f'{name if last.filename == str(file) else last.filename}:{last.lineno}'


def _first_line(error):
  return (str(getattr(error, 'msg', '') or error).strip() or 'no message').partition('\n')[0]


@contextlib.contextmanager
def _configs_package(config_folder):
  """Context in which `configs` is a package of the config file's folder and of gptjax's configs."""
  in_package = lambda name: name == PACKAGE or name.startswith(PACKAGE + '.')
  before = {name: sys.modules.pop(name) for name in list(sys.modules) if in_package(name)}
  package = types.ModuleType(PACKAGE)
  package.__path__ = [str(config_folder), str(folder())]
  package.default = defaults
  sys.modules |= {PACKAGE: package, f'{PACKAGE}.default': defaults}
  try:
    yield
  finally:
    for name in [name for name in sys.modules if in_package(name)]:
      del sys.modules[name]
    sys.modules |= before
