"""Standard output and standard error of a command; errors there do not end a run.

A reader can exit (`2>&1 | head -1`), a terminal can close, and the disk of a log can fill up. None of these
may end a run or change its exit code. So a command replaces `sys.stderr`, and `sys.stdout` unless it has the
result of the command, by a stream that reports its first OSError on the other stream and then writes to
/dev/null. The file descriptor is redirected too: libraries in C++ write to it, and Python flushes its buffers
at exit.

If stdout has the result, the command exits when it has no reader (`| head`), with 141 as if by SIGPIPE. The
signal itself stays ignored, Python's default, because it does not distinguish stdout from stderr or a socket.

Untrusted text must not act on a terminal: everything that a command writes is `printable`, except for
`write_generated`, and URLs in messages are `redacted`.
"""

import atexit
import contextlib
import os
import re
import sys
import traceback

from gptjax.command import colors
from gptjax.text.printable import printable
from gptjax.text.redacted import redacted

NO_READER = 128 + 13  # exit code of a command whose stdout has no reader, as a shell shows SIGPIPE

# What tqdm writes first: a return to the start of the line, or only movements to other lines.
_CURSOR_MOVES = re.compile(r'\r|(?:\n|\x1b\[A)+\Z')


class _PrintableStream:
  """A text stream that makes text printable; it delegates everything but writing."""

  def __init__(self, stream, name):
    self._stream, self._name = stream, name

  def write(self, text):
    moves = match[0] if (match := _CURSOR_MOVES.match(text)) else ''
    safe = moves + printable(self._filtered(text[len(moves):]), '\n\t')
    self._attempt(lambda: self._stream.write(safe))
    return len(text)

  def writelines(self, lines):
    for line in lines:
      self.write(line)

  def flush(self):
    self._attempt(self._stream.flush)

  def __getattr__(self, name):
    return getattr(self._stream, name)

  def _attempt(self, work):
    try:
      work()
    except OSError as error:
      self._failed(error)

  def _discard(self):
    """Redirect buffered and later output to /dev/null."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, self._stream.fileno())
    os.close(devnull)
    self._stream.flush()


class _GuardedStream(_PrintableStream):
  """Also redacts URLs, and never raises OSError."""

  def _filtered(self, text):
    return redacted(text)

  def _failed(self, error):
    self._discard()
    other = sys.stdout if self._name == 'stderr' else sys.stderr
    if type(other) is _GuardedStream:  # else the other stream is reserved for the result
      other.write(f'gptjax: {self._name} cannot be written ({error.strerror}): continuing without it\n')
      other.flush()


class _ResultStream(_PrintableStream):
  """Standard output if it has the result of the command."""

  def _filtered(self, text):
    return text  # a result can be a text with URLs

  def _failed(self, error):
    if not isinstance(error, BrokenPipeError):
      raise error
    self._discard()
    sys.exit(NO_READER)


def protect(stdout_is_result):
  """Make the standard streams of this process safe to write to; call it before any file is opened.

  Args:
    stdout_is_result: whether the result of the command goes to stdout; then an error there is an error of the
      command, and the process exits with NO_READER when stdout has no reader.
  """
  for number, name in enumerate(('stdin', 'stdout', 'stderr')):
    if getattr(sys, name) is None:  # closed, as by `2>&-`: else the next opened file would get its descriptor
      if not _is_open(number):
        os.open(os.devnull, os.O_RDWR)  # takes the lowest free descriptor, which is this one
      setattr(sys, name, open(os.devnull, 'w' if number else 'r'))
  stdout_class = _ResultStream if stdout_is_result else _GuardedStream
  for name, stream_class in ('stdout', stdout_class), ('stderr', _GuardedStream):
    if not isinstance(getattr(sys, name), _PrintableStream):
      setattr(sys, name, stream_class(getattr(sys, name), name))
  if stdout_is_result:
    atexit.register(_flush_result)


def _flush_result():
  """Flush the buffer before Python exits, which would show an error as a traceback."""
  try:
    sys.stdout.flush()
  except SystemExit as end:
    os._exit(end.code)
  except OSError:  # Python fails again, and exits with 120
    pass


def _is_open(number):
  try:
    os.fstat(number)
  except OSError:
    return False
  return True


def write_colored(text, stream):
  """Write a text with colour codes to a standard stream.

  On a terminal that shows colours nothing is escaped: the caller makes untrusted parts printable.
  """
  if colors.enabled(stream) and isinstance(stream, _PrintableStream):
    stream._attempt(lambda: stream._stream.write(text))
  else:
    stream.write(text)


def write_generated(text):
  """Write generated text to stdout and flush: unchanged to pipes and files, printable on a terminal."""
  out = sys.stdout
  if out.isatty():
    out.write(printable(text, '\n\t'))
  else:
    (out._stream if isinstance(out, _PrintableStream) else out).write(text)
  out.flush()


def log(line, warning=False):
  """Write a line to stderr, above the progress bars of a terminal; a warning is yellow there."""
  from tqdm import tqdm
  text = printable(redacted(line), '\n\t')
  with tqdm.external_write_mode(file=sys.stderr):
    write_colored((colors.colored(text, sys.stderr, 'yellow') if warning else text) + '\n', sys.stderr)
  sys.stderr.flush()


@contextlib.contextmanager
def optional(what, on_failure=lambda: None):
  """Context for optional output (TensorBoard, plots, reports): a failure is only reported as a warning.

  All exceptions count, because a library can raise anything if a file cannot be written. An exception that
  the machine has not caused is shown with its traceback.

  Args:
    what: start of the warning.
    on_failure: called after a failure, to disable further attempts.
  """
  from gptjax import errors
  try:
    yield
  except Exception as error:
    on_failure()
    reason = str(error)
    if fault := errors.system_fault(error):
      reason = f'{os.strerror(fault.number)} {fault.path}'
    elif not (isinstance(error, errors.InputError | OSError) or type(error).__module__.startswith('wandb.')):
      traceback.print_exception(error)
      reason = f'{type(error).__name__}: {error}'
    log(f'{what} failed, continuing without: {" ".join(reason.split())}', warning=True)

