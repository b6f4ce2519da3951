"""What many hosts cost besides the step, simulated on this machine: python -m gptjax.benchmark hosts

Start and agreement: each process is a thread with a client of its own for JAX's coordination service, which
is real, as are the sockets of the rendezvous. So the seconds are those of all processes on the cores of this
machine together; requests and bytes are what a run on so many hosts has.

Checkpoints and metrics: one process with as many CPU devices as there would be hosts, among which the state
of a small model is sharded. It writes and reads the shards of all of them, which hosts do at the same time.
"""

import argparse
import functools
import itertools
import json
import os
import socket
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from unittest import mock

from gptjax.benchmark import results
from gptjax.benchmark.interleave import output_of
from gptjax.benchmark.machine import machine_info
from gptjax.command import run
from gptjax.command.flag_types import Listed, integer
from gptjax.parallel import agreement, control, processes, rendezvous, wire

LIMIT = 300       # seconds for each measurement
GROWTH = 1000     # bytes per process that the largest number of processes may add: requests are repeated
SAVES = 3         # the first one is not counted
RECORDS = 500     # of metrics
SAVED = ('seconds of a save', 'seconds of reading it', 'bytes of its manifest',
         'seconds of a record of metrics')
FACTS = {f'config.field_{i}': i for i in range(200)}  # as many as a run compares


class Counter:
  """The client of a process, which counts its requests and the characters of keys and values."""

  def __init__(self, client):
    self.client, self.requests, self.characters = client, 0, 0

  def __getattr__(self, name):
    return functools.partial(self._count, getattr(self.client, name))

  def _count(self, method, *arguments, **options):
    self.requests += 1
    self.characters += sum(len(text) for text in arguments if isinstance(text, str))
    answer = method(*arguments, **options)
    parts = itertools.chain(*answer) if isinstance(answer, list) else [answer or '']
    self.characters += sum(map(len, parts))
    return answer


class PerThread(threading.local):
  """What is a global variable of a process: the state of JAX's distributed runtime, and a count of calls."""

  def __init__(self):
    self.client, self.process_id, self.calls = None, None, itertools.count()

  def __next__(self):
    return next(self.calls)


class Simulation:
  """A coordination service and n clients; a context manager."""

  def __init__(self, n):
    from jax._src.lib import _jax
    self.n, self.state, self.pool = n, PerThread(), ThreadPoolExecutor(n)
    address = free_address()
    limits = {'heartbeat_timeout': 10 * LIMIT, 'shutdown_timeout': LIMIT}
    self.service = _jax.get_distributed_runtime_service(address, n, **limits)
    make = functools.partial(_jax.get_distributed_runtime_client, address, init_timeout=LIMIT,
                             use_compression=True, **limits)
    self.counters = [Counter(make(i)) for i in range(n)]

  def __enter__(self):
    self.patches = [
      mock.patch.object(control, 'distributed', SimpleNamespace(global_state=self.state)),
      mock.patch.object(control, 'hosts', [host_name(i) for i in range(self.n)]),
      mock.patch.object(processes, '_calls', self.state)]
    for patch in self.patches:
      patch.start()
    return self

  def __exit__(self, *error):
    for patch in reversed(self.patches):
      patch.stop()
    list(self.pool.map(lambda counter: counter.client.shutdown(), self.counters))  # each waits for all
    self.pool.shutdown()

  def measure(self, work):
    """Run `work`, a function of the index of the process, in all of them at the same time.

    Returns:
      (seconds, requests of each process, characters of each process), means for the latter two.
    """
    for counter in self.counters:
      counter.requests = counter.characters = 0
    start = time.perf_counter()
    for done in [self.pool.submit(self._run, work, i) for i in range(self.n)]:
      done.result()
    seconds = time.perf_counter() - start
    mean = lambda name: sum(getattr(counter, name) for counter in self.counters) / self.n
    return seconds, mean('requests'), mean('characters')

  def _run(self, work, i):
    self.state.client, self.state.process_id = self.counters[i], i
    work(i)


def host_name(i):
  """A name as long as those of a cloud."""
  return f'worker-{i:04d}.pool-a.example.internal'


def free_address():
  with socket.create_server(('127.0.0.1', 0)) as server:
    return f'127.0.0.1:{server.getsockname()[1]}'


def meet(n):
  """(seconds, 0, bytes of the answer of process 0 to each) of a rendezvous of n processes."""
  address, own, send, sent = free_address(), threading.local(), wire.send, []
  def counted(connections, value):
    sent.append(len(connections) * len(wire.encode(value)))
    send(connections, value)
  def connect(i):
    own.name = host_name(i)
    return rendezvous.connect(address, n, i, LIMIT, log=lambda line: None)
  # One patch for all: those of several threads would not be undone in the order of their nesting.
  with (mock.patch.object(rendezvous, '_hostname', lambda: own.name),
        mock.patch.object(wire, 'send', counted), ThreadPoolExecutor(n) as pool):
    start = time.perf_counter()
    connected = list(pool.map(connect, range(n)))
    seconds = time.perf_counter() - start
  for one in connected:
    for connection in one.connections.values():
      connection.close()
  return seconds, 0, sum(sent) / (n - 1)


