"""What the commands of this package have in common: flags, and errors in one line."""

import argparse
import errno
import sys

from gptjax.errors import InputError

BAD_INPUT, INTERRUPTED = 2, 130  # exit codes


class Parser(argparse.ArgumentParser):
  """Flags whose errors are InputErrors, for `run` to print."""

  def error(self, message):
    raise InputError(f'{message}; --help lists the flags')


def run(job, name):
  """Calls job(arguments) and ends the process: 2 and one line on stderr where the user erred."""
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
  except KeyboardInterrupt:
    print(f'{name}: stopped; the same command goes on from here', file=sys.stderr)
    sys.exit(INTERRUPTED)
