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

  def __init__(self, *, prog, description='', example='', **options):
    """Create a parser without flags.

    Args:
      prog: `python -m gptjax.NAME`.
      description: what the command does; its first paragraph is shown if there are no arguments.
      example: a complete command line, shown at the end of the help.
      options: of `argparse.ArgumentParser`.
    """
    options.setdefault('formatter_class', argparse.RawDescriptionHelpFormatter)
    self.purpose = spelling.spelled(inspect.cleandoc(description)).partition('\n\n')[0]
    self.example = spelling.spelled(inspect.cleandoc(example))
    epilog = f'example:\n{textwrap.indent(self.example, "  ")}' if example else None
    super().__init__(prog=spelling.spelled(prog), description=spelling.spelled(description), epilog=epilog,
                     **options)
    self.color = False  # of argparse itself, from Python 3.14 on

  def print_help(self, file=None):
    write_help(self.format_help(), file or sys.stdout)

  def error(self, message):
    unknown = message.removeprefix('unrecognized arguments: ')
    if unknown == message or not unknown.startswith('--'):
      raise InputError(f'{message}; --help lists the flags')
    known = [name for name in self._option_string_actions if name.startswith('--')]
    name = unknown.split()[0].partition('=')[0]
    raise InputError(f'{name} is not a flag{words.suggestion(name, known, "the flags are")}')


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
