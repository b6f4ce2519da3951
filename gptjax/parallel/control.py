"""Control messages between the processes of a run: requests, roll calls, and why the run ends.

They are keys in the key-value store of JAX's coordination service, which process 0 hosts. `handle_messages`
is called by a thread of each process (see `processes`), whatever the main thread waits for.

This file, `agreement` and `processes` are the only ones that use the store. The client is JAX's own, behind a
private import: with the public functions a barrier has no time limit.
"""

import contextlib
import faulthandler
import itertools
import json
import os
import sys
import threading
import time
import traceback

import jax
from jax._src import distributed

from gptjax import errors
from gptjax.errors import LOST
from gptjax.parallel import rendezvous, wire
from gptjax.text.printable import printable

ROLL_CALL_LIMIT = 3     # seconds within which a healthy process answers
POLL = 0.5              # seconds between two reads of the messages
LOOKED_UP = 8           # host names that a message may ask for: all processes may do so at the same time

# Folders of the store.
MESSAGES, PRESENT, ACKNOWLEDGED, ROLLS, HOSTS = (f'gptjax/{name}/' for name in (
  'messages', 'present', 'acknowledged', 'rolls', 'hosts'))  # rolls: results of shared roll calls

hosts = []              # host name of each process, '' if not yet known; empty: this is the only process
lost = set()            # indices of the processes that did not answer a roll call
_roll_calls = itertools.count()


def client():
  """The client of the key-value store."""
  return distributed.global_state.client


def process_index():
  """The index of this process; unlike `jax.process_index`, it does not initialize the devices."""
  return distributed.global_state.process_id


def begin(names):
  """Tell the others the host of this process, once JAX's service has started.

  Args:
    names: host name of each process, '' if it is not known here.
  """
  hosts[:] = names
  client().key_value_set(f'{HOSTS}{process_index()}', names[process_index()])


def process_name(i):
  """The name of a process in messages."""
  _look_up([i])
  return rendezvous.process_name(i, hosts)


def lost_message(absent):
  """The message about processes that do not answer."""
  _look_up(absent)
  return rendezvous.lost_message(absent, hosts)


def _look_up(processes):
  """Ask the store for the host names of the first of some processes, as far as they are not known here.

  If process 0 is lost, or one of them has not begun, messages have its index alone.
  """
  known = hosts
  unknown = [i for i in processes if not known[i]][:LOOKED_UP]
  def ask():
    with contextlib.suppress(jax.errors.JaxRuntimeError, ValueError):
      for i in unknown:
        known[i] = wire.host_name(client().key_value_try_get(f'{HOSTS}{i}'))
  if unknown:
    _run_within(POLL, ask)


def absent_processes(folder, limit, expected=None):
  """Wait until each process has set its key in a folder of the store.

  Args:
    folder: prefix of the keys; each ends with the index of a process.
    limit: seconds.
    expected: indices of the processes to wait for; None: all.

  Returns:
    Indices of the processes that have not set a key within the limit. Lost processes are not waited for.
  """
  deadline, pause = time.monotonic() + limit, 0.005
  while True:
    present = {int(key.rpartition('/')[2]) for key, _ in client().key_value_dir_get(folder)}
    absent = [i for i in expected or range(len(hosts)) if i not in present | lost]
    if not absent or time.monotonic() > deadline:
      return absent
    time.sleep(pause)
    pause = min(1.5 * pause, 0.25)  # short waits end at once, and long ones send few requests to process 0


