"""What the commands of this package have in common: flags, and errors in one line."""

import argparse
import errno
import sys

from gptjax import shutdown
from gptjax.errors import InputError

BAD_INPUT = 2  # exit code


class Parser(argparse.ArgumentParser):
  """Flags whose errors are InputErrors, for `run` to print."""

  def error(self, message):
    raise InputError(f'{message}; --help lists the flags')


def run(job, name):
  """Calls job(arguments) and ends the process: 2 and one line on stderr where the user erred.

  Each command calls `shutdown.catch` before this, at its first line: 130 after Ctrl-C, 143 after SIGTERM.
  """
  try:
    job(sys.argv[1:])
  except InputError as error:
    print(f'{name}: {" ".join(str(error).split())}', file=sys.stderr)
    sys.exit(BAD_INPUT)
  except OSError as error:
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
      raise
    print(f'{name}: no space left on the disk: free some, the same command goes on from here',
          file=sys.stderr)
    sys.exit(BAD_INPUT)
  shutdown.leave()
