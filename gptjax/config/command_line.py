"""The flags of commands that take a config."""

import sys
import textwrap

from absl import flags
from ml_collections import config_flags

from gptjax import defaults
from gptjax.config import files
from gptjax.errors import InputError
from gptjax.text import text_checks


def parse_flags(flag_values, argv, required, hint):
  """Parse absl's flags, including `--config=FILE` and `--config.FIELD=VALUE`.

  Args:
    flag_values: `absl.flags.FLAGS`; after the call `flag_values.config` is the config, and
      `flag_values['config'].override_values` maps each field set on the command line to its value.
    argv: the command line, like `sys.argv`.
    required: names of required flags.
    hint: end of the message if a required flag is missing, such as an example.

  Returns:
    The path given to `--config`.

  Raises:
    InputError: a flag is unknown, invalid, missing or not valid Unicode; the message is one line.
  """
  text_checks.escape_output()
  text_checks.require_valid_arguments(argv)
  try:
    argv, path = _split_config_flag(flag_values.read_flags_from_files(argv))
    if path:
      config_flags.DEFINE_config_dict('config', files.load(path), flag_values=flag_values, sys_argv=argv)
    rest = flag_values(argv)
  except InputError:
    raise
  except (AttributeError, KeyError) as error:
    from gptjax.config.resolve import unknown_field
    raise InputError(unknown_field(argv) or str(error)) from None
  except (flags.Error, TypeError, ValueError, OSError) as error:
    raise InputError(' '.join(str(error).split())) from None
  if not path:
    raise InputError(f'--config is missing: {hint}')
  if len(rest) > 1:
    raise InputError(f'{rest[1]!r} is not a flag: set config fields with --config.FIELD=VALUE')
  for name in required:
    if not flag_values[name].value:
      raise InputError(f'--{name} is missing: {hint}')
  return path


def show_help(flag_values, argv, example):
  """If `argv` has --help, print the flags and the fields of the config, and exit with 0.

  Args:
    flag_values, argv: as for `parse_flags`.
    example: a complete command line.
  """
  if not {'--help', '-help', '-h'} & set(argv[1:]):
    return
  gptjax_flags = [flag for module, flags_of_module in flag_values.flags_by_module_dict().items()
                  if module == argv[0] or module.startswith('gptjax.') for flag in flags_of_module]
  print(f'example: {example}\n\nflags:')
  _print_entry('--config=FILE', "config file (Python); gptjax's own are in configs/")
  for flag in gptjax_flags:
    is_boolean = flag.flag_type() == 'bool'
    value = '' if is_boolean else f'={flag.flag_type().upper()}'
    _print_entry(f'--{"[no]" * is_boolean}{flag.name}{value}', flag.help)
  print('\nfields of the config, each with its default (also in gptjax/defaults.py):')
  for name, field in defaults.declared().items():
    _print_entry(f'--config.{name}={field.default}', field.meaning)
  sys.exit(0)


def _print_entry(flag, description):
  print(f'  {flag}')
  print(textwrap.fill(description, 100, initial_indent=' ' * 6, subsequent_indent=' ' * 6))


def _split_config_flag(argv):
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
