"""One of several processes, without a model: host_process.py PORT N I DEED; tests/test_hosts.py starts it."""

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

from gptjax import errors, hosts, sharding  # noqa: E402 (before JAX looks for devices)

SIGNS = Path(os.environ['SIGNS'])  # a folder of process ids, each there when its process has started


def collective():
  """A function that sums over all devices of all processes, and the array for it."""
  import numpy as np
  mesh = jax.make_mesh((jax.device_count(),), ('all',))
  over = jax.NamedSharding(mesh, jax.P('all'))
  x = jax.make_array_from_process_local_data(over, np.ones(jax.local_device_count(), np.float32))
  return jax.jit(lambda x: x.sum(), out_shardings=jax.NamedSharding(mesh, jax.P())), x


def steps(deed, me):
  """Steps that all take part in, until told to stop; at the fifth, one process does a deed."""
  f, x = collective()
  with hosts.stop_signals() as stop:
    step = 0
    while not stop.asked():
      float(f(x))
      step += 1
      time.sleep(0.01 * me)
      if step == 5 and deed == f'kill{me}':
        os.kill(os.getpid(), signal.SIGKILL)
      if step == 5 and deed == f'halt{me}':
        os.kill(os.getpid(), signal.SIGSTOP)
      if step == 5 and deed == f'term{me}':
        os.kill(os.getpid(), signal.SIGTERM)
      if step == 5 and deed == f'raise{me}':
        raise OSError(28, 'No space left on device')
      if step == 5 and deed == f'bug{me}':
        raise KeyError('a bug')
      if step > 1000:
        raise AssertionError('never told to stop')
    return step


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
  hosts.hanging('no progress', hosts.roll_call())


def main(port, n, me, deed):
  try:
    together(me)
    hosts.start(f'127.0.0.1:{port}', n, me)
    if deed == 'differ':
      hosts.compare({'config.a': 1, 'config.b': [me], 'config.c': 2})
    elif deed == 'late':
      hosts.barrier('start', 1) if me else time.sleep(3)
    elif deed == 'mesh':
      for sizes in (2, 1, 1, 4), (2, 1, 4, 1), (1, 2, 2, 2), (1, 1, 2, 4):
        mesh = sharding.make_mesh(types.SimpleNamespace(**dict(zip(sharding.MESH_AXES, sizes, strict=True))))
        print(json.dumps([device.process_index for device in mesh.devices.flat]))
    elif deed == 'told':
      print(hosts.told(lambda: {'by': me, 'list': [1, None]}))
      hosts.compare({'same': (1, 2.5, 'x')})
    else:
      print('stopped after', steps(deed, me), flush=True)
    hosts.finish()
    return 0
  except Exception as error:
    hosts.fail(error, 'WORKDIR')
    words = errors.in_words(error, 'WORKDIR')
    if not words:
      raise
    print(f'gptjax: {words[0]}', file=sys.stderr)
    return words[1]


if __name__ == '__main__':
  hosts.START_LIMIT = int(os.environ.get('START_LIMIT', hosts.START_LIMIT))
  if sys.argv[4].startswith('halt'):
    threading.Thread(target=bark, args=(sys.argv[4].removeprefix('halt'),), daemon=True).start()
  sys.exit(main(*map(int, sys.argv[1:4]), sys.argv[4]))
