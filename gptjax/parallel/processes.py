"""The processes of a run: they start together, agree on values and decisions, and shut down together.

The processes share a key-value store and barriers, JAX's coordination service, which process 0 hosts. A
thread in each process handles control messages (see `control`). With a single process nothing here has an
effect.
"""

import contextlib
import ctypes
import faulthandler
import itertools
import json
import signal
import threading

import jax

from gptjax.command import shutdown
from gptjax.errors import LOST, InputError, LostProcess
from gptjax.parallel import cluster, control, rendezvous
from gptjax.parallel.agreement import SaveTimer, Stop
from gptjax.parallel.control import client, process_index, process_name
from gptjax.parallel.coordinator import start_jax
from gptjax.text.words import plural

START_LIMIT = 60        # seconds within which all processes must connect, and then JAX must start
LIMIT = 600             # seconds that processes wait for each other, at least (see `extend_limit`)
HEARTBEAT_LIMIT = 100   # seconds after which JAX considers a process dead, and ends the others
STOPPING = 'stopping after this step, then saving; a second signal ends the process at once'
AGREEING = 0.01         # seconds between two looks at an agreement that is not complete

_limit = LIMIT          # of on_process_0, barrier and compare
_calls = itertools.count()  # of on_process_0 and compare: all processes call these in the same order
_shutting_down = threading.Event()
_listener_ended = threading.Event()
_stop = _timer = None   # the Stop and the SaveTimer of this process


def is_multiprocess():
  """Whether the run has more than one process."""
  return bool(control.hosts)


def summary():
  """The processes and hosts of the run, for a log line: ', 8 processes on 2 hosts'; '' for one process."""
  if not is_multiprocess():
    return ''
  return (f', {plural(len(control.hosts), "process", "processes")} on '
          f'{plural(len(set(control.hosts)), "host")}')


def start(coordinator=None, num_processes=None, process_id=None, workdir='', limit=0):
  """Connect the processes of the run; call it before any other use of JAX.

  On Cloud TPU, under Slurm, Open MPI and in a GKE JobSet no argument is needed. Elsewhere, a process without
  arguments runs alone (see `cluster`).

  Args:
    coordinator: 'HOST:PORT' of process 0.
    num_processes, process_id: the number of processes, and the index of this one.
    workdir: of the run; its token may be a file there (see `run_token`).
    limit: seconds within which all processes must connect; 0: START_LIMIT.

  Raises:
    ValueError: invalid arguments or environment variables.
    LostProcess: some processes have not connected in time; the message lists them.
  """
  run = cluster.detect_here(coordinator, num_processes, process_id)
  if run is None:
    return
  try:
    hosts, bind, connections = rendezvous.connect(run.address, run.num_processes, run.process_id,
                                                  limit or START_LIMIT, workdir)
  except rendezvous.Stopped as stopped:
    control.exit_with(*stopped.args)
  except LostProcess as error:
    why = f'. {run.source} made this one of {run.num_processes} processes; {cluster.SINGLE_PROCESS_HINT}'
    raise LostProcess(f'{error}{why if run.source else ""}') from None
  _catch_abort(run.process_id, run.num_processes)  # JAX aborts the process when its start fails
  with rendezvous.watch_connections(connections, hosts, control.exit_with):
    start_jax(run, bind, START_LIMIT, HEARTBEAT_LIMIT)
  control.begin(hosts)
  threading.Thread(target=_listen, daemon=True).start()


def extend_limit(seconds):
  """Let processes wait for each other for at least so long: one may be late by the compilation of a program.

  The limit only matters for a process that is alive and hangs: nobody waits for a process that has ended.
  """
  global _limit
  _limit = max(LIMIT, seconds)


def on_process_0(work, limit=0):
  """Run `work` on process 0 and return its result on every process.

  All processes call it, in the same order; the others wait for process 0.

  Args:
    work: function without arguments whose result is a JSON value.
    limit: seconds that the other processes wait, if more than those of `extend_limit`.

  Raises:
    LostProcess: it took longer.
  """
  limit = max(limit, _limit)
  if not is_multiprocess():
    return work()
  key = f'gptjax/results/{next(_calls)}'
  if process_index() == 0:
    text = json.dumps(work())
    client().key_value_set(key, text)
    return json.loads(text)
  if (text := control.wait_for_key(key, limit)) is None:
    raise LostProcess(f'{process_name(0)} did not reach the same point within {limit:.0f} s')
  return json.loads(text)


