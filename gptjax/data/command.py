"""What the commands of this package have in common: flags, and errors in one line."""

import argparse
import errno
import sys
import traceback
from pathlib import Path

BAD_INPUT, INTERRUPTED = 2, 130  # exit codes


class Parser(argparse.ArgumentParser):
  """Flags whose errors are ValueErrors, for `run` to print."""

  def error(self, message):
    raise ValueError(f'{message}; --help lists the flags')


def run(job, name):
  """Calls job(arguments) and ends the process: 2 and one line on stderr where the user erred."""
  try:
    job(sys.argv[1:])
  except ValueError as error:
    # One that a library raised is a mistake of ours, and shows where.
    origin = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
    if not origin.is_relative_to(Path(__file__).parents[1]):
      raise
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