def agree(stops, i):
  """Advance the Stop of process i until all have agreed, as its listening thread does."""
  stop = stops[i]
  while stop.agreed < 1:
    stop.advance(1)
    time.sleep(processes.AGREEING)


def measurements(n):
  """Yield (what, seconds, requests per process, characters per process) for n processes."""
  yield 'rendezvous', *meet(n)
  with Simulation(n) as simulation:
    yield "start of JAX's service", *simulation.measure(lambda i: simulation.state.client.connect())
    yield 'barrier', *simulation.measure(lambda i: processes.barrier('benchmark', LIMIT))
    yield 'comparison of the config', *simulation.measure(lambda i: processes.compare(FACTS))
    stops = [agreement.Stop() for _ in range(n)]
    yield 'agreement to stop', *simulation.measure(functools.partial(agree, stops))


def storage_costs(n):
  """(figures in the order of SAVED), of a state that is sharded among n CPU devices."""
  code = f'from gptjax.benchmark import hosts; hosts.print_storage_costs({n})'
  with mock.patch.dict(os.environ, JAX_PLATFORMS='cpu', JAX_NUM_CPU_DEVICES=str(n)):
    return json.loads(output_of([sys.executable, '-c', code]).splitlines()[-1])


def print_storage_costs(n):
  """The worker of `storage_costs`."""
  import jax

  from gptjax.benchmark.subjects import scaling
  from gptjax.parallel import sharding
  from gptjax.train import step
  family = next(family for family in scaling.FAMILIES if family.name == 'cpu-fsdp')
  config = scaling.weak_scaling_config(family, n)
  config.model.update(n_embd=512, n_head=8)
  mesh = sharding.make_mesh(config.mesh, jax.devices())
  with jax.set_mesh(mesh), tempfile.TemporaryDirectory() as folder:
    init = functools.partial(step.init_state, config)
    target = sharding.with_shardings(jax.eval_shape(init), mesh)
    print(json.dumps([*_save_costs(config, jax.jit(init)(), target, folder), _record_cost(folder)]))


def _save_costs(config, state, target, folder):
  """(seconds of a save and of reading it, bytes of the manifest)."""
  from gptjax.storage import checkpoint
  from gptjax.storage.retention import rules_of
  saves = checkpoint.Checkpoints(folder, rules_of(config.checkpoint), {})
  seconds = []
  for number in range(SAVES):
    saves.save(state, number)
    seconds.append(saves.wait()[1])
  saves.close()
  start = time.perf_counter()
  _, manifest = checkpoint.restore(folder, target, print)
  return sum(seconds[1:]) / (SAVES - 1), time.perf_counter() - start, len(json.dumps(manifest))


def _record_cost(folder):
  """Seconds in which the metrics of a step, replicated on all devices, are read and written."""
  import jax
  import jax.numpy as jnp

  from gptjax.parallel import sharding
  from gptjax.report.telemetry import Telemetry
  metrics = jax.jit(lambda: {name: sharding.replicated(jnp.ones(())) for name in 'abcdef'})()
  telemetry = Telemetry(folder, RECORDS, tensorboard=False)
  telemetry.begin(0)
  start = time.perf_counter()
  for number in range(RECORDS):
    telemetry.write(number, {name: float(value) for name, value in jax.device_get(metrics).items()})
  seconds = time.perf_counter() - start
  telemetry.close()
  return seconds / RECORDS


def main(argv):
  parser = run.Parser(prog='python -m gptjax.benchmark hosts', description=__doc__,
                      formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--processes', type=Listed(integer(2, 4096)), default=(16, 64, 256, 1024),
                      help='numbers of simulated processes')
  parser.add_argument('--devices', type=Listed(integer(1, 256), empty=True), default=(1, 8, 64),
                      help="numbers of simulated hosts for checkpoints and metrics; '' for none")
  results.add_out(parser)
  flags = parser.parse_args(argv)
  machine, found = machine_info(('jax', 'jaxlib')), {}
  print(f'{"processes":>9}  {"":<26}{"s":>8}{"requests":>10}{"bytes":>10}   of each process')
  for n in flags.processes:
    for what, *figures in measurements(n):
      found.setdefault(what, []).append(figures)
      print(f'{n:>9}  {what:<26}{figures[0]:>8.2f}{figures[1]:>10.1f}{figures[2]:>10,.0f}', flush=True)
  saved = {}
  print('\n' + '  '.join(('devices', *SAVED)) * bool(flags.devices))
  for n in flags.devices:
    saved[n] = storage_costs(n)
    print('  '.join([f'{n:>7}', *(f'{value:>{len(what)},.5g}' for what, value in zip(SAVED, saved[n]))]),
          flush=True)
  rows = [results.row(f'{what}, simulated', f'{n} processes', 's', [figures[0]])
          for what, series in found.items() for n, figures in zip(flags.processes, series)]
  gates = [results.gate(f'{what}: bytes that {flags.processes[-1]} processes add for each', '<=', GROWTH,
                        series[-1][2] - series[0][2])
           for what, series in found.items()]
  results.print_gates(gates)
  results.write(flags.out, 'hosts', machine, rows, gates, found=found, saved=saved)
  return int(not all(gate['holds'] for gate in gates))
