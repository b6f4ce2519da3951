"""The processes of a run as one: they start together, agree, and end together.

A run of several processes has a key-value store and barriers, JAX's coordination service, which process 0
keeps. A thread in each process reads the news there, whatever its main thread waits for: why another one
ends, that all are to stop, or a roll call. With one process nothing here does anything.

No other file knows how processes talk to each other. The client is JAX's own, behind a private import: with
the public functions a barrier has no time limit.
"""

import contextlib
import ctypes
import faulthandler
import itertools
import json
import math
import os
import signal
import sys
import threading
import time
import traceback

import jax
from jax._src import distributed

from gptjax import errors
from gptjax.command import shutdown
from gptjax.errors import LOST, InputError, LostProcess
from gptjax.parallel import cluster, rendezvous, wire
from gptjax.parallel.coordinator import start_jax
from gptjax.text.printable import printable

START_LIMIT = 60        # seconds for all processes to be there
LIMIT = 600             # seconds for what takes process 0 a moment
HEARTBEAT_LIMIT = 100   # seconds after which JAX gives up a process that is dead, and ends the others
ROLL_CALL_LIMIT = 3          # seconds in which a process that is well answers
POLL = 0.5              # seconds between two looks at the news
STOPPING = 'stopping after this step, then saving; a second signal ends the process at once'

NEWS, HERE, HEARD, STOP = (f'gptjax/{name}/' for name in ('news', 'here', 'heard', 'stop'))

_names = []             # host of each process; empty: this one is alone
_lost = set()           # numbers of those that did not answer a roll call
_calls = itertools.count()  # of told and compare: all processes make the same ones, in the same order
_rolls = itertools.count()  # of roll calls, which each process makes for itself
_ended = threading.Event()
_silent = threading.Event()  # the thread that hears the news has ended
_stop = None            # the Stop of this process


def is_multiprocess():
  """Whether the run has more than one process."""
  return bool(_names)


def start(coordinator=None, num_processes=None, process_id=None, workdir=''):
  """Joins the processes of the run; call it before anything else touches JAX.

  On Cloud TPU, under Slurm, Open MPI and in a GKE JobSet nothing need be given; without any of these, and
  with no argument, the process is alone (see `cluster`).

  Args:
    coordinator: 'HOST:PORT' of process 0.
    num_processes, process_id: how many there are, and which this one is.
    workdir: of the run, where its token may lie (see `run_token`).

  Raises:
    ValueError: what is wrong with the arguments, or with environment variables.
    LostProcess: names the processes that are missing after a minute.
  """
  run = cluster.detect_here(coordinator, num_processes, process_id)
  if run is None:
    return
  try:
    names, bind, connections = rendezvous.connect(run.address, run.num_processes, run.process_id, START_LIMIT,
                                                  workdir)
  except rendezvous.Stopped as stopped:
    _end_with(*stopped.args)
  except LostProcess as error:
    why = f'. {run.source} made this one of {run.num_processes} processes; {cluster.SINGLE_PROCESS_HINT}'
    raise LostProcess(f'{error}{why if run.source else ""}') from None
  _catch_abort(run.process_id, run.num_processes)  # JAX aborts the process when its start fails
  with rendezvous.watch_connections(connections, names, _end_with):
    start_jax(run, bind, START_LIMIT, HEARTBEAT_LIMIT)
  _names[:] = names
  threading.Thread(target=_listen, daemon=True).start()


def process_name(i):
  """How a message names a process."""
  return rendezvous.process_name(i, _names)


def on_process_0(work, limit=LIMIT):
  """What `work()` gives on process 0, on all processes; the others wait. All call it, in the same order.

  Args:
    work: function without arguments whose result JSON can hold.
    limit: seconds that the others wait.

  Raises:
    LostProcess: it took longer.
  """
  if not is_multiprocess():
    return work()
  key = f'gptjax/told/{next(_calls)}'
  if _me() == 0:
    text = json.dumps(work())
    _client().key_value_set(key, text)
    return json.loads(text)
  try:
    return json.loads(_client().blocking_key_value_get(key, round(1000 * limit)))
  except jax.errors.JaxRuntimeError as error:
    if 'DEADLINE' not in str(error):
      raise
    raise LostProcess(f'{process_name(0)} has not come to the same point within {limit:.0f} s') from None


def barrier(name, limit=LIMIT):
  """Waits until all processes have called it with this name (used once in a run).

  Raises:
    LostProcess: names those that have not come within `limit` seconds.
  """
  if is_multiprocess():
    gather(name, '', limit, range(len(_names)))


def gather(name, text, limit, who):
  """Waits like `barrier` for some of the processes, which each bring a text.

  Args:
    name: of the barrier, used once in a run.
    text: that of this process.
    limit: seconds.
    who: numbers of the processes that take part, this one among them.

  Returns:
    {number: text} of all of them.

  Raises:
    LostProcess: names those that have not come within `limit` seconds.
  """
  there = f'gptjax/at/{name}/'
  _client().key_value_set(f'{there}{_me()}', text)
  absent = _absent(there, limit, who)
  if absent:
    raise LostProcess(f'{" and ".join(map(process_name, absent))} did not reach the barrier "{name}" within '
                      f'{limit:.0f} s')
  return {int(key.rpartition('/')[2]): text for key, text in _client().key_value_dir_get(there)}