def collect(folder, text, limit, participants):
  """Set the key of this process in a folder of the store, and wait for those of the others.

  The first participant reads the folder and publishes what it has; if all read it, the bytes would grow with
  the square of the number of processes.

  Args:
    folder: prefix of the keys, used once per run.
    text: of this process.
    limit: seconds.
    participants: indices of the processes that take part, including this one.

  Returns:
    (indices of the processes that have not set a key within the limit, {index: text}).
  """
  me, first, deadline = process_index(), min(participants), time.monotonic() + limit + POLL
  result = f'gptjax/collected/{folder}'
  client().key_value_set(f'{folder}{me}', text)
  if me == first:
    absent = absent_processes(folder, limit, participants)
    texts = {key.rpartition('/')[2]: text for key, text in client().key_value_dir_get(folder) if text}
    client().key_value_set(result, json.dumps([absent, {} if absent else texts]))
  else:
    while (found := wait_for_key(result, POLL)) is None:
      if time.monotonic() > deadline:
        return absent_processes(folder, 0, participants) or [first], {}
    absent, texts = json.loads(found)
  return absent, {i: texts.get(str(i), '') for i in participants}


def wait_for_key(key, limit):
  """Return the value of a key of the store as soon as it is set; None if it is not within `limit` seconds.

  A signal is only handled after the limit.
  """
  try:
    return client().blocking_key_value_get(key, max(1, round(1000 * limit)))
  except jax.errors.JaxRuntimeError as error:
    if 'DEADLINE' not in str(error):
      raise
    return None


def roll_call(limit=ROLL_CALL_LIMIT):
  """Return the indices of processes that do not answer within `limit` seconds; takes up to thrice that.

  When one process dies, all others call the roll at the same time: they share one roll call.
  """
  if not hosts:
    return []
  absent = _run_within(3 * limit, lambda: _share_roll(limit))
  return [0] if absent is None else absent  # None: process 0, which hosts the store, does not answer


def _share_roll(limit):
  """The result of a roll call: of the one that another process has begun, or of a new one."""
  number = f'all-{len(client().key_value_dir_get(ROLLS))}'
  try:
    client().key_value_set(f'{MESSAGES}roll-{number}', number)
  except jax.errors.JaxRuntimeError:  # another process has begun it
    if found := wait_for_key(f'{ROLLS}{number}', limit + POLL):
      return json.loads(found)
    number = f'{process_index()}-{next(_roll_calls)}'  # that process may be dead
    client().key_value_set(f'{MESSAGES}roll-{number}', number)
    return absent_processes(f'{PRESENT}{number}/', limit)
  absent = absent_processes(f'{PRESENT}{number}/', limit)
  client().key_value_set(f'{ROLLS}{number}', json.dumps(absent))
  return absent


def end_all(line, code):
  """End all processes because this one has received a stop signal when there is nothing to save."""
  _publish_and_exit(line, code)


def end_all_hung(line, absent):
  """End all processes because this one has made no progress for too long.

  Args:
    line: message, to which the processes that do not answer are added.
    absent: their indices, from `roll_call`.
  """
  if hosts:
    lost.update(absent)
    line += (f'; {lost_message(absent)}' if absent
             else '; all processes answer: the stacks above show where they wait')
    _publish_and_exit(line, LOST, stacks=True)
  exit_with(line, LOST)


def fail(error, workdir):
  """End all processes because of an exception in this one; returns if this is the only process.

  Each process writes the cause as its last line. If a library raises the exception because another process is
  lost, the cause is the process that does not answer.
  """
  if not hosts:
    return
  described = errors.describe(error, workdir)
  first_line = str(error).strip().partition('\n')[0]
  line, code = described or (f'{type(error).__name__}: {first_line}', errors.BUG)
  if not described and not _run_within(2 * ROLL_CALL_LIMIT, lambda: _wait_for_cause(4 * POLL)):
    # From a library: a collective may have failed because another process is lost.
    absent = roll_call()
    lost.update(absent)
    if absent:
      line, code = lost_message(absent), LOST
    else:
      traceback.print_exception(error)
  _publish_and_exit(line, code)


def read_messages():
  """The current messages, {key: text}; exits if process 0 does not answer."""
  try:
    return dict(client().key_value_dir_get(MESSAGES))
  except jax.errors.JaxRuntimeError:
    exit_with(lost_message([0]), LOST)


