"""The limits of a CPU, measured interleaved with the contenders: matmuls alone, and memory bandwidth.

One worker measures the time that the matmuls of the work (`gptjax.benchmark.matmuls`) take with XLA, another
one the time with PyTorch; a third one measures the memory bandwidth. Rows of gptjax then have

    of_products   time of XLA's matmuls alone / time of gptjax
    xla_of_best   time of the faster library for each matmul / time of XLA's matmuls alone
    of_bandwidth  bytes that gptjax reads per second / memory bandwidth
"""

import functools
import itertools
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

import numpy as np

from gptjax.benchmark import machine, results
from gptjax.benchmark.interleave import serve
from gptjax.benchmark.matmuls import Matmul
from gptjax.kernels import cpu

MATMULS = XLA, TORCH = 'xla-matmuls', 'torch-matmuls'
MEMORY = 'memory'
WORKERS = *MATMULS, MEMORY
TARGET = 0.85            # for `of_products` of training and scoring, and `of_bandwidth` of generation
OPERANDS = 1 << 28       # bytes of the operands of a matmul: one pair per call, as far as they fit
LEAST_CALLS = 4          # of a matmul, for its mean time
ARRAY = 1 << 30          # bytes of an array for the bandwidth, far more than the caches hold
PASSES = 3               # over the arrays, for the mean bandwidth
# The fields of a row that are shares of a limit.
WORDS = {'of_bandwidth': 'of the bandwidth', 'of_products': "of XLA's matmuls"}


def available(flags, names=MATMULS):
  """The workers to start, of these names: none on accelerators, and that of PyTorch if it is installed.

  Args:
    flags: with the one of `add_flag`.
    names: of WORKERS.
  """
  if flags.no_limits or not cpu.is_only_device():
    return ()
  return tuple(name for name in names if name != TORCH or find_spec('torch'))


def add_flag(parser):
  """Add the flag --no_limits to a parser."""
  parser.add_argument('--no_limits', action='store_true',
                      help='do not measure the limits of the CPU beside the contenders')


def serve_worker(name, make_tasks):
  """Answer each request, whatever it is, with {task: [seconds of each matmul]}, or with the bandwidths.

  Args:
    name: of WORKERS.
    make_tasks: function that returns {task: [Matmul]}; called after the settings of the CPU, because it may
      make JAX create its devices.
  """
  cpu.retain_freed_memory()
  if name == XLA:
    cpu.configure_devices()
    from gptjax.parallel import sharding
    sharding.ensure_mesh()  # the forms of matmuls for one CPU device depend on it
  if name == MEMORY:
    kernels = bandwidth_kernels(ARRAY)
    return serve({'bytes': ARRAY}, lambda _: {kernel: bandwidth(*kernels[kernel]) for kernel in kernels})
  make, tasks = {XLA: xla_matmul, TORCH: torch_matmul}[name], make_tasks()
  return serve({'matmuls': tasks}, lambda _: {task: [mean_seconds(each, make) for each in matmuls]
                                              for task, matmuls in tasks.items()})


