"""What an error means to whoever started the run: a line of plain words and an exit code, or a bug."""

import errno
import sys

BAD_INPUT, BUG, LOST = 2, 1, 70  # exit codes


class InputError(ValueError):
  """What a user can cause and mend: one line that says what is wrong, with the value, and what to do.

  Commands print the line and exit with 2. Every other exception is a bug: its traceback, and exit code 1.
  """


class LostProcess(RuntimeError):
  """Another process of the run is missing, dead or hangs: one line that names it.

  Commands print the line and exit with 70, so that launchers start the run again.
  """


def in_words(error, workdir):
  """(line, exit code) for what has nothing to do with the program; None for a bug, which keeps its traceback.

  Args:
    error: an exception that has been raised.
    workdir: of the run, for the message of a full disk; '' where the command has none.
  """
  if isinstance(error, InputError):
    return str(error), BAD_INPUT
  if isinstance(error, LostProcess):
    return str(error), LOST
  if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
    if not workdir:
      return 'no space left on the disk: free some, the same command goes on from here', BAD_INPUT
    return (f'no space left on the disk of {workdir}: free some and start again; the newest checkpoint is '
            'good', BAD_INPUT)
  return None


def print_line(error, command, workdir=''):
  """Prints what a user can mend as one line on stderr: the one way in which all commands do.

  Args:
    error: an exception that has been raised.
    command: name of the command, which begins the line.
    workdir: see `in_words`.

  Returns:
    The exit code; None, and nothing is printed, for a bug, which the caller raises again.
  """
  words = in_words(error, workdir)
  if words is None:
    return None
  line, code = words
  print(f'{command}: {" ".join(line.split())}', file=sys.stderr)
  return code
