"""Errors as users see them: a message of one line and an exit code for user errors, a traceback for bugs."""

import errno
import logging
import os
import re
import sys
from typing import NamedTuple

from gptjax.text.printable import printable
from gptjax.text.redacted import redacted

BAD_INPUT, BUG, LOST = 2, 1, 70  # exit codes

# Errors of the machine, whatever the program does, and what to do about them; other error numbers are bugs.
FULL, DENIED, BROKEN = 'free some', 'make it writable', 'see the system log'
MACHINE = {
  errno.ENOSPC: FULL, errno.EDQUOT: FULL, errno.EFBIG: 'raise the limit of file sizes (ulimit -f)',
  errno.EACCES: DENIED, errno.EPERM: DENIED, errno.EROFS: DENIED,
  errno.EMFILE: 'raise the limit of open files (ulimit -n)', errno.ENFILE: 'close some',
  errno.EIO: BROKEN, errno.ESTALE: BROKEN, errno.ENAMETOOLONG: 'choose a shorter path'}
# The text of such errors in libraries that do not raise OSError: TensorStore (Orbax) and TensorFlow.
TENSORSTORE = re.compile(r"\[os_error_code='(\d+)'")
REASONS = {os.strerror(number): number for number in MACHINE}
NO_MEMORY = re.compile(r'RESOURCE_EXHAUSTED.*(out of memory|allocat)', re.IGNORECASE | re.DOTALL)  # of XLA
TENSORFLOW = re.compile(r'(?:^|}} )([^;{}]+); (' + '|'.join(map(re.escape, REASONS)) + r')\b')

as_called = str  # replaces the commands in a line by what the user calls; `gptjax.command.spelling` sets it
cache_folder = str  # returns where this machine writes what goes to buckets; `storage.files.cache` sets it


class _Message:
  """An exception whose texts are safe to print, although they may quote untrusted names and URLs."""

  def __init__(self, *texts):
    super().__init__(*(printable(redacted(text), '\n\t') if isinstance(text, str) else text
                       for text in texts))


class InputError(_Message, ValueError):
  """An error that a user can cause and fix: one line that says what is wrong, with the value, and what to do.

  Commands print the line and exit with 2. Other exceptions are bugs: a traceback, and exit code 1.
  """


class Unavailable(InputError):
  """The storage has not answered for a long time, which says nothing about what is stored there.

  Commands print the line and exit with 70, so that launchers restart the run.
  """
  exit_code = LOST


class Denied(Unavailable):
  """The storage refuses access: the credentials or the permissions have to be mended. Exit code 2."""
  exit_code = BAD_INPUT


class LostWorkdir(InputError):
  """Another run owns the workdir now; this one must write nothing more and end."""


class LostProcess(_Message, RuntimeError):
  """Another process of the run is missing, dead or hangs: one line with its name.

  Commands print the line and exit with 70, so that launchers restart the run.
  """


class Fault(NamedTuple):
  """An error of the machine."""
  number: int   # a key of MACHINE
  path: str     # '': unknown


def describe(error, workdir):
  """Return (line, exit code) for an error of the user or the machine; None for a bug.

  Args:
    error: an exception that has been raised.
    workdir: of the run, used if the error has no path; '' if the command has none.
  """
  if isinstance(error, InputError):
    return str(error), getattr(error, 'exit_code', BAD_INPUT)
  if isinstance(error, LostProcess):
    return str(error), LOST
  if line := _exhausted(error):
    return line, BAD_INPUT
  if fault := system_fault(error):
    status = checkpoint_status(workdir) if workdir else 'run the same command again to resume'
    return describe_fault(fault, fault.path or disk_of(workdir) or 'the output', status), BAD_INPUT
  return None


def disk_of(folder):
  """Return the folder whose disk a Fault is about that has no path.

  What goes into a bucket is written to the cache of this machine first.
  """
  return cache_folder() if '://' in str(folder) else folder


def print_line(error, command, workdir=''):
  """Print an error of the user or the machine as one line on stderr.

  Args:
    error: an exception that has been raised.
    command: name of the command, which starts the line.
    workdir: see `describe`.

  Returns:
    The exit code; None for a bug, which is not printed, and which the caller raises again.
  """
  described = describe(error, workdir)
  if described is None:
    return None
  line, code = described
  print(printable(redacted(f'{command}: {as_called(" ".join(line.split()))}')), file=sys.stderr)
  return code