def mean_seconds(matmul, make):
  """Seconds that all `matmul.count` calls take.

  Each call has operands of its own, as far as memory allows: caches do not keep the weights of all layers.

  Args:
    matmul: Matmul.
    make: `xla_matmul` or `torch_matmul`.
  """
  new_operands, multiply = make(matmul)
  size = sum(map(np.prod, matmul.shapes)) * (4 if matmul.dtype == 'float32' else 2)
  pairs = [new_operands() for _ in range(min(matmul.count, max(1, OPERANDS // int(size))))]
  multiply(*pairs[0])  # compiles
  calls = max(matmul.count, LEAST_CALLS)
  start = time.perf_counter()
  for pair, _ in zip(itertools.cycle(pairs), range(calls)):
    multiply(*pair)
  return (time.perf_counter() - start) / calls * matmul.count


def xla_matmul(matmul):
  """(function that makes two operands, function that multiplies them and waits)."""
  import jax
  import jax.numpy as jnp
  product = functools.partial(_xla_product(), layout=matmul.layout, result=matmul.result)
  return (lambda: jax.block_until_ready([jnp.ones(shape, matmul.dtype) for shape in matmul.shapes]),
          lambda x, y: jax.block_until_ready(product(x, y)))


@functools.cache
def _xla_product():
  """The jitted product of two operands, in the form that the model has for each layout."""
  import jax
  import jax.numpy as jnp

  from gptjax.kernels.cpu_matmul import barrier, matmul_by_rows, sum_over_rows, transposes_result

  def product(x, y, layout, result):
    multiply = functools.partial(jnp.einsum, preferred_element_type=result)
    if x.ndim == 3 and layout == 'km,kn':
      return sum_over_rows(x, y, result)
    if x.ndim == 3:
      left, right = layout.split(',')
      return multiply(f'b{left},b{right}->bmn', x, y)
    if layout == 'mk,nk':
      return matmul_by_rows(x, y)
    if layout == 'mk,kn':
      return multiply('mk,kn->mn', x, y)
    # As `cpu_matmul.weight_gradient`; the order of the result's dimensions is free.
    if transposes_result(x, y):
      return multiply('nk,km->nm', barrier(y.T), x)
    return multiply('mk,kn->mn', barrier(x.T), y)
  return jax.jit(product, static_argnames=('layout', 'result'))


def torch_matmul(matmul):
  """As `xla_matmul`; the result has the dtype of the operands, and keeps its memory."""
  import torch
  dtype, (left, right) = getattr(torch, matmul.dtype), matmul.layout.split(',')
  as_matrix = lambda x, transposed: x.mT if transposed else x
  new_operands = lambda: [torch.ones(shape, dtype=dtype) for shape in matmul.shapes]

  def product(x, y, out=None):
    return torch.matmul(as_matrix(x, left == 'km'), as_matrix(y, right == 'nk'), out=out)
  return new_operands, functools.partial(product, out=product(*new_operands()))


def bandwidth_kernels(size):
  """{name: (bytes that a pass moves, function that makes a pass over arrays of `size` bytes)}.

  read: XLA's product of one row with a matrix, which is most of what generation does.
  update: y += x by NumPy, one thread per core: two arrays are read and one is written.
  """
  import jax
  import jax.numpy as jnp
  x, y = (np.full(size // 4, value, np.float32) for value in (0, 1))
  threads = machine.available_cores()
  pool, parts = ThreadPoolExecutor(threads), [np.array_split(array, threads) for array in (x, y)]
  matrix, row = jnp.ones((size // 4096, 1024)), jnp.ones((1, 1024))
  product = jax.jit(functools.partial(jnp.einsum, 'mk,nk->mn'))
  return {'read': (size, lambda: jax.block_until_ready(product(row, matrix))),
          'update': (3 * size, lambda: list(pool.map(lambda x, y: np.add(x, y, out=y), *parts)))}


def bandwidth(size, run):
  """Bytes per second of `PASSES` passes, after one that is not timed."""
  run()
  start = time.perf_counter()
  for _ in range(PASSES):
    run()
  return PASSES * size / (time.perf_counter() - start)


def matmul_fields(seconds, answers, task):
  """The fields `of_products` and `xla_of_best` of a row, medians over turns; only those that were measured.

  Args:
    seconds: of gptjax for the task, in each turn.
    answers: {name of a worker: (facts, [answer of each turn])}, as `interleave.interleaved` returns.
    task: of `serve_worker`.
  """
  if XLA not in answers:
    return {}
  times = {name: [turn[task] for turn in answers[name][1]] for name in MATMULS if name in answers}
  xla = [sum(turn) for turn in times[XLA]]
  fields = {'of_products': statistics.median(a / b for a, b in zip(xla, seconds, strict=True))}
  if TORCH in times:
    best = [sum(map(min, *both)) for both in zip(*times.values(), strict=True)]
    fields['xla_of_best'] = statistics.median(a / b for a, b in zip(best, xla, strict=True))
  return fields


def bandwidth_fields(seconds, size, answers):
  """The field `of_bandwidth` of a row: the share of the faster kernel's bandwidth, the median over turns.

  Args:
    seconds: in which gptjax reads `size` bytes, in each turn.
    size: bytes.
    answers: see `matmul_fields`.
  """
  if MEMORY not in answers:
    return {}
  turns = zip(seconds, answers[MEMORY][1], strict=True)
  shares = (size / each / max(bandwidths.values()) for each, bandwidths in turns)
  return {'of_bandwidth': statistics.median(shares)}


def described(row):
  """The row's shares of its limits in words; '' if none was measured."""
  best = row.get('xla_of_best')
  shares = ', '.join(f'{100 * row[name]:.0f} % {words}' for name, words in WORDS.items() if name in row)
  return shares + (f', which reach {100 * best:.0f} % of the best library' if best else '')


def gates(rows, field='of_products'):
  """The gates of the rows that have this share, of WORDS."""
  return [results.gate(f'{row["what"]}, share {WORDS[field]}', '>=', TARGET, row[field])
          for row in rows if field in row]


def medians(answers):
  """Of the workers of limits among `answers`, medians over turns: dicts for the result file.

  Returns:
    {worker: {task: {description of a matmul: seconds}}}; {MEMORY: {kernel: bytes per second}}.
  """
  found, by_position = {}, lambda lists: map(statistics.median, zip(*lists))
  for name, (facts, turns) in answers.items():
    if 'matmuls' in facts and turns:
      times = {task: by_position(turn[task] for turn in turns) for task in facts['matmuls']}
      found[name] = {task: {str(Matmul(*matmul)): seconds for matmul, seconds in zip(matmuls, times[task])}
                     for task, matmuls in facts['matmuls'].items()}
    elif 'bytes' in facts and turns:
      found[name] = {kernel: statistics.median(turn[kernel] for turn in turns) for kernel in turns[0]}
  return found


def print_answers(answers):
  """Print the speed of the matmuls of each task, and the bandwidth of each kernel."""
  for name, of_worker in medians(answers).items():
    facts, _ = answers[name]
    for task, of_task in of_worker.items():
      if 'matmuls' in facts:
        seconds, flops = sum(of_task.values()), sum(Matmul(*each).flops for each in facts['matmuls'][task])
        print(f'{name}, {task}: {seconds:.4g} s, {flops / seconds / 1e9:,.1f} GFLOP/s')
      else:
        print(f'{name}, {task}: {of_task / 1e9:,.1f} GB/s')
