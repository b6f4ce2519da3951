"""Signals that stop a process: SIGTERM, Ctrl-C (SIGINT), SIGHUP and SIGUSR1.

The first signal is acknowledged with one line as soon as it arrives. Where nothing can be lost it also ends
the process (`exit_on_signal`). Elsewhere the job reads `signalled` and stops after it has saved
(`defer_signal`), or the main thread leaves its `with` and `try` blocks, which end what they have started
(`unwind_on_signal`). A second signal ends the process by that signal. SIGHUP counts once, because the shell
and the kernel both send it when a terminal closes. SIGUSR1 neither counts as a second signal nor makes the
next signal the second: a batch system sends it before another signal, or to a script that forwards it to
processes that also get it from the batch system. In a Slurm job SIGTERM counts once too: Slurm sends it
twice within milliseconds when it preempts a job, and again at the time limit; later it kills the processes.

Python runs signal handlers in the main thread between two bytecode instructions, so not while that thread
compiles a program or loads a library. Therefore the handlers here do nothing: Python's C handler also writes
the signal number to a pipe (`signal.set_wakeup_fd`), which a thread reads.

Commands call `catch` (by `startup.begin`) before any large import, so this module imports only small ones.
"""

import contextlib
import ctypes
import os
import select
import signal
import sys
import threading

from gptjax.text.printable import printable

STOPS = signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1
STOPPED = 75  # exit code of a stopped run: nothing is lost, the same command resumes it
NAMES = {signal.SIGINT: 'Ctrl-C'}

_libc = ctypes.CDLL(None)
_libc.signal.argtypes, _libc.signal.restype = [ctypes.c_int, ctypes.c_void_p], ctypes.c_void_p
_DEFAULT, _IGNORE = 0, 1  # as <signal.h> has them

_lock = threading.RLock()  # guards the variables below
_command = ''              # name before each line; empty: this process has not called `catch`
_caught = ()               # the signals that are caught
_first = None              # the first signal
_action = None             # its effect: (line, exit code), a line, or a line that is an _Unwind
_acknowledged = threading.Event()  # the line about the first signal has been printed
_held = 0                  # number of open blocks of `block_signals`
_leave_blocks = lambda: None  # of `unwind_on_signal`
_end_others = None         # function of (line, exit code) that ends all processes of the run, with this one


def catch(command, line, code=None):
  """Catch the signals until the process ends; call it in the main thread. Only the first call has an effect.

  Args:
    command: its name, printed before each line.
    line, code: as for `exit_on_signal`, the initial action.
  """
  global _command, _caught, _action
  if _command:
    return
  _command, _caught, _action = command, _signals_to_catch(), (line, code)
  reader, writer = os.pipe()
  os.set_blocking(writer, False)
  signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
  threading.Thread(target=_listen, args=(reader,), daemon=True).start()
  for number in _caught:
    signal.signal(number, lambda number, frame: None)
    signal.siginterrupt(number, False)
  os.register_at_fork(after_in_child=_reset_in_child)


def exit_on_signal(line, code=STOPPED):
  """From now on the first signal ends the process; if it has already arrived, end the process now.

  Args:
    line: what is lost or saved, and what the same command does next.
    code: exit code; None: 128 + the signal number, as in a shell.
  """
  global _action
  with _lock:
    _action = line, code
    if _command and _first:
      _end(_first)


def resume_message(step):
  """Return the line for `exit_on_signal` when all work is in the checkpoint of `step` (0: no work yet)."""
  if not step:
    return 'stopped before the first step; nothing is lost: run the same command again'
  return f'stopped after step {step}, which is saved: run the same command again to resume'


def defer_signal(line):
  """From now on the first signal is acknowledged with this line and sets `signalled`."""
  global _action
  with _lock:
    _action = line


class _Unwind(str):
  """A line after which the main thread leaves its blocks."""


def unwind_on_signal(line):
  """From now on the first signal is acknowledged with this line and raises SystemExit in the main thread.

  For a command that has started processes or created temporary files: its `finally` blocks clean them up.
  The exit code is 128 + the signal number. Call it in the main thread; `exit_on_signal` or `defer_signal`
  replaces it.
  """
  global _leave_blocks
  arrived, unwound = [], []

  def leave_blocks(number=None, frame=None):
    del frame
    arrived.extend([number] if number else [])
    if arrived and isinstance(_action, _Unwind) and not _held and not unwound:
      unwound.append(True)  # only once: the blocks must not be interrupted
      _acknowledged.wait(1)  # for the line, which another thread prints
      sys.exit(128 + arrived[0])

  for number in _caught:  # unlike in `catch`, blocking system calls are interrupted
    signal.signal(number, leave_blocks)
  defer_signal(_Unwind(line))
  _leave_blocks = leave_blocks
  leave_blocks(_first if _command else None)


def signalled():
  """Whether this process has received a stop signal."""
  return _first is not None


