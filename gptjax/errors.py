"""What an error means to whoever started the run: a line of plain words and an exit code, or a bug."""

import errno
import traceback
from pathlib import Path

BAD_INPUT, BUG = 2, 1  # exit codes


def in_words(error, workdir):
  """(line, exit code) for what a user can mend; None for everything else, which keeps its traceback.

  Args:
    error: an exception that has been raised.
    workdir: of the run, for the message of a full disk.
  """
  if isinstance(error, ValueError) and is_ours(error):
    return str(error), BAD_INPUT
  if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
    return (f'no space left on the disk of {workdir}: free some and start again; the newest checkpoint is '
            'good', BAD_INPUT)
  return None


def is_ours(error):
  """Whether a ValueError was raised by gptjax; one from a library is a bug, and shows its trace."""
  origin = traceback.extract_tb(error.__traceback__)[-1].filename
  return Path(origin).is_relative_to(Path(__file__).parent)
