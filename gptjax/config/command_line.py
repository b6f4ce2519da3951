"""The flags of commands that take a config."""

import sys
import textwrap

from absl import flags
from ml_collections import config_flags

from gptjax import defaults
from gptjax.config import files
from gptjax.errors import InputError
from gptjax.text import text_checks


def read(known, argv, needed, example):
  """Parse absl's flags, including `--config=FILE` and `--config.FIELD=VALUE`.

  Args:
    known: `absl.flags.FLAGS`; afterwards `known.config` is the config, and `known['config'].override_values`
      has the fields that flags set.
    argv: of the process.
    needed: names of required flags.
    example: example command, shown if a required flag is missing.

  Returns:
    The config's file, as written after `--config=`.

  Raises:
    InputError: a flag is unknown, invalid, missing or not valid Unicode; one line.
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
  """If `argv` has --help, print the flags and the fields of the config, and exit with 0.

  Args:
    known, argv: as for `read`.
    example: a complete command line.
  """
  if not {'--help', '-help', '-h'} & set(argv[1:]):
    return
  own = [flag for module, flags_of_module in known.flags_by_module_dict().items()
         if module == argv[0] or module.startswith('gptjax.') for flag in flags_of_module]
  print(f'example: {example}\n\nflags:')
  _print_entry('--config=FILE', 'the config, a Python file; those of this project are in configs/')
  for flag in own:
    switch = flag.flag_type() == 'bool'
    value = '' if switch else f'={flag.flag_type().upper()}'
    _print_entry(f'--{"[no]" * switch}{flag.name}{value}', flag.help)
  print('\nfields of the config, each with its default (also in gptjax/defaults.py):')
  for name, field in defaults.declared().items():
    _print_entry(f'--config.{name}={field.default}', field.meaning)
  sys.exit(0)


def _print_entry(name, meaning):
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