def system_fault(error):
  """Return the Fault that caused an exception (an OSError or a library's equivalent), or None."""
  while error is not None:
    if isinstance(error, OSError) and error.errno in MACHINE:
      return Fault(error.errno, str(error.filename or ''))
    module = type(error).__module__
    if type(error) is ValueError and (match := TENSORSTORE.search(str(error))):
      if int(match[1]) in MACHINE:
        return Fault(int(match[1]), '')
    elif module.startswith('tensorflow.') and (match := TENSORFLOW.search(str(error))):
      return Fault(REASONS[match[2]], match[1])
    error = error.__cause__
  return None


def checkpoint_status(folder):
  """Return the clause for `describe_fault` that says whether a restart finds a checkpoint.

  Args:
    folder: workdir of the run, or the folder of its checkpoints.
  """
  if '://' in str(folder):  # a bucket, which may not answer
    return 'the same command resumes from the newest checkpoint'
  try:
    exists = any('manifest.json' in files and os.path.basename(parent)[:1].isdigit()
                 for parent, _, files in os.walk(folder, onerror=_raise))
  except FileNotFoundError:
    exists = False
  except OSError:  # it cannot be read now, but its content is unchanged; `Path.glob` would ignore the error
    exists = True
  return 'the newest checkpoint is valid' if exists else 'there is no checkpoint yet'


def _raise(error):
  raise error


def _exhausted(error):
  """The line for an error because memory, threads or processes are exhausted, or None."""
  if isinstance(error, BlockingIOError) or (type(error) is RuntimeError and 'start new thread' in str(error)):
    return 'the system cannot start more threads or processes: raise their limit (ulimit -u) and start again'
  memory = isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
  if memory or (isinstance(error, ImportError) and 'failed to map segment' in str(error)):
    return (f'out of memory ({str(error) or type(error).__name__}): give the process more (ulimit -v, the '
            'limit of the job), or use a smaller model or batch')
  if type(error).__name__ == 'JaxRuntimeError' and NO_MEMORY.search(str(error)):
    return (f'out of memory ({str(error).partition(chr(10))[0]}): use a smaller config.train.microbatch_size '
            'or config.eval.batch_size, or more devices; python -m gptjax.plan shows what fits')
  return None


def describe_fault(fault, path, status):
  """Return the line about a Fault.

  Args:
    fault: the Fault.
    path: of the file that could not be written or read.
    status: what a restart finds, see `checkpoint_status`.
  """
  if fault.number in (errno.ENOSPC, errno.EDQUOT):
    problem = f'no space left on the disk of {path}'
    if fault.number == errno.EDQUOT:
      problem += ' (quota)'
  else:
    only_written = fault.number in (errno.EROFS, errno.EFBIG)
    problem = f'cannot {"write" if only_written else "write or read"} {path}: {os.strerror(fault.number)}'
  return f'{problem}: {MACHINE[fault.number]} and start again; {status}'


_covered = []  # functions of an exception: whether a line of gptjax covers it


def quiet_libraries(*covered):
  """Stop Orbax from logging stacks of errors that it also raises and `describe` covers.

  Also suppress the message that TensorStore prints for each array that it could not write.

  Args:
    covered: functions of an exception: whether it is such an error, beside those of the machine.
  """
  _covered.extend(function for function in (system_fault, *covered) if function not in _covered)
  for name in ('absl', 'asyncio'):
    logging.getLogger(name).addFilter(_is_new)
  if sys.unraisablehook is not _unraisable_hook:
    _unraisable_hook.previous, sys.unraisablehook = sys.unraisablehook, _unraisable_hook


def _is_new(record):
  error = record.exc_info[1] if record.exc_info else None
  return not (error and any(function(error) for function in _covered))


def _unraisable_hook(raised):
  if not (raised.exc_type is RuntimeError and str(raised.exc_value) == 'Event loop is closed'):
    _unraisable_hook.previous(raised)
