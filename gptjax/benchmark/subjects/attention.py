"""Accuracy and speed of each attention kernel: python -m gptjax.benchmark attention

Prints facts about the device and runs one exponential as the first program. Then, for each kernel, with
dropout
if it supports dropout: the relative errors of its output and gradients in bfloat16, against the equation in
float32 with the same dropout mask; then milliseconds per forward and backward pass, all kernels interleaved.
"""

import argparse
import functools
import time
from typing import NamedTuple

from gptjax.benchmark import gates, journal, results
from gptjax.benchmark.machine import machine_info
from gptjax.benchmark.sizes import SIZES, make_config
from gptjax.benchmark.subjects.train import PACKAGES
from gptjax.command import run
from gptjax.command.flag_types import integer

DROPOUT_RATE = 0.1
MAX_ERROR = 0.05  # relative; bfloat16 has 8 bits of precision
N_CHECKED = 2     # sequences for which errors are computed: float32 materializes all scores
BATCH, CALLS = {'cpu': 2, 'gpu': 32, 'tpu': 32}, {'cpu': 1, 'gpu': 20, 'tpu': 20}  # CALLS per turn
DEVICES = {'cudnn': 'gpu', 'pallas': 'gpu', 'splash': 'tpu'}


class Case(NamedTuple):
  """A kernel with a dropout rate and a sliding window."""
  kernel: str
  rate: float
  window: int = 0

  @property
  def name(self):
    return f'{self.kernel}, dropout {self.rate}' if self.rate else self.kernel


# Most important first: XLA's random masks take long to compile, and few users choose them.
CASES = (Case('xla', 0.0), Case('cudnn', 0.0), Case('splash', 0.0), Case('pallas', 0.0),
         Case('pallas', DROPOUT_RATE), Case('xla', DROPOUT_RATE))