def barrier(name, limit=None):
  """Wait until all processes have called it with this name, which is used once per run.

  Args:
    name: of the barrier.
    limit: seconds; None: those of `extend_limit`.

  Raises:
    LostProcess: some processes have not reached it within `limit` seconds; the message lists them.
  """
  if is_multiprocess():
    gather(name, '', _limit if limit is None else limit, range(len(control.hosts)))


def gather(name, text, limit, participants):
  """A barrier for some of the processes, which also exchange a text.

  Args:
    name: of the barrier, used once per run.
    text: of this process.
    limit: seconds.
    participants: indices of the processes that take part, including this one.

  Returns:
    {index: text} of all participants.

  Raises:
    LostProcess: some processes have not reached it within `limit` seconds; the message lists them.
  """
  absent, texts = control.collect(f'gptjax/at/{name}/', text, limit, participants)
  if absent:
    raise LostProcess(f'{" and ".join(map(process_name, absent))} did not reach the barrier "{name}" within '
                      f'{limit:.0f} s')
  return texts


def compare(facts):
  """Check that facts about the run are the same on all processes.

  Args:
    facts: {field: JSON value}.

  Raises:
    ValueError: a field differs; the message has the process, its host, the field and both values.
  """
  if not is_multiprocess():
    return
  expected, mine = on_process_0(lambda: facts), json.loads(json.dumps(facts))
  me = process_index()
  for field in sorted(expected.keys() | mine.keys()):
    if expected.get(field) != mine.get(field):
      raise InputError(f'{field} is {mine.get(field)!r} in {process_name(me)}, but {expected.get(field)!r} '
                       f'in {process_name(0)}: use the same value on all processes')
  barrier(f'compare {next(_calls)}')


@contextlib.contextmanager
def stop_signals():
  """Context manager that gives the Stop of this process.

  In a run of several processes the Stop outlives the block: a process that has left the block still answers
  those inside it, and the calls of `requested` are counted through all blocks.
  """
  global _stop
  if not (_stop and is_multiprocess()):
    _stop = Stop()
  with shutdown.catching(STOPPING):
    yield _stop


def save_timer(minutes):
  """Return the SaveTimer of this process; in a run of several processes there is one, like the Stop.

  Args:
    minutes: after which a save is due; 0: never.
  """
  global _timer
  if not (_timer and is_multiprocess()):
    _timer = SaveTimer()
  _timer.seconds = 60 * minutes
  return _timer


def shut_down():
  """Wait for all processes and shut down JAX's coordination service, before a successful exit."""
  if is_multiprocess():
    barrier('end', limit=24 * 3600)  # process 0 may still write an export; the others must not exit before
    _shutting_down.set()
    _listener_ended.wait(2 * control.ROLL_CALL_LIMIT)  # it reads the store, which is about to close
    signal.signal(signal.SIGABRT, signal.SIG_DFL)
    jax.distributed.shutdown()


def _listen():
  """The thread that handles control messages."""
  pause = control.POLL
  while not _shutting_down.wait(pause):
    messages = control.read_messages()
    control.handle_messages(messages)
    if (sender := control.stop_requested_by(messages)) is not None:
      shutdown.handle_remote_stop(f'{process_name(sender)} has received a stop signal')
    elif shutdown.signalled():
      control.request_stop()
    saves = control.save_requests(messages)
    if _timer and _timer.requests > saves:
      control.request_save(_timer.requests)
    # Neither waits for the other: another process may have seen only one of two requests.
    decisions = [(_stop, int(sender is not None)), (_timer, saves)]
    try:
      for decision, requests in decisions:
        if decision:
          decision.advance(requests)
    except jax.errors.JaxRuntimeError:
      control.exit_with(control.lost_message([0]), LOST)
    agreeing = any(decision and decision.begun > decision.agreed for decision, _ in decisions)
    pause = AGREEING if agreeing else control.POLL
  _listener_ended.set()


def _catch_abort(me, n):
  """Handle the abort by which JAX ends a process that has lost another one: write a line, exit with LOST."""
  @ctypes.CFUNCTYPE(None, ctypes.c_int)
  def aborted(number):
    del number
    if control.hosts:
      faulthandler.dump_traceback()
    name = process_name(me) if control.hosts else f'process {me} of {n}'
    lost = control.lost_message([0]) if me and control.hosts else (
      'another process is dead, or the network between them fails: see the logs of all. Start again')
    control.exit_with(f'{name} has lost contact: {lost}', LOST)
  libc = ctypes.CDLL(None)
  libc.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
  libc.signal(signal.SIGABRT, ctypes.cast(aborted, ctypes.c_void_p))
  _catch_abort.callback = aborted  # libc holds no reference to it
