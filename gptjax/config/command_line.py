"""The flags of commands that take a config."""

import contextlib
import functools
import re
import sys
import textwrap
from typing import NamedTuple

from absl import flags
from ml_collections import config_flags

from gptjax import defaults, errors
from gptjax.command import early, run, spelling
from gptjax.config import field_names, files
from gptjax.errors import InputError
from gptjax.text import text_checks, words


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
  hint = spelling.spelled(hint)
  text_checks.escape_output()
  text_checks.require_valid_arguments(argv)
  try:
    argv, path = _split_config_flag(flag_values.read_flags_from_files(argv))
    if not path and any(_is_field(argument) for argument in argv):  # flags that only --config defines
      raise InputError(_missing_config(argv, hint))
    if path:
      config_flags.DEFINE_config_dict('config', files.load(path), flag_values=flag_values, sys_argv=argv)
    rest = flag_values(argv)
  except InputError:
    raise
  except (AttributeError, KeyError) as error:
    raise InputError(field_names.unknown_field(argv) or str(error)) from None
  except flags.UnrecognizedFlagError as error:
    # absl would suggest its own flags too, such as --log_dir.
    own = [flag.name for module, some in flag_values.flags_by_module_dict().items()
           if module.startswith('gptjax.') for flag in some]
    raise InputError(field_names.unknown_flag(error.flagname, ['config', *own])) from None
  except flags.IllegalFlagValueError as error:
    raise InputError(_illegal_value(str(error))) from None
  except (flags.Error, TypeError, ValueError, OSError) as error:
    raise InputError(' '.join(str(error).split())) from None
  if not path:
    raise InputError(_missing_config(argv, hint))
  if len(rest) > 1:
    raise InputError(f'{rest[1]!r} is not a flag: set config fields with --config.FIELD=VALUE')
  for name in required:
    if not flag_values[name].value:
      raise InputError(f'--{name} is missing: {hint}')
  return path


class Usage(NamedTuple):
  """What the help of a command that takes a config shows beside the declarations of flags and fields."""
  prog: str         # `python -m gptjax.NAME`
  module: str       # that defines the flags
  purpose: str      # one sentence
  example: str      # a complete command line
  fields: tuple     # names of the fields that are used most


def handle_help(flag_values, argv, usage, command):
  """Print what `argv` asks for and exit with 0, or return if the command has to run; imports nothing large.

  --help and -h print the flags and the most used fields of the config, --helpfull all fields, --version the
  version. Without arguments (but --config.job, which `gptjax finetune` adds) the purpose and an example are
  printed on stdout, the error of one line on stderr, and the exit code is 2.

  Args:
    flag_values, argv: as for `parse_flags`.
    usage: Usage of the command.
    command: its name, which starts the line of the error.
  """
  early.print_version(argv[1:])
  full = {'--helpfull', '-helpfull'} & set(argv[1:])
  if full or early.HELP & set(argv[1:]):
    path = _split_config_flag(argv[1:])[1]
    run.write_help(help_text(flag_values, usage, bool(full), path), sys.stdout)
    sys.exit(0)
  if all(argument.startswith('--config.job=') for argument in argv[1:]):
    early.print_purpose(usage.purpose, usage.example)
    sys.exit(errors.print_line(InputError('--config is missing; --help lists the flags'), command))


def help_text(flag_values, usage, full=False, path=None):
  """Return the help of a command that takes a config.

  Args:
    flag_values: `absl.flags.FLAGS`.
    usage: Usage of the command.
    full: whether to list all fields.
    path: of the config whose values are shown, as after `--config=`; if it is None or cannot be read,
      defaults are shown.
  """
  declared = defaults.declared()
  fields = declared if full else usage.fields
  values, origin = {name: field.default for name, field in declared.items()}, 'default'
  with contextlib.suppress(InputError):
    if path:
      values, origin = _values(files.load(path), declared), f'value in {path}'
  entries = [_entry(f'--config.{name}={values[name]}', declared[name].meaning) for name in fields]
  title = (f'all {len(declared)} fields of the config, each with its {origin}:' if full else
           f'fields that are used most, each with its {origin} (--helpfull lists all {len(declared)}):')
  text = [f'usage: {usage.prog} --config=FILE [--FLAG=VALUE ...] [--config.FIELD=VALUE ...]', '',
          usage.purpose, '', 'flags:', *_flag_entries(flag_values, usage.module), '', title, *entries, '',
          'example:', f'  {usage.example}']
  return spelling.spelled('\n'.join(text)) + '\n'


def flags_of(flag_values, module):
  """Return the absl flags that a module defines."""
  return flag_values.flags_by_module_dict()[module]


def _flag_entries(flag_values, module):
  yield _entry('--config=FILE', f'the config, a Python file, or one of gptjax by its name: '
               f'{", ".join(files.names())}')
  for flag in flags_of(flag_values, module):
    switch = flag.flag_type() == 'bool'
    value = '' if switch else f'={flag.flag_type().upper()}'
    shown = '' if flag.default is None else f' Default: {flag.default}.'
    yield _entry(f'--{"[no]" * switch}{flag.name}{value}', flag.help + shown)


def _entry(name, meaning):
  return f'  {name}\n' + textwrap.fill(meaning, 100, initial_indent=' ' * 6, subsequent_indent=' ' * 6)


def _values(config, names):
  return {name: functools.reduce(getattr, name.split('.'), config) for name in names}


def _is_field(argument):
  return argument.startswith(('--config.', '-config.'))


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


def _illegal_value(message):
  """The message about a value that is not of the type of its field, from that of absl or Python."""
  message = ' '.join(message.split())
  parts = re.match(r'flag --config\.([\w.]+)=(.*?): ', message)
  field = defaults.declared().get(parts[1]) if parts else None
  return f'config.{parts[1]} = {parts[2]!r} must be {field.domain.words}' if field else message


def _missing_config(argv, hint):
  """The message if there is no --config: with the file that was given without it, or with its wrong name."""
  for argument in argv[1:]:
    name, file = argument.partition('=')[0], argument.partition(':')[0]
    if not argument.startswith('-') and file.endswith('.py'):
      return f'--config is missing: write --config={argument}'
    if name.startswith('--') and words.nearest_name(name[2:], ['config']):
      return f'{name} is not a flag: did you mean --config?'
  return f'--config is missing: {hint}'
