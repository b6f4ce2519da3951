"""The main function of commands: flags, and errors of one line."""

import argparse
import contextlib
import sys

from gptjax import errors
from gptjax.command import shutdown
from gptjax.errors import InputError
from gptjax.text import text_checks, words


class Parser(argparse.ArgumentParser):
  """Flags whose errors are InputErrors, for `run` to print."""

  def error(self, message):
    unknown = message.removeprefix('unrecognized arguments: ')
    if unknown == message or not unknown.startswith('--'):
      raise InputError(f'{message}; --help lists the flags')
    known = [name for name in self._option_string_actions if name.startswith('--')]
    name = unknown.split()[0].partition('=')[0]
    raise InputError(f'{name} is not a flag{words.suggestion(name, known, "the flags are")}')


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
