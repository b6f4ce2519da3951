"""The main function of commands: flags, and errors of one line."""

import argparse
import contextlib
import inspect
import re
import sys
import textwrap

from gptjax import errors
from gptjax.command import colors, shutdown, spelling, streams
from gptjax.errors import InputError
from gptjax.text import text_checks, words

_HEADING = re.compile(r'^\S[^\n]*:$|^usage:|^example:', re.MULTILINE)


class Parser(argparse.ArgumentParser):
  """Flags whose errors are InputErrors, for `run` to print.

  The texts are written with `python -m gptjax.NAME`; the help has the command as the user called it.
  """

  def __init__(self, *, prog, description='', example='', other_names=(), **options):
    """Create a parser without flags.

    Args:
      prog: `python -m gptjax.NAME`.
      description: what the command does; its first paragraph is shown if there are no arguments.
      example: a complete command line, shown at the end of the help.
      other_names: {flag of another program: ours}, for messages.
      options: of `argparse.ArgumentParser`.
    """
    self.other_names, self.arguments = dict(other_names), []
    options.setdefault('formatter_class', argparse.RawDescriptionHelpFormatter)
    self.purpose = spelling.spelled(inspect.cleandoc(description)).partition('\n\n')[0]
    self.example = spelling.spelled(inspect.cleandoc(example))
    epilog = f'example:\n{textwrap.indent(self.example, "  ")}' if example else None
    super().__init__(prog=spelling.spelled(prog), description=spelling.spelled(description), epilog=epilog,
                     **options)
    self.color = False  # of argparse itself, from Python 3.14 on

  def print_help(self, file=None):
    write_help(self.format_help(), file or sys.stdout)

  def parse_known_args(self, args=None, namespace=None):
    self.arguments = sys.argv[1:] if args is None else list(args)
    return super().parse_known_args(args, namespace)

  def error(self, message):
    """Raise InputError; a required flag may be missing because it is given under another name."""
    unrecognized, required = 'unrecognized arguments: --', 'the following arguments are required: '
    first, unknown = next(iter(self.arguments), '-'), ''
    if message.startswith(unrecognized):
      unknown = message.removeprefix(unrecognized[:-2]).split()[0]
    elif message.startswith(required):
      unknown = next(filter(self._is_unknown_flag, self.arguments), '')
      if not unknown and not first.startswith('-') and all(action.option_strings for action in self._actions):
        flag = message.removeprefix(required).partition(',')[0]
        raise InputError(f'{first!r} needs the name of its flag, as in {flag}={first}')
    if not unknown:
      raise InputError(f'{message}; --help lists the flags')
    name = unknown.partition('=')[0]
    known = [flag for flag in self._option_string_actions if flag.startswith('--')]
    meant = self.other_names.get(name)
    suggestion = f': did you mean {meant}?' if meant else words.suggestion(name, known, 'the flags are')
    raise InputError(f'{name} is not a flag{suggestion}')

  def _is_unknown_flag(self, argument):
    name = argument.partition('=')[0]
    return name.startswith('--') and not any(flag.startswith(name) for flag in self._option_string_actions)


def write_help(text, stream):
  """Write a help text; its headings are bold on terminals."""
  bold = lambda match: colors.colored(match[0], stream, attrs=['bold'])
  streams.write_colored(_HEADING.sub(bold, text), stream)


def run(job, name):
  """Call job(arguments) and exit; an error of the user prints one line on stderr and exits with 2.

  Each command calls `shutdown.catch` before this, in its first line: 130 after Ctrl-C, 143 after SIGTERM.

  Args:
    job: function of the arguments that returns an exit code, or None for 0.
    name: of the command, which starts the line.
  """
  text_checks.escape_output()
  try:
    text_checks.require_valid_arguments(sys.argv[1:])
    code = job(sys.argv[1:])
    print(end='', flush=True)  # a failed write here is an error of the command, unless guarded
  except Exception as error:
    code = errors.print_line(error, name)
    if code is None:
      raise
    with contextlib.suppress(SystemExit, OSError):  # the exit code is already decided
      sys.stdout.flush()
  shutdown.ignore_signals()
  if code:
    sys.exit(code)