def masked_attention(kept, rate, window, q, k, v):
  """Attention by its equation for q [b, t, h, k], with only the weights in `kept`, bool[b, h, t, t]."""
  import jax
  import jax.numpy as jnp
  k, v = (jnp.repeat(x, q.shape[2] // k.shape[2], axis=2) for x in (k, v))
  scores = jnp.einsum('bthk,bshk->bhts', q, k) * q.shape[-1] ** -0.5
  attended = jnp.tril(jnp.ones(scores.shape[2:], bool))
  if window:
    attended = attended & ~jnp.tril(attended, -window)
  weights = jax.nn.softmax(jnp.where(attended, scores, -jnp.inf))
  return jnp.einsum('bhts,bshk->bthk', jnp.where(kept, weights / (1 - rate), 0), v)


def forward_and_backward(attend, x, keys):
  """A forward and a backward pass: (y [b, t, h, k], gradients of q, k and v).

  Args:
    attend: function of q, k, v and dropout keys.
    x: q [b, t, h, k], k and v [b, t, n_kv_head, k], and the gradient of y.
    keys: key[b] for dropout.
  """
  import jax
  *qkv, gradient = x
  y, vjp = jax.vjp(lambda *qkv: attend(*qkv, keys), *qkv)
  return y, vjp(gradient)


def reference_attention(case):
  """attend(q, k, v, keys) in float32, with the same dropout mask as the kernel of the case."""
  from gptjax.kernels import dropout_hash
  from gptjax.model.attention import attention

  def equation(q, k, v, keys):
    kept = dropout_hash.mask(keys, case.rate, q.shape[2], q.shape[1]) if case.rate else True
    return masked_attention(kept, case.rate, case.window, q, k, v)
  if case.kernel == 'xla' and case.rate:  # its masks are drawn per block, independently of the dtype
    return lambda q, k, v, keys: attention(q, k, v, kernel='xla', rate=case.rate, keys=keys,
                                           window=case.window)
  return equation


def relative_errors(case, x, keys, outputs):
  """Relative errors of y and of the gradients, two floats, on the first sequences."""
  import jax
  import jax.numpy as jnp
  x, keys, outputs = jax.tree.map(lambda array: array[:N_CHECKED], (x, keys, outputs))
  in_float32 = functools.partial(jax.tree.map, lambda array: array.astype(jnp.float32))
  with jax.default_matmul_precision('highest'):
    exact = jax.jit(functools.partial(forward_and_backward, reference_attention(case)))(in_float32(x), keys)
  norm = lambda tree: jnp.linalg.norm(jnp.concatenate([array.ravel() for array in jax.tree.leaves(tree)]))
  relative_error = lambda a, b: norm(jax.tree.map(jnp.subtract, in_float32(a), b)) / norm(b)
  compare = jax.jit(lambda outputs, exact: list(map(relative_error, outputs, exact)))
  return [float(error) for error in compare(outputs, exact)]


def compile_case(case, x, keys):
  """The compiled forward and backward pass of a case."""
  import jax

  from gptjax.model.attention import attention
  attend = lambda q, k, v, keys: attention(q, k, v, kernel=case.kernel, rate=case.rate, keys=keys,
                                           window=case.window)
  return jax.jit(functools.partial(forward_and_backward, attend)).lower(x, keys).compile()


def device_facts():
  """Initialize the device, then compute one exponential; returns [(what, value)] facts."""
  import jax
  import jax.numpy as jnp
  start = time.perf_counter()
  device = jax.devices()[0]
  seconds = time.perf_counter() - start
  value = float(jax.jit(jnp.exp)(jnp.float32(1)))
  return [('device started in s', round(seconds, 2)),
          ('memory of the device, bytes', (device.memory_stats() or {}).get('bytes_limit')),
          ('exp(1)', value), ('exp, compiled and run in s', round(time.perf_counter() - start - seconds, 2))]


def random_inputs(model_config, b):
  """The `x` of `forward_and_backward` for `b` sequences, in bfloat16."""
  import jax

  from gptjax.model import parameters
  c = model_config
  keys, size = jax.random.split(jax.random.key(0), 4), parameters.head_size(c)
  heads = c.n_head, parameters.n_kv_head(c), parameters.n_kv_head(c), c.n_head
  return [jax.random.normal(key, (b, c.n_ctx, n, size), 'bfloat16') for key, n in zip(keys, heads)]


def compile_and_check(what, window, x, keys, records):
  """({case: compiled program}, {case: errors}, {case: why it does not run}, first measurements)."""
  import jax
  programs, errors, failed, measurements = {}, {}, {}, []
  for case in CASES:
    case = case._replace(window=window)
    device = DEVICES.get(case.kernel)
    if device and device != jax.default_backend():
      failed[case] = f'runs on a {device.upper()}'
      continue
    start, name = time.perf_counter(), f'{what}, {case.name}'
    try:
      program = compile_case(case, x, keys)
      seconds, memory = time.perf_counter() - start, program.memory_analysis()
      errors[case] = relative_errors(case, x, keys, program(x, keys))
    except Exception as error:  # a kernel that does not run here is a result too
      failed[case] = str(error).splitlines()[0][:300]
      records.add('fact', what=name, value=f'does not run here: {failed[case]}')
      continue
    programs[case] = program
    records.add('fact', what=f'{name}, errors of y and its gradients in bfloat16', value=errors[case])
    records.add('fact', what=f'{name}, compiled in s', value=round(seconds, 2))
    records.add('fact', what=f'{name}, peak of temporaries in MiB',
                value=memory and round(memory.temp_size_in_bytes / 2**20, 1))
    measurements += measure(what, {case: program}, x, keys, [0], records)
  return programs, errors, failed, measurements


def measure(what, programs, x, keys, turns, records):
  """Measurements of compiled programs, interleaved."""
  import jax
  measurements, calls = [], CALLS[jax.default_backend()]
  for turn in turns:
    for case, program in programs.items():
      start = time.perf_counter()
      for _ in range(calls):
        y = program(x, keys)
      jax.block_until_ready(y)
      seconds = (time.perf_counter() - start) / calls
      measurements.append(results.measurement(what, case.name, 'ms', seconds * 1e3, turn))
      records.add('figure', **measurements[-1])
  return measurements


def main(argv):
  parser = run.Parser(prog='python -m gptjax.benchmark attention', description=__doc__,
                      formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--size', choices=SIZES, default='tiny',
                      help='of the model; cpu: 14M parameters, tiny: for a trial; default: %(default)s')
  parser.add_argument('--n_kv_head', type=integer(0, 1000), default=0,
                      help='heads of keys and values; 0: as many as of queries')
  parser.add_argument('--sliding_window', type=integer(0, 2**20), default=0,
                      help='positions that one attends to; 0: all before it')
  parser.add_argument('--turns', type=integer(1, 1000), default=5,
                      help='measurements of each contender after a warm-up; default: %(default)s')
  results.add_out(parser)
  journal.add_flag(parser)
  flags = parser.parse_args(argv)
  import jax

  from gptjax.model import parameters
  from gptjax.parallel import sharding
  records = journal.Journal(flags.journal)
  records.add('device', name=jax.devices()[0].device_kind)
  for what, value in device_facts():
    records.add('fact', what=what, value=value)
  sharding.ensure_mesh()
  options = {name: getattr(flags, name) for name in ('n_kv_head', 'sliding_window') if getattr(flags, name)}
  c = make_config(flags.size, changes={f'model.{name}': value for name, value in options.items()}).model
  if c.n_head % parameters.n_kv_head(c):
    parser.error(f'--n_kv_head={flags.n_kv_head} does not divide the {c.n_head} heads of {flags.size}')
  b = BATCH[jax.default_backend()]
  x, keys = random_inputs(c, b), jax.random.split(jax.random.key(1), b)
  changed = ''.join(f', {name} {value}' for name, value in options.items())
  what = f'{gates.ATTENTION} {flags.size}{changed}, forward and backward'
  programs, errors, failed, measurements = compile_and_check(what, flags.sliding_window, x, keys, records)
  checks = [results.gate(f'{what}, {case.name}, larger error', '<=', MAX_ERROR, max(pair))
            for case, pair in errors.items()]
  for check in checks:
    records.add('gate', **check)
  measurements += measure(what, programs, x, keys, range(1, flags.turns + 1), records)
  rows = results.summarize(measurements)
  device = '' if jax.default_backend() == 'cpu' else jax.devices()[0].device_kind
  machine = machine_info(PACKAGES, device)
  print_table(machine, x[0].shape, changed, rows, errors, failed)
  checks += gates.attention_gates(rows)
  results.print_gates(checks)
  results.write(flags.out, 'attention', machine, rows, checks,
                failed={case.name: why for case, why in failed.items()},
                errors={case.name: pair for case, pair in errors.items()})
  return int(not errors or not all(check['holds'] for check in checks))


def print_table(machine, shape, changed, rows, errors, failed):
  """Print the speed and the errors of each kernel."""
  print(f'{shape[0]} sequences of {shape[1]}, {shape[2]} heads of {shape[3]}{changed}, bfloat16, on '
        f'{machine["device"]}, {machine["date"]}')
  print(f'{"":<22}{"ms":>10}{"min":>10}{"max":>10}{"error of y":>12}{"of gradients":>14}')
  errors_of = {case.name: pair for case, pair in errors.items()}
  for row in rows:
    y, gradients = errors_of[row['who']]
    print(f'{row["who"]:<22}{row["median"]:>10.3f}{row["least"]:>10.3f}{row["most"]:>10.3f}{y:>12.1e}'
          f'{gradients:>14.1e}')
  for case, why in failed.items():
    print(f'{case.name}: does not run here: {why}')
