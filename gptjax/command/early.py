"""Help, the version, and calls without arguments, handled before any large import.

Each command calls `handle_help` right after `startup.begin`, so these take a fraction of a second although
JAX and TensorFlow take several to import.
"""

import sys
import textwrap

from gptjax import errors
from gptjax.command import spelling
from gptjax.errors import InputError

HELP = {'--help', '-help', '-h'}


def handle_help(parser, command, needs_arguments=True, action=None):
  """Print what the command line asks for and exit, or return if the command has to run.

  --help, -h and --version exit with 0. Without arguments the purpose of the command and an example are
  printed on stdout, the error of one line on stderr, and the exit code is 2.

  Args:
    parser: function that returns the `run.Parser` of the command.
    command: its name, which starts the line of the error.
    needs_arguments: if False, a call without arguments runs the command.
    action: a first argument that is a part of the command, like `export`; None: there is none.
  """
  own = [] if action is None else [action]
  arguments = sys.argv[2:] if sys.argv[1:2] == own else sys.argv[1:]
  print_version(arguments)
  if HELP & set(arguments):
    parser().print_help()
    sys.exit(0)
  if arguments or not needs_arguments:
    return
  flags = parser()
  print_purpose(flags.purpose, flags.example)
  try:
    flags.parse_args(own)
  except InputError as error:
    sys.exit(errors.print_line(error, command))
  sys.exit(errors.print_line(InputError('no arguments; --help lists the flags'), command))


def print_version(arguments):
  """If --version is among the arguments, print the version and exit with 0."""
  if '--version' in arguments:
    import gptjax
    print(f'gptjax {gptjax.__version__}')
    sys.exit(0)


def print_purpose(purpose, example):
  """Print what a command does, and an example, for a call without arguments."""
  print(f'{spelling.spelled(purpose)}\n\nexample:\n{textwrap.indent(spelling.spelled(example), "  ")}\n')
  sys.stdout.flush()