def set_end_others(function):
  """Set the function of (line, exit code) with which `exit_on_signal` ends a run of several processes."""
  global _end_others
  _end_others = function


def handle_remote_stop(line):
  """Handle a stop request of another process: end all processes if `exit_on_signal` is in force here."""
  with _lock:
    if _end_others and isinstance(_action, tuple):
      _end_others(f'{line}: {_action[0]}', _action[1])


def ignore_signals():
  """Ignore the signals, because the process is about to end and its exit code is decided."""
  if _command and not _first:
    for number in _caught:  # SIG_IGN, because Python resets signals with handlers to the default at exit
      signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def catching(line):
  """Catch the signals inside the block, for a job that is called as a function; no effect in a command.

  The first signal is acknowledged with `line` and sets `signalled`; it never ends the process.
  """
  global _first
  if _command:
    yield
    return
  _first = None
  def handle(number, frame):
    global _first
    del frame
    if _is_repeated(number):
      return
    if _is_second():
      signal.signal(number, signal.SIG_DFL)
      signal.raise_signal(number)
    _first = number
    _print(f'gptjax: {_name(number)}: {line}')
  before = {number: signal.signal(number, handle) for number in _signals_to_catch()}
  try:
    yield
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)


@contextlib.contextmanager
def block_signals():
  """Block Ctrl-C, SIGHUP and SIGUSR1 in the processes that are started inside the block.

  For worker processes, which end when their parent ends: only the parent handles a signal to the process
  group. A signal that arrives inside the block raises (see `unwind_on_signal`) at the end of the block, when
  the new process has been assigned to a variable: put the block into the `try` whose `finally` ends that
  process.
  """
  global _held
  before = signal.pthread_sigmask(signal.SIG_BLOCK, set(STOPS) - {signal.SIGTERM})
  _held += 1
  try:
    yield
  finally:
    _held -= 1
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    _leave_blocks()


def _signals_to_catch():
  """All stop signals, except SIGHUP under nohup and SIGINT in a background process of a script."""
  return [number for number in STOPS if number not in (signal.SIGHUP, signal.SIGINT)
          or signal.getsignal(number) != signal.SIG_IGN]


def _is_repeated(number):
  """Whether a signal repeats an earlier one and has no effect."""
  return _first and (number == signal.SIGUSR1 or (number == _first and _counts_once(number)))


def _counts_once(number):
  """Whether a signal that arrives again has no effect."""
  return number == signal.SIGHUP or (number == signal.SIGTERM and 'SLURM_JOB_ID' in os.environ)


def _is_second():
  """Whether a signal that is not repeated counts as the second one, which ends the process."""
  return _first and _first != signal.SIGUSR1


def _reset_in_child():
  """In a forked child process: its signals must not reach the pipe."""
  signal.set_wakeup_fd(-1)
  for number in _caught:
    signal.signal(number, signal.SIG_DFL)


def _listen(reader):
  """The thread that reads the signal numbers from the pipe."""
  while True:
    for number in os.read(reader, 64):
      if number in STOPS:
        _handle(signal.Signals(number))


def _handle(number):
  global _first
  if _is_repeated(number):
    return
  if _is_second():
    _libc.signal(number, _DEFAULT)
    os.kill(os.getpid(), number)
    return
  if number != signal.SIGUSR1:
    for stop in _caught:  # in C: the next signal must end the process even if Python cannot run
      ignored = stop == signal.SIGUSR1 or (stop == number and _counts_once(number))
      _libc.signal(stop, _IGNORE if ignored else _DEFAULT)
  if number == signal.SIGHUP:
    _detach()
  with _lock:
    _first = number
    if isinstance(_action, tuple):
      _end(number)
    _print(f'{_command}: {_name(number)}: {_action}')
    _acknowledged.set()


def _end(number):
  """End the process, and the others of its run, because of a signal."""
  line, code = _action
  if _end_others:
    _print(f'{_command}: {_name(number)}: terminating all processes of the run')
    _end_others(f'{_name(number)}: {line}', code)
  _print(f'{_command}: {_name(number)}: {line}')
  os._exit(128 + number if code is None else code)


def _name(number):
  return NAMES.get(number) or signal.Signals(number).name


def _print(line):
  """Write a line to stderr, bypassing Python's buffers, whose locks the main thread may hold."""
  with contextlib.suppress(OSError):  # stderr has no reader
    os.write(2, f'{chr(10) * os.isatty(2)}{printable(line)}\n'.encode())


def _detach():
  """Redirect stdout and stderr to /dev/null if their terminal is closed: else the next write would fail."""
  for fd in (1, 2):
    poll = select.poll()
    poll.register(fd, 0)  # poll always reports hangup, error and a closed descriptor
    if poll.poll(0):
      nowhere = os.open(os.devnull, os.O_WRONLY)
      os.dup2(nowhere, fd)
      os.close(nowhere)