def compare(facts):
  """Makes sure that a few facts are the same in all processes.

  Args:
    facts: {field: value}, values that JSON can hold.

  Raises:
    ValueError: names process, host, field and both values.
  """
  if not is_multiprocess():
    return
  first, mine = on_process_0(lambda: facts), json.loads(json.dumps(facts))
  me = _me()
  for field in sorted(first.keys() | mine.keys()):
    if first.get(field) != mine.get(field):
      raise InputError(f'{field} is {mine.get(field)!r} in {process_name(me)}, but {first.get(field)!r} in '
                       f'{process_name(0)}: all processes need the same')
  barrier(f'compare {next(_calls)}', START_LIMIT)


class Stop:
  """Whether the run should stop, because any of its processes has received a signal (see `shutdown`).

  All processes call `requested` equally often: at every step and wherever else they can stop. It becomes True
  at the same call on all of them. Only a run that has to stop waits for this agreement: the listening thread
  of each process blocks the next call of `requested`, publishes the number of calls so far, and takes the
  largest number of all processes plus one. If a process has already made its last call, no process stops
  early, because all of them are finishing.
  """

  def __init__(self):
    self.lock = threading.Lock()
    self.calls, self.last = 0, math.inf
    self.agreed = False

  def requested(self):
    with self.lock:
      self.calls += 1
      if shutdown.signalled() and not is_multiprocess():
        self.last = min(self.last, self.calls)
      return self.calls >= self.last

  def agree(self):
    """In the listening thread of each process, once."""
    with self.lock:
      _client().key_value_set(f'{STOP}{_me()}', str(self.calls))
      while _absent(STOP, POLL):
        if _ended.is_set():
          return
        _obey(_news())
      self.last = 1 + max(int(calls) for _, calls in _client().key_value_dir_get(STOP))
      self.agreed = True


@contextlib.contextmanager
def stop_signals():
  """The Stop of this process.

  Several processes keep it to their end: one that has left the block still answers those that are in it, and
  the calls of `requested` are counted through all blocks.
  """
  global _stop
  if not (_stop and is_multiprocess()):
    _stop = Stop()
  with shutdown.catching(STOPPING):
    yield _stop


def end_all(line, code):
  """Ends all processes because this one has been told to stop where there is nothing to save."""
  _tell_and_end(line, code)


def fail(error, workdir):
  """Ends all processes because of an exception in this one; with one process it returns.

  The cause is the last line that each of them writes. An exception that comes from the loss of another
  process is not the cause: then the cause is whoever does not answer.
  """
  if not is_multiprocess():
    return
  words = errors.describe(error, workdir)
  first_line = str(error).strip().partition('\n')[0]
  line, code = words or (f'{type(error).__name__}: {first_line}', errors.BUG)
  if not words and not _within(2 * ROLL_CALL_LIMIT, lambda: _cause(4 * POLL)):
    # From a library: it may be that a collective failed because another process is gone.
    absent = roll_call()
    _lost.update(absent)
    if absent:
      line, code = lost_message(absent), LOST
    else:
      traceback.print_exception(error)
  _tell_and_end(line, code)


def lost_message(absent):
  """The message about processes that do not answer."""
  return rendezvous.lost_message(absent, _names)


def roll_call(limit=ROLL_CALL_LIMIT):
  """The numbers of the processes that do not answer within so many seconds; it may take twice as long."""
  if not is_multiprocess():
    return []
  number = f'{_me()}-{next(_rolls)}'
  def call():
    _client().key_value_set(f'{NEWS}roll-{number}', number)
    return _absent(f'{HERE}{number}/', limit)
  absent = _within(2 * limit, call)
  return [0] if absent is None else absent  # None: who keeps the store does not answer


def end_all_hung(line, absent):
  """Ends all processes because this one has seen no progress for too long; names who does not answer."""
  if is_multiprocess():
    _lost.update(absent)
    line += (f'; {lost_message(absent)}' if absent
             else '; all processes answer: the stacks above show where they wait')
    _tell_and_end(line, LOST, stacks=True)
  _end_with(line, LOST)


def shut_down():
  """Waits for all processes and takes leave, before a process ends with all done."""
  if is_multiprocess():
    barrier('end', limit=24 * 3600)  # process 0 may have an export to write; its death would be noticed
    _ended.set()
    _silent.wait(2 * ROLL_CALL_LIMIT)  # it asks the store, which is about to go
    signal.signal(signal.SIGABRT, signal.SIG_DFL)
    jax.distributed.shutdown()


def _within(limit, work):
  """`work()`, or None if that takes longer than so many seconds: a call to a store that is stuck may."""
  done = []
  thread = threading.Thread(target=lambda: done.append(work()), daemon=True)
  thread.start()
  thread.join(limit)
  return done[0] if done else None


