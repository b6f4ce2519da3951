"""One of several processes, without a model: host_process.py PORT N I DEED; tests/hosts.py starts it."""

import collections
import json
import os
import signal
import sys
import threading
import time
import types
from pathlib import Path

import jax

jax.config.update('jax_platforms', 'cpu')

from jax._src import compiler  # noqa: E402

from gptjax import errors  # noqa: E402 (before JAX looks for devices)
from gptjax.command import shutdown  # noqa: E402 (before JAX looks for devices)
from gptjax.parallel import (  # noqa: E402 (before JAX looks for devices)
  compiling,
  control,
  processes,
  rendezvous_server,
  sharding,
)

SIGNS = Path(os.environ['SIGNS'])  # a folder of process ids, each there when its process has started


def collective():
  """A function that sums over all devices of all processes, and the array for it."""
  import numpy as np
  mesh = jax.make_mesh((jax.device_count(),), ('all',))
  over = jax.NamedSharding(mesh, jax.P('all'))
  x = jax.make_array_from_process_local_data(over, np.ones(jax.local_device_count(), np.float32))
  return jax.jit(lambda x: x.sum(), out_shardings=jax.NamedSharding(mesh, jax.P())), x


def compile_and_run(me):
  """Runs a program that LATE is slow to compile; gives how many programs the cache had, and how many not."""
  events, compile_ = collections.Counter(), compiler.backend_compile_and_load
  marker, late = os.environ.get('MARKER'), os.environ.get('LATE')
  def compile_slowly(*args, **options):
    executable = compile_(*args, **options)
    if late and me == int(late):
      time.sleep(2)
      open(marker, 'w').close()
    return executable
  compiler.backend_compile_and_load = compile_slowly
  jax.config.update('jax_compilation_cache_dir', os.environ['CACHE'].format(me))
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
  jax.monitoring.register_event_listener(lambda event, **_: events.update([event.rpartition('/')[2]]))
  compiling.synchronize(60)
  f, x = collective()
  program = f.lower(x).compile()
  assert not late or os.path.exists(marker), 'another process has not compiled it'
  assert float(program(x)) == jax.device_count()
  assert float(jax.jit(lambda x: x + me)(1.0)) == 1 + me  # of this process alone
  return events['cache_hits'], events['compile_requests_use_cache'] - events['cache_hits']


def misbehave(deed, me):
  """Does a deed, if it is one of this process."""
  numbers = {f'kill{me}': signal.SIGKILL, f'halt{me}': signal.SIGSTOP, f'term{me}': signal.SIGTERM}
  if deed in numbers:
    os.kill(os.getpid(), numbers[deed])
  elif deed == f'raise{me}':
    raise OSError(28, 'No space left on device')
  elif deed == f'bug{me}':
    raise KeyError('a bug')
  elif deed == f'unpack{me}':
    _, _, _ = (1, 2)  # a mistake in our own code
  elif deed == f'library{me}':
    json.loads('[')


def steps(deed, me):
  """Steps that all take part in, until told to stop; at the fifth, one process does a deed."""
  f, x = collective()
  with processes.stop_signals() as stop:
    step = 0
    while not stop.requested():
      float(f(x))
      step += 1
      time.sleep(0.01 * me)
      if step == 5:
        misbehave(deed, me)
      if step > 1000:
        raise AssertionError('never told to stop')
    return step


def timed_saves(me):
  """Prints the steps at which a save is due by the clock of process 0, and the step at which all stop."""
  shutdown.defer_signal(processes.STOPPING)
  f, x = collective()
  timer, saved, step, started = processes.save_timer(0.2 / 60 if me == 0 else 1e-9), [], 0, time.monotonic()
  with processes.stop_signals() as stop:
    while not stop.requested():
      float(f(x))
      step += 1
      time.sleep(0.01 * me)
      if timer.due(started):
        saved.append(step)
        started = time.monotonic()
        if len(saved) == 3 and me == 1:
          os.kill(os.getpid(), signal.SIGTERM)
  print('saved after', saved, step, flush=True)


def left(deed, me):
  """One leaves its steps and is told to stop; another makes its last call of `requested` only then."""
  with processes.stop_signals() as stop:
    shutdown.defer_signal(processes.STOPPING)
    for _ in range(3):
      assert not stop.requested()
    if deed != f'left{me}':
      while not any(key.endswith('/stop') for key in control.read_messages()):
        time.sleep(0.01)
    assert not stop.requested()
  if deed == f'left{me}':
    os.kill(os.getpid(), signal.SIGTERM)


def together(me):
  """Waits until all processes that there will be are this far: how long imports take is not tested."""
  (SIGNS / f'{me}.new').write_text(str(os.getpid()))
  (SIGNS / f'{me}.new').rename(SIGNS / f'{me}')
  while sum(path.name.isdigit() for path in SIGNS.iterdir()) < int(os.environ['PRESENT']):
    time.sleep(0.01)


def bark(who):
  """Reports a hang once the process that halts itself has done so."""
  state = lambda: Path(f'/proc/{(SIGNS / who).read_text()}/stat').read_text().rpartition(')')[2].split()[0]
  while not (SIGNS / who).exists() or state() != 'T':
    time.sleep(0.01)
  control.end_all_hung('no progress', control.roll_call())


