"""Config files: found, run, and refused in one line where they are not what a config file must be.

A config file is Python with a function `get_config()` that gives a ConfigDict with the fields of
`gptjax.defaults`. `--config=FILE:TEXT` calls `get_config('TEXT')`. In a config file, `from configs import
default` gives gptjax's defaults and `from configs import NAME` the file beside it or one that comes with
gptjax, whatever folder the command is run in; no package called `configs` needs to be installed.
"""

import contextlib
import sys
import traceback
import types
from pathlib import Path

from gptjax import defaults
from gptjax.errors import InputError
from gptjax.text import words

PACKAGE = 'configs'  # the name under which config files import each other


def folder():
  """Where the configs that come with gptjax lie: inside the package if installed, beside it in a checkout."""
  package = Path(__file__).parents[1]
  return next((place for place in (package / PACKAGE, package.parent / PACKAGE)
               if (place / 'default.py').is_file()), package / PACKAGE)


def names():
  """The names of the configs that come with gptjax, sorted."""
  return sorted(path.stem for path in folder().glob('*.py') if path.stem not in ('default', '__init__'))


def find(path):
  """The file that `path` names: itself, or else the one of this name that comes with gptjax.

  Raises:
    InputError: there is no such file; the message has the nearest name.
  """
  given = Path(path).expanduser()
  if given.exists():
    return given
  installed = folder() / given.name
  if given.parent in (Path(PACKAGE), Path()) and not given.is_absolute() and installed.is_file():
    return installed
  near = words.nearest_name(given.stem, names())
  raise InputError(f'--config={path}: no such file' + (f'; did you mean configs/{near}.py?' if near else
                   f'; configs that come with gptjax: {", ".join(names())}'))


def load(path):
  """The config that a file gives.

  Args:
    path: as written after `--config=`: FILE, or FILE:TEXT for an argument of its `get_config`.

  Returns:
    A ConfigDict with exactly the fields of `gptjax.defaults`.

  Raises:
    InputError: names the file, the line if there is one, and what is wrong.
  """
  from ml_collections import ConfigDict
  name, colon, text = path.partition(':')
  config = _run(find(name), name, [text] * bool(colon))
  if not isinstance(config, ConfigDict):
    raise InputError(f'{name}: get_config() gives {type(config).__name__}, not a ConfigDict: start with '
                     '`config = default.get_config()` and end with `return config`')
  _check_fields(config, name)
  return config


def shipped(name, *arguments):
  """What `get_config(*arguments)` of `configs/NAME.py` gives; needs no ml_collections (see `defaults`)."""
  return _run(folder() / f'{name}.py', f'configs/{name}.py', arguments)


def _run(file, name, arguments):
  """Runs a config file, which messages call `name`, and calls its get_config."""
  try:
    code = compile(file.read_bytes(), str(file), 'exec')
  except OSError as error:
    raise InputError(f'--config={name} cannot be read ({error.strerror}): name a Python file') from None
  except (SyntaxError, ValueError) as error:  # a ValueError: NUL bytes
    line = f':{error.lineno}' if getattr(error, 'lineno', None) else ''
    raise InputError(f'{name}{line} is not a config file in Python ({_first_line(error)})') from None
  module = types.ModuleType('config')
  module.__file__ = str(file)
  with _siblings(file.parent):
    try:
      exec(code, module.__dict__)
      if callable(getattr(module, 'get_config', None)):
        return module.get_config(*arguments)
    except (Exception, SystemExit) as error:
      place = _place(error, file, name)
      raise InputError(f'{place}: {type(error).__name__}: {_first_line(error)}') from error
  raise InputError(f'{name} has no function get_config: define one that gives the config')


def _check_fields(config, name):
  """Refuses a config that lacks a field, or has one that no job reads."""
  have, want = set(_names(config)), set(_names(defaults.get_config()))
  if want - have:
    raise InputError(f'{name}: config.{min(want - have)} is missing: start with `default.get_config()` and '
                     'keep all its fields')
  if have - want:
    near = words.nearest_name(min(have - want), want)
    raise InputError(f'{name}: config.{min(have - want)} is not a field'
                     + (f': did you mean config.{near}?' if near else ''))


def _names(config, prefix=''):
  """The dotted names of all fields."""
  for name in config:
    value = config.get_ref(name).get() if hasattr(config, 'get_ref') else config[name]
    yield from _names(value, f'{prefix}{name}.') if hasattr(value, 'items') else [f'{prefix}{name}']


def _place(error, file, name):
  """FILE:LINE of the last line of the config file, or of one that it imports, that the error came through."""
  frames = [frame for frame in traceback.extract_tb(error.__traceback__)
            if Path(frame.filename).parent in (file.parent, folder())]
  if not frames:
    return name
  last = frames[-1]
  return f'{name if last.filename == str(file) else last.filename}:{last.lineno}'


def _first_line(error):
  return (str(getattr(error, 'msg', '') or error).strip() or 'no message').partition('\n')[0]


@contextlib.contextmanager
def _siblings(place):
  """While a config file runs, `configs` is a package of the files beside it and of those of gptjax."""
  is_ours = lambda name: name == PACKAGE or name.startswith(PACKAGE + '.')
  before = {name: sys.modules.pop(name) for name in list(sys.modules) if is_ours(name)}
  package = types.ModuleType(PACKAGE)
  package.__path__ = [str(place), str(folder())]
  package.default = defaults
  sys.modules |= {PACKAGE: package, f'{PACKAGE}.default': defaults}
  try:
    yield
  finally:
    for name in [name for name in sys.modules if is_ours(name)]:
      del sys.modules[name]
    sys.modules |= before
