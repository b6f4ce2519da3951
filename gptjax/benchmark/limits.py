"""The limits of a CPU, measured interleaved with the contenders: matmuls alone, and memory bandwidth.

`training_matmuls` and `forward_matmuls` list the matmuls of a step or of a batch, from the config. One worker
measures the time that they take with XLA, another one the time with PyTorch; a third one measures the memory
bandwidth. Rows of gptjax then have

    of_products   time of XLA's matmuls alone / time of gptjax
    xla_of_best   time of the faster library for each matmul / time of XLA's matmuls alone
    of_bandwidth  bytes that gptjax reads per second / memory bandwidth

Letters: a matmul multiplies b pairs of matrices [m, k] and [k, n]; either may be stored transposed.
"""

import functools
import itertools
import statistics
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np

from gptjax.benchmark import machine, results
from gptjax.benchmark.interleave import serve
from gptjax.kernels import cpu

MATMULS = XLA, TORCH = 'xla-matmuls', 'torch-matmuls'
MEMORY = 'memory'
WORKERS = *MATMULS, MEMORY
TARGET = 0.85            # for `of_products` of training and scoring, and `of_bandwidth` of generation
OPERANDS = 1 << 28       # bytes of the operands of a matmul: one pair per call, as far as they fit
LEAST_CALLS = 4          # of a matmul, for its mean time
ARRAY = 1 << 30          # bytes of an array for the bandwidth, far more than the caches hold
PASSES = 3               # over the arrays, for the mean bandwidth
WORDS = {'of_products': "of XLA's matmuls", 'of_bandwidth': 'of the bandwidth'}


class Matmul(NamedTuple):
  """A matmul and how often it is computed.

  layout: dimensions of the operands in memory, 'mk,kn', 'mk,nk' or 'km,kn'.
  dtype, result: names of the dtypes of the operands and of the result.
  """
  count: int
  layout: str
  b: int
  m: int
  k: int
  n: int
  dtype: str
  result: str

  def __str__(self):
    sizes = f'b={self.b}, m={self.m}, k={self.k}, n={self.n}'
    return f'{self.count} x {self.layout}, {sizes}, {self.dtype} to {self.result}'

  @property
  def flops(self):
    return 2 * self.count * self.b * self.m * self.k * self.n

  @property
  def shapes(self):
    """The shapes of both operands in memory."""
    sizes = {'m': self.m, 'k': self.k, 'n': self.n}
    return [((self.b,) if self.b > 1 else ()) + tuple(sizes[name] for name in names)
            for names in self.layout.split(',')]