def handle_messages(messages):
  """Answer roll calls, and exit if another process has published a cause for the end of the run."""
  me = process_index()
  for key, number in messages.items():
    if '/roll-' in key:
      client().key_value_set(f'{PRESENT}{number}/{me}', '', allow_overwrite=True)
  cause = _parse_cause(messages)
  if cause and cause[0] != me:  # this process exits by itself with its own cause
    _acknowledge_and_exit(*cause)


def request_stop():
  """Publish that this process has received a stop signal."""
  client().key_value_set(f'{MESSAGES}stop', str(process_index()), allow_overwrite=True)


def stop_requested_by(messages):
  """The index of the process that has requested a stop; None: no process has."""
  text = messages.get(f'{MESSAGES}stop')
  return int(text) if text in map(str, range(len(hosts))) else None


def request_save(number):
  """Publish the n-th request of process 0 to save because of the time."""
  client().key_value_set(f'{MESSAGES}save', str(number), allow_overwrite=True)


def save_requests(messages):
  """The number of requests to save."""
  text = messages.get(f'{MESSAGES}save', '0')
  return int(text) if text.isdecimal() else 0


def exit_with(line, code):
  """Write the last line of this process and exit without waiting for threads, which may be blocked."""
  sys.stdout.flush()
  print(f'\ngptjax: {line}' if sys.stderr.isatty() else f'gptjax: {line}', file=sys.stderr, flush=True)
  os._exit(code)


def _run_within(limit, work):
  """`work()`, or None if it takes longer than `limit` seconds: a call to the store can block."""
  results = []
  thread = threading.Thread(target=lambda: results.append(work()), daemon=True)
  thread.start()
  thread.join(limit)
  return results[0] if results else None


def _wait_for_cause(limit):
  """The cause that is published within `limit` seconds, arguments of `_acknowledge_and_exit`, or None."""
  deadline = time.monotonic() + limit
  while True:
    cause = _parse_cause(read_messages())
    if cause or time.monotonic() > deadline:
      return cause
    time.sleep(0.1)


def _parse_cause(messages):
  """The cause in the messages, arguments of `_acknowledge_and_exit`; None if absent or invalid."""
  try:
    sender, host, line, code, stacks = json.loads(messages.get(f'{MESSAGES}cause', ''))
    host = wire.host_name(host)
  except (ValueError, TypeError, RecursionError):
    return None
  if sender not in range(len(hosts)) or not wire.is_cause(code):
    return None
  hosts[sender] = hosts[sender] or host  # the store may be gone when a line needs it
  return sender, printable(line), code, bool(stacks)


def _publish_and_exit(line, code, stacks=False):
  """Publish the cause for the other processes and exit; if another process was first, exit with its cause."""
  me = process_index()
  def publish():
    cause = _wait_for_cause(0)
    if not cause:
      with contextlib.suppress(jax.errors.JaxRuntimeError):  # another process was faster
        client().key_value_set(f'{MESSAGES}cause', json.dumps([me, hosts[me], line, code, stacks]))
      cause = _wait_for_cause(0)
    if cause and cause[0] != me:
      _acknowledge_and_exit(*cause)
    _wait_for_acknowledgements()
  if 0 not in lost:  # else there is no store
    _run_within(2 * ROLL_CALL_LIMIT, publish)
  exit_with(line, code)


def _acknowledge_and_exit(sender, line, code, stacks):
  """Exit because another process has published a cause."""
  if stacks:
    faulthandler.dump_traceback()
  with contextlib.suppress(jax.errors.JaxRuntimeError):  # process 0, which hosts the store, may have exited
    client().key_value_set(f'{ACKNOWLEDGED}{process_index()}', '', allow_overwrite=True)
  _wait_for_acknowledgements()
  exit_with(line if code == LOST else f'{process_name(sender)} has ended the run: {line}', code)


def _wait_for_acknowledgements():
  """Process 0 hosts the store: there, wait a short time for the other processes to read the cause."""
  if process_index() == 0:
    client().key_value_set(f'{ACKNOWLEDGED}0', '', allow_overwrite=True)
    absent_processes(ACKNOWLEDGED, 4 * POLL + 1)