def stop_when(ready):
  """Tells this process to stop once `ready()`, in a thread."""
  def wait():
    while not ready():
      time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)
  threading.Thread(target=wait, daemon=True).start()


def all_wait(present):
  """Function without arguments: whether process 0 has taken in all the others that there will be."""
  wait = rendezvous_server.RendezvousServer.wait
  def noted(self, deadline):
    def note():
      while True:
        (SIGNS / f'guests.{len(self.sockets)}').touch()
        time.sleep(0.01)
    threading.Thread(target=note, daemon=True).start()
    wait(self, deadline)
  rendezvous_server.RendezvousServer.wait = noted
  return lambda: (SIGNS / f'guests.{present - 1}').exists()


def roll(me):
  """All processes answer a roll call, and process 0 shares two values, one after the other."""
  if me:
    assert control.roll_call() == []
  found = [processes.on_process_0(lambda: 'first', 20), processes.on_process_0(lambda: 'second', 20)]
  assert found == ['first', 'second']
  processes.compare({'same': 1})


def no_wait(me):
  """Process 0 finds the other one at a barrier, and its time is up at once."""
  while me == 0 and control.absent_processes('gptjax/at/here/', 0) != [0]:
    time.sleep(0.01)
  processes.barrier('here', 60 * me)


def print_meshes():
  """Prints the process of each device, for several shapes of the mesh."""
  for sizes in (2, 1, 1, 4), (2, 1, 4, 1), (1, 2, 2, 2), (1, 1, 2, 4):
    mesh = sharding.make_mesh(types.SimpleNamespace(**dict(zip(sharding.MESH_AXES, sizes, strict=True))))
    print(json.dumps([device.process_index for device in mesh.devices.flat]))


def told(me):
  """Prints a value of process 0, and compares others."""
  print(processes.on_process_0(lambda: {'by': me, 'list': [1, None]}))
  processes.compare({'same': (1, 2.5, 'x')})


def begin(deed, me):
  """Waits for ever at the start of a run; one process is told to stop."""
  if deed == f'begin{me}':
    os.kill(os.getpid(), signal.SIGTERM)
  processes.barrier('a start that never ends')
  time.sleep(600)


def train(deed, me):
  """Takes the steps of a run; any signal is deferred until the step is over."""
  shutdown.defer_signal(processes.STOPPING)
  print('stopped after', steps(deed, me), flush=True)


def arrange(deed, me):
  """Prepares what the deed needs before the processes connect: a signal, or a JAX that does not start."""
  if deed.startswith('early'):
    ready = all_wait(int(os.environ['PRESENT']))
    if deed == f'early{me}':
      stop_when(ready)
  starts = {
    f'told-to-stop{me}': lambda *_, **__: (os.kill(os.getpid(), signal.SIGTERM), time.sleep(60)),
    f'start{me}': lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL),
    f'stuck{me}': lambda *_, **__: time.sleep(60)}
  jax.distributed.initialize = starts.get(deed, jax.distributed.initialize)


def perform(deed, me):
  """Does the deed in the connected processes; a deed that is none of these is one in the steps."""
  deeds = {
    'differ': lambda: processes.compare({'config.a': 1, 'config.b': [me], 'config.c': 2}),
    'compile': lambda: print('hits and misses', *compile_and_run(me)),
    'roll': lambda: roll(me),
    'no wait': lambda: no_wait(me),
    'late': lambda: processes.barrier('start', 1) if me else time.sleep(3),
    'mesh': print_meshes,
    'timed saves': lambda: timed_saves(me),
    'told': lambda: told(me)}
  if deed in deeds:
    deeds[deed]()
  elif deed.startswith('left'):
    left(deed, me)
  elif deed.startswith('begin'):
    begin(deed, me)
  else:
    train(deed, me)


def main(port, n, me, deed):
  arrange(deed, me)
  try:
    if deed == 'alone':
      processes.start()
      print(jax.process_count(), 'process')
      return 0
    together(me)
    processes.start(f'{os.environ.get("ADDRESS", "127.0.0.1")}:{port}', n, me)
    shutdown.set_end_others(control.end_all)
    perform(deed, me)
    shutdown.defer_signal('everything is saved, exiting')
    processes.shut_down()
    return 0
  except Exception as error:
    control.fail(error, 'WORKDIR')
    words = errors.describe(error, 'WORKDIR')
    if not words:
      raise
    print(f'gptjax: {words[0]}', file=sys.stderr)
    return words[1]


if __name__ == '__main__':
  shutdown.catch('gptjax', shutdown.resume_message(0), shutdown.STOPPED)
  processes.START_LIMIT = int(os.environ.get('START_LIMIT', processes.START_LIMIT))
  if sys.argv[4].startswith('halt'):
    threading.Thread(target=bark, args=(sys.argv[4].removeprefix('halt'),), daemon=True).start()
  sys.exit(main(*map(int, sys.argv[1:4]), sys.argv[4]))
