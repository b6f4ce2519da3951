"""What the commands of this package have in common: flags, and errors in one line."""

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
    strange = message.removeprefix('unrecognized arguments: ')
    if strange == message or not strange.startswith('--'):
      raise InputError(f'{message}; --help lists the flags')
    known = [name for name in self._option_string_actions if name.startswith('--')]
    name = strange.split()[0].partition('=')[0]
    raise InputError(f'{name} is not a flag{words.suggestion(name, known, "the flags are")}')


def run(job, name):
  """Calls job(arguments) and ends the process: 2 and one line on stderr where the user erred.

  Each command calls `shutdown.catch` before this, at its first line: 130 after Ctrl-C, 143 after SIGTERM.

  Args:
    job: function of the arguments that gives an exit code, or None for 0.
    name: of the command, before the line.
  """
  text_checks.escape_output()
  try:
    text_checks.require_valid_arguments(sys.argv[1:])
    code = job(sys.argv[1:])
    print(end='', flush=True)  # an error of stdout is one of the command, unless it is guarded
  except Exception as error:
    code = errors.print_line(error, name)
    if code is None:
      raise
    with contextlib.suppress(SystemExit, OSError):  # the exit code is settled, whoever reads stdout
      sys.stdout.flush()
  shutdown.ignore_signals()
  if code:
    sys.exit(code)
