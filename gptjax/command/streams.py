"""Standard output and standard error of a command, which only tell of a run.

A reader may go away (`2>&1 | head -1`), a terminal close, the disk of a log fill up. None of that may end a
run or change its exit code. So a command replaces `sys.stderr`, and `sys.stdout` unless that is its product,
by a stream that reports its first OSError on the other one and from then on writes to /dev/null. The file
descriptor is redirected too: libraries in C++ write to it, and Python flushes at exit what is still buffered.

Where stdout is the product, the command ends once nobody reads it (`| head`), with 141 as if by SIGPIPE. The
signal itself stays ignored, as Python has it: it would not tell stdout from stderr or from a socket.

Nor may text of others act on a terminal: whatever a command writes is `printable`, with `write_generated` as
the one exception, and URLs in messages are `redacted`.
"""

import atexit
import contextlib
import os
import re
import sys
import traceback

from gptjax.text.printable import printable
from gptjax.text.redacted import redacted

UNREAD = 128 + 13  # exit code of a command whose product nobody reads any more: as a shell shows SIGPIPE

# How tqdm begins what it writes: to the start of the line; or lines up and down, and nothing more.
_OF_BARS = re.compile(r'\r|(?:\n|\x1b\[A)+\Z')


class _Messages:
  """A text stream of printable text; everything but writing is that of the stream below."""

  def __init__(self, stream, name):
    self._stream, self._name = stream, name

  def write(self, text):
    moves = found[0] if (found := _OF_BARS.match(text)) else ''
    shown = moves + printable(self._shown(text[len(moves):]), '\n\t')
    self._attempt(lambda: self._stream.write(shown))
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
    """Sends what is buffered, and all that follows, to /dev/null."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, self._stream.fileno())
    os.close(nowhere)
    self._stream.flush()


class _Guarded(_Messages):
  """The same with redacted URLs, and it never raises OSError."""

  def _shown(self, text):
    return redacted(text)

  def _failed(self, error):
    self._discard()
    other = sys.stdout if self._name == 'stderr' else sys.stderr
    if type(other) is _Guarded:  # else it is for the product of the command alone
      other.write(f'gptjax: {self._name} cannot be written ({error.strerror}): continuing without it\n')
      other.flush()


class _Product(_Messages):
  """Standard output where it is what the command is for."""

  def _shown(self, text):
    return text  # a product can be a text with URLs in it

  def _failed(self, error):
    if not isinstance(error, BrokenPipeError):
      raise error
    self._discard()
    sys.exit(UNREAD)


def protect(product):
  """Makes the standard streams of this process safe to write to; call it before anything opens a file.

  Args:
    product: whether stdout is what the command is for; then an error there is an error of the command, and
      where nobody reads it any more the process ends with UNREAD.
  """
  for number, name in enumerate(('stdin', 'stdout', 'stderr')):
    if getattr(sys, name) is None:  # closed, as by `2>&-`: else the next file opened would get its number
      if not _is_open(number):
        os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
      setattr(sys, name, open(os.devnull, 'w' if number else 'r'))
  for name, guard in ('stdout', _Product if product else _Guarded), ('stderr', _Guarded):
    if not isinstance(getattr(sys, name), _Messages):
      setattr(sys, name, guard(getattr(sys, name), name))
  if product:
    atexit.register(_flush_product)


def _flush_product():
  """Writes what is still buffered when Python ends, which itself would show an error as a traceback."""
  try:
    sys.stdout.flush()
  except SystemExit as end:
    os._exit(end.code)
  except OSError:  # Python meets it again, and exits with 120
    pass


def _is_open(number):
  try:
    os.fstat(number)
  except OSError:
    return False
  return True


def write_generated(text):
  """Writes text of a model to stdout, at once: as it is into pipes and files, printable on a terminal."""
  out = sys.stdout
  if out.isatty():
    out.write(printable(text, '\n\t'))
  else:
    (out._stream if isinstance(out, _Messages) else out).write(text)
  out.flush()


def log(line):
  """Writes a line to stderr, above the progress bars of a terminal."""
  from tqdm import tqdm
  tqdm.write(printable(redacted(line), '\n\t'), file=sys.stderr)
  sys.stderr.flush()


@contextlib.contextmanager
def optional(what, on_failure=lambda: None):
  """A block for what only tells of a run (TensorBoard, plots, reports): if it fails, a warning and no more.

  Every kind of exception counts, for a library can raise anything where a file cannot be written; one that
  the machine has not caused is shown with its traceback.

  Args:
    what: begins the warning.
    on_failure: function that is called then, to not try it again.
  """
  from gptjax import errors
  try:
    yield
  except Exception as error:
    on_failure()
    reason = str(error)
    if fault := errors.system_fault(error):
      reason = f'{os.strerror(fault.number)} {fault.path}'
    elif type(error).__module__.startswith('tensorflow.'):
      reason = re.sub(r'{{.*?}}|\[Op:.*', '', reason)
    elif not isinstance(error, errors.InputError | OSError):
      traceback.print_exception(error)
      reason = f'{type(error).__name__}: {error}'
    log(f'{what} failed, continuing without: {" ".join(reason.split())}')

