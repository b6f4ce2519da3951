"""What the commands that take a config do with their flags."""

import sys
import textwrap

from absl import flags
from ml_collections import config_flags

from gptjax import defaults
from gptjax.config import files
from gptjax.errors import InputError
from gptjax.text import text_checks


def read(known, argv, needed, example):
  """Reads absl's flags, `--config=FILE` and the fields that `--config.FIELD=VALUE` sets among them.

  Args:
    known: `absl.flags.FLAGS`; `known.config` is the config afterwards, and `known['config'].override_values`
      has the fields that flags set.
    argv: of the process.
    needed: names of flags that must be there.
    example: what to look at where one of them is not.

  Returns:
    The config's file, as it is written after `--config=`.

  Raises:
    InputError: one line, for what does not exist, does not fit, is missing or is not valid Unicode.
  """
  text_checks.escape_output()
  text_checks.require_valid_arguments(argv)
  try:
    argv, path = _config_path(known.read_flags_from_files(argv))
    if path is not None:
      config_flags.DEFINE_config_dict('config', files.load(path), flag_values=known, sys_argv=argv)
    rest = known(argv)
  except InputError:
    raise
  except (AttributeError, KeyError) as error:
    from gptjax.config.resolve import unknown_field
    raise InputError(unknown_field(argv) or str(error)) from None
  except (flags.Error, TypeError, ValueError, OSError) as error:
    raise InputError(' '.join(str(error.args[0] if error.args else error).split())) from None
  if path is None:
    raise InputError(f'--config is missing: {example}')
  if len(rest) > 1:
    raise InputError(f'{rest[1]!r} is not a flag: fields are set by --config.FIELD=VALUE')
  for name in needed:
    if not known[name].value:
      raise InputError(f'--{name} is missing: {example}')
  return path


def show_help(known, argv, example):
  """Prints the flags and the fields of the config, and ends the process with 0, if `argv` asks for help.

  Args:
    known, argv: as for `read`.
    example: a whole command line.
  """
  if not {'--help', '-help', '-h'} & set(argv[1:]):
    return
  own = [flag for module, several in known.flags_by_module_dict().items()
         if module == argv[0] or module.startswith('gptjax.') for flag in several]
  print(f'example: {example}\n\nflags:')
  _show('--config=FILE', 'the config, a Python file; those of this project are in configs/')
  for flag in own:
    switch = flag.flag_type() == 'bool'
    _show(f'--{"[no]" * switch}{flag.name}{"" if switch else "=" + flag.flag_type().upper()}', flag.help)
  print('\nfields of the config, each with its default (also in gptjax/defaults.py):')
  for name, field in defaults.declared().items():
    _show(f'--config.{name}={field.default}', field.meaning)
  sys.exit(0)


def _show(name, meaning):
  print(f'  {name}')
  print(textwrap.fill(meaning, 100, initial_indent=' ' * 6, subsequent_indent=' ' * 6))


def _config_path(argv):
  """(argv without --config=FILE or --config FILE, FILE or None)."""
  rest, path, arguments = [], None, iter(argv)
  for argument in arguments:
    if argument in ('--config', '-config'):
      path = next(arguments, '')
    elif argument.startswith(('--config=', '-config=')):
      path = argument.partition('=')[2]
    else:
      rest.append(argument)
  return rest, path
