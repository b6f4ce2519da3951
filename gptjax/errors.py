"""What an error means to whoever started the run: a line of plain words and an exit code, or a bug."""

import errno
import logging
import os
import re
import sys
from typing import NamedTuple

from gptjax.text.printable import printable
from gptjax.text.redacted import redacted

BAD_INPUT, BUG, LOST = 2, 1, 70  # exit codes

# What a machine refuses, whatever the program does, and what to do about it; other numbers mean a bug.
FULL, DENIED, BROKEN = 'free some', 'make it writable', 'see the system log'
MACHINE = {
  errno.ENOSPC: FULL, errno.EDQUOT: FULL, errno.EFBIG: 'raise the limit of file sizes (ulimit -f)',
  errno.EACCES: DENIED, errno.EPERM: DENIED, errno.EROFS: DENIED,
  errno.EMFILE: 'raise the limit of open files (ulimit -n)', errno.ENFILE: 'close some',
  errno.EIO: BROKEN, errno.ESTALE: BROKEN, errno.ENAMETOOLONG: 'choose a shorter path'}
# How libraries that raise no OSError spell one: TensorStore, which Orbax uses, and TensorFlow.
TENSORSTORE = re.compile(r"\[os_error_code='(\d+)'")
REASONS = {os.strerror(number): number for number in MACHINE}
NO_MEMORY = re.compile(r'RESOURCE_EXHAUSTED.*(out of memory|allocat)', re.IGNORECASE | re.DOTALL)  # of XLA
TENSORFLOW = re.compile(r'(?:^|}} )([^;{}]+); (' + '|'.join(map(re.escape, REASONS)) + r')\b')


class _Message:
  """An exception whose texts can be printed anywhere: they may quote names and URLs of others."""

  def __init__(self, *texts):
    super().__init__(*(printable(redacted(text), '\n\t') if isinstance(text, str) else text
                       for text in texts))


class InputError(_Message, ValueError):
  """What a user can cause and mend: one line that says what is wrong, with the value, and what to do.

  Commands print the line and exit with 2. Every other exception is a bug: its traceback, and exit code 1.
  """


class LostProcess(_Message, RuntimeError):
  """Another process of the run is missing, dead or hangs: one line that names it.

  Commands print the line and exit with 70, so that launchers start the run again.
  """


class Fault(NamedTuple):
  """What the machine has refused."""
  number: int   # a key of MACHINE
  path: str     # '': the error does not say


def describe(error, workdir):
  """(line, exit code) for what has nothing to do with the program; None for a bug, which keeps its traceback.

  Args:
    error: an exception that has been raised.
    workdir: of the run, named where the error names no path; '' where the command has none.
  """
  if isinstance(error, InputError):
    return str(error), BAD_INPUT
  if isinstance(error, LostProcess):
    return str(error), LOST
  if line := _exhausted(error):
    return line, BAD_INPUT
  if fault := system_fault(error):
    then = checkpoint_status(workdir) if workdir else 'the same command goes on from here'
    return describe_fault(fault, fault.path or workdir or 'the output', then), BAD_INPUT
  return None


def print_line(error, command, workdir=''):
  """Prints what a user can mend as one line on stderr: the one way in which all commands do.

  Args:
    error: an exception that has been raised.
    command: name of the command, which begins the line.
    workdir: see `describe`.

  Returns:
    The exit code; None, and nothing is printed, for a bug, which the caller raises again.
  """
  words = describe(error, workdir)
  if words is None:
    return None
  line, code = words
  print(printable(redacted(f'{command}: {" ".join(line.split())}')), file=sys.stderr)
  return code


def system_fault(error):
  """The Fault behind an exception: an OSError, or what a library raises in its place; None: there is none."""
  while error is not None:
    if isinstance(error, OSError) and error.errno in MACHINE:
      return Fault(error.errno, str(error.filename or ''))
    module = type(error).__module__
    if type(error) is ValueError and (found := TENSORSTORE.search(str(error))):
      if int(found[1]) in MACHINE:
        return Fault(int(found[1]), '')
    elif module.startswith('tensorflow.') and (found := TENSORFLOW.search(str(error))):
      return Fault(REASONS[found[2]], found[1])
    error = error.__cause__
  return None


def checkpoint_status(folder):
  """Return the clause for `describe_fault` that says whether a restart finds a checkpoint.

  Args:
    folder: workdir of the run, or the folder of its checkpoints.
  """
  try:
    there = any('manifest.json' in files and os.path.basename(parent)[:1].isdigit()
                for parent, _, files in os.walk(folder, onerror=_raise))
  except FileNotFoundError:
    there = False
  except OSError:  # it cannot be read now; what is there is as it was. `Path.glob` would not say so
    there = True
  return 'the newest checkpoint is good' if there else 'no checkpoint is there yet'


def _raise(error):
  raise error


def _exhausted(error):
  """The line where memory, threads or processes have run out; None: they have not."""
  if isinstance(error, BlockingIOError) or (type(error) is RuntimeError and 'start new thread' in str(error)):
    return 'the system starts no more threads or processes: raise their limit (ulimit -u) and start again'
  memory = isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
  if memory or (isinstance(error, ImportError) and 'failed to map segment' in str(error)):
    return (f'out of memory ({str(error) or type(error).__name__}): give the process more (ulimit -v, the '
            'limit of the job), or use a smaller model or batch')
  if type(error).__name__ == 'JaxRuntimeError' and NO_MEMORY.search(str(error)):
    return (f'out of memory ({str(error).partition(chr(10))[0]}): use a smaller config.train.microbatch_size '
            'or config.eval.batch_size, or more devices; python -m gptjax.plan shows what fits')
  return None


def describe_fault(fault, path, then):
  """The line about a Fault.

  Args:
    fault: what the machine has refused.
    path: of what could not be written, or read.
    then: what starting again gives.
  """
  if fault.number in (errno.ENOSPC, errno.EDQUOT):
    what = f'no space left on the disk of {path}'
    if fault.number == errno.EDQUOT:
      what += ' (quota)'
  else:
    only_written = fault.number in (errno.EROFS, errno.EFBIG)
    what = f'cannot {"write" if only_written else "write or read"} {path}: {os.strerror(fault.number)}'
  return f'{what}: {MACHINE[fault.number]} and start again; {then}'


def quiet_libraries():
  """Keeps Orbax and clu from logging, with stacks, what they raise too, where `describe` has words for it.

  TensorStore, too, prints that there is no longer anyone to tell of each array that it could not write.
  """
  for name in ('absl', 'asyncio'):
    logging.getLogger(name).addFilter(_is_news)
  if sys.unraisablehook is not _hook:
    _hook.before, sys.unraisablehook = sys.unraisablehook, _hook


def _is_news(record):
  return not (record.exc_info and record.exc_info[1] and system_fault(record.exc_info[1]))


def _hook(raised):
  if not (raised.exc_type is RuntimeError and str(raised.exc_value) == 'Event loop is closed'):
    _hook.before(raised)