def _client():
  return distributed.global_state.client


def _me():
  """The number of this process; `jax.process_index` would start the devices, and with them wait for all."""
  return distributed.global_state.process_id


def _absent(folder, limit, who=None):
  """Those of `who` (None: of all) that have set no key in a folder of the store within so many seconds."""
  deadline, pause = time.monotonic() + limit, 0.005
  while True:
    there = {int(key.rpartition('/')[2]) for key, _ in _client().key_value_dir_get(folder)}
    absent = [i for i in who or range(len(_names)) if i not in there | _lost]
    if not absent or time.monotonic() > deadline:
      return absent
    time.sleep(pause)
    pause = min(1.5 * pause, 0.25)  # short waits end at once, and long ones leave process 0 in peace


def _listen():
  """The thread that hears the news."""
  while not _ended.wait(POLL):
    news = _news()
    _obey(news)
    if news.get(f'{NEWS}stop') in map(str, range(len(_names))):
      shutdown.handle_remote_stop(f'{process_name(int(news[f"{NEWS}stop"]))} has been told to stop')
      if _stop and not _stop.agreed:
        _stop.agree()
    elif shutdown.signalled():
      _client().key_value_set(f'{NEWS}stop', str(_me()), allow_overwrite=True)
  _silent.set()


def _obey(news):
  """Answers roll calls, and ends where another process has told why it ends."""
  me = _me()
  for key, number in news.items():
    if '/roll-' in key:
      _client().key_value_set(f'{HERE}{number}/{me}', '', allow_overwrite=True)
  cause = _parsed_cause(news)
  if cause and cause[0] != me:  # its own it tells itself
    _hear(*cause)


def _cause(limit):
  """What was told as the cause (arguments of `_hear`) within so many seconds; None: nothing was."""
  deadline = time.monotonic() + limit
  while True:
    cause = _parsed_cause(_news())
    if cause or time.monotonic() > deadline:
      return cause
    time.sleep(0.1)


def _parsed_cause(news):
  """The cause in the news, arguments of `_hear`; None: there is none, or not one that a process gives."""
  try:
    who, line, code, stacks = json.loads(news.get(f'{NEWS}cause', ''))
  except (ValueError, TypeError, RecursionError):
    return None
  if who not in range(len(_names)) or not wire.is_cause(code):
    return None
  return who, printable(line), code, bool(stacks)


def _news():
  try:
    return dict(_client().key_value_dir_get(NEWS))
  except jax.errors.JaxRuntimeError:
    _end_with(lost_message([0]), LOST)


def _tell_and_end(line, code, stacks=False):
  """Tells all others why, unless one of them was first; then that is the cause."""
  me = _me()
  def tell():
    cause = _cause(0)
    if not cause:
      with contextlib.suppress(jax.errors.JaxRuntimeError):  # someone was faster
        _client().key_value_set(f'{NEWS}cause', json.dumps([me, line, code, stacks]))
      cause = _cause(0)
    if cause and cause[0] != me:
      _hear(*cause)
    _keep_store()
  if 0 not in _lost:  # else there is no store to tell it to
    _within(2 * ROLL_CALL_LIMIT, tell)
  _end_with(line, code)


def _hear(who, line, code, stacks):
  """Ends this process because another one told why it ends."""
  if stacks:
    faulthandler.dump_traceback()
  with contextlib.suppress(jax.errors.JaxRuntimeError):  # the store may be gone by now
    _client().key_value_set(f'{HEARD}{_me()}', '', allow_overwrite=True)
  _keep_store()
  _end_with(line if code == LOST else f'{process_name(who)} has ended all: {line}', code)


def _keep_store():
  """Process 0 keeps the store until the others have heard, or cannot be expected to."""
  if _me() == 0:
    _client().key_value_set(f'{HEARD}0', '', allow_overwrite=True)
    _absent(HEARD, 4 * POLL + 1)


def _end_with(line, code):
  """The last line of this process; it does not wait for threads, which may wait for others for ever."""
  sys.stdout.flush()
  print(f'\ngptjax: {line}' if sys.stderr.isatty() else f'gptjax: {line}', file=sys.stderr, flush=True)
  os._exit(code)


def _catch_abort(me, n):
  """Gives the abort by which JAX ends a process that has lost another one a last line and an exit code."""
  @ctypes.CFUNCTYPE(None, ctypes.c_int)
  def aborted(number):
    del number
    if _names:
      faulthandler.dump_traceback()
    who = process_name(me) if _names else f'process {me} of {n}'
    lost = lost_message([0]) if me and _names else (
      'another process is dead, or the network between them fails: see the logs of all. Start again')
    _end_with(f'{who} has lost contact: {lost}', LOST)
  libc = ctypes.CDLL(None)
  libc.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
  libc.signal(signal.SIGABRT, ctypes.cast(aborted, ctypes.c_void_p))
  _catch_abort.kept = aborted  # for as long as the process lives