def training_matmuls(config, n_blocks=None):
  """[Matmul] of a training step; without recomputed ones.

  Args:
    config: the whole config, resolved.
    n_blocks: of queries, see `attention_matmuls`.
  """
  from gptjax.model.parameters import padded_vocab
  c, t, b = config.model, config.data.seq_len, config.train.microbatch_size
  matmul = functools.partial(Matmul, b=1, dtype=c.compute_dtype)
  found = attention_matmuls(c, b, t, backward=True, n_blocks=n_blocks)
  for layers, i, o in layer_matrices(config):  # float32: see `cpu_matmul.result_dtype`
    found += [matmul(layers, 'mk,kn', m=b * t, k=i, n=o, result='float32'),
              matmul(layers, 'mk,nk', m=b * t, k=o, n=i, result='float32'),
              matmul(layers, 'km,kn', m=i, k=b * t, n=o, result='float32')]
  chunk = min(config.loss.chunk or t, t)
  chunks, n, v = -(-t // chunk), b * chunk, padded_vocab(c)
  found += [matmul(chunks, 'mk,nk', m=n, k=c.n_embd, n=v, result='float32'),
            matmul(chunks, 'mk,kn', m=n, k=v, n=c.n_embd, result='float32'),
            matmul(chunks, 'km,kn', m=v, k=n, n=c.n_embd, result='float32')]
  return merged(found, config.train.batch_size // b)


def forward_matmuls(config, b, t, n_scored, max_logits=None, n_blocks=None):
  """[Matmul] of a batch of b rows of t tokens without gradients, by a model that is prepared for decoding.

  Args:
    config: the whole config; the compute dtype is not 'auto'.
    b, t: shape of the batch.
    n_scored: positions whose logits are computed.
    max_logits: number that is computed at a time; None: all.
    n_blocks: of queries, see `attention_matmuls`.
  """
  from gptjax.model.parameters import padded_vocab
  from gptjax.parallel.sharding import count_blocks
  c, v = config.model, padded_vocab(config.model)
  matmul = functools.partial(Matmul, layout='mk,nk', b=1, dtype=c.compute_dtype, result='float32')
  found = attention_matmuls(c, b, t, backward=False, n_blocks=n_blocks)
  found += [matmul(layers, m=b * t, k=i, n=o) for layers, i, o in layer_matrices(config)]
  parts = count_blocks(v, max(1, (max_logits or v * n_scored) // n_scored))
  return merged([*found, matmul(parts, m=n_scored, k=c.n_embd, n=-(-v // parts))])


def layer_matrices(config):
  """[(layers, inputs, outputs)] of the matrices in the layers of a Transformer."""
  import jax

  from gptjax.model.compute import projections
  from gptjax.model.gpt import GPT
  from gptjax.parallel import sharding
  with sharding.abstract_mesh():
    model = jax.eval_shape(lambda: GPT(jax.random.key(0), config))
  weights = [projection.w for _, projection in projections(model.h)]
  return [(w.shape[0], *w.declaration.matrix_shape(w.shape[1:])) for w in weights]


def attention_matmuls(c, b, t, backward, n_blocks=None):
  """[Matmul] of attention in all layers, in blocks of queries, each with the keys that it needs.

  Args:
    c: `config.model`.
    b, t: shape of the batch.
    backward: whether the gradients are computed.
    n_blocks: of queries; None: as `gptjax.model.attention` has; 1: all keys for all queries.
  """
  from gptjax.model.attention import N_QUERY_BLOCKS
  from gptjax.model.parameters import head_size, n_kv_head
  block, found = -(-t // (n_blocks or N_QUERY_BLOCKS)), []
  matmul = functools.partial(Matmul, c.n_layer, b=b * n_kv_head(c), dtype=c.compute_dtype, result='float32')
  for start in range(0, t, block):
    end = min(start + block, t)
    s = end - (max(0, start - c.sliding_window + 1) if c.sliding_window else 0)
    q, d = (end - start) * c.n_head // n_kv_head(c), head_size(c)
    scores, values = matmul('mk,nk', m=q, k=d, n=s), matmul('mk,kn', m=q, k=s, n=d)
    sums_over_queries = matmul('km,kn', m=s, k=q, n=d)
    found += [scores, values]
    # Gradients of the weights, the queries, the values and the keys.
    found += [scores, values, sums_over_queries, sums_over_queries] if backward else []
  return found


def merged(matmuls, times=1):
  """The matmuls, `times` as often, with equal ones counted together."""
  counts = Counter()
  for matmul in matmuls:
    counts[matmul._replace(count=0)] += matmul.count * times
  return [matmul._replace(count=count) for matmul, count in counts.items()]


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
                      help='do not measure the limits of the CPU: matmuls alone, memory bandwidth')


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

  from gptjax.kernels.cpu_matmul import barrier, sum_over_rows, transposes_result

  def product(x, y, layout, result):
    multiply = functools.partial(jnp.einsum, preferred_element_type=result)
    if x.ndim == 3 and layout == 'km,kn':
      return sum_over_rows(x, y, result)
    if x.ndim == 3:
      left, right = layout.split(',')
      return multiply(f'b{left},b{right}->bmn', x, y)
    if layout != 'km,kn':
      return multiply(f'{layout}->mn', x, y)
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


def share(row):
  """The name and value of the row's share of a limit; None if it has none."""
  return next(((name, row[name]) for name in WORDS if name in row), None)


def described(row):
  """The row's share of its limit in words; '' if it was not measured."""
  found, best = share(row), row.get('xla_of_best')
  words = f'{100 * found[1]:.0f} % {WORDS[found[0]]}' if found else ''
  return words + (f', which reach {100 * best:.0f} % of the best library' if best else '')


def gates(rows):
  """The gates of rows that have a share of a limit."""
  return [results.gate(f'{row["what"]}, share {WORDS[share(row)[0]]}', '>=', TARGET, share(row)[1])
          for row in rows if share(row)]


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
