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
from gptjax.storage.files import paths

DROPOUT_RATE = 0.1
MAX_ERROR = 0.05  # relative; bfloat16 has 8 bits of precision
N_CHECKED = 2     # sequences for which errors are computed: float32 materializes all scores
BATCH, CALLS = {'cpu': 2, 'gpu': 32, 'tpu': 32}, {'cpu': 1, 'gpu': 20, 'tpu': 20}  # CALLS per turn
DEVICES = {'cudnn': 'gpu', 'pallas': 'gpu', 'splash': 'tpu'}


class Case(NamedTuple):
  """A kernel with a dropout rate."""
  kernel: str
  rate: float

  @property
  def name(self):
    return f'{self.kernel}, dropout {self.rate}' if self.rate else self.kernel


# Most important first: XLA's random masks take long to compile, and few users choose them.
CASES = (Case('xla', 0.0), Case('cudnn', 0.0), Case('splash', 0.0), Case('pallas', 0.0),
         Case('pallas', DROPOUT_RATE), Case('xla', DROPOUT_RATE))


def masked_attention(kept, rate, q, k, v):
  """Attention by its equation for [b, t, h, k], with only the weights in `kept`, bool[b, h, t, t]."""
  import jax
  import jax.numpy as jnp
  scores = jnp.einsum('bthk,bshk->bhts', q, k) * q.shape[-1] ** -0.5
  weights = jax.nn.softmax(jnp.where(jnp.tril(jnp.ones(scores.shape[2:], bool)), scores, -jnp.inf))
  return jnp.einsum('bhts,bshk->bthk', jnp.where(kept, weights / (1 - rate), 0), v)


def forward_and_backward(attend, x, keys):
  """A forward and a backward pass: (y [b, t, h, k], gradients of q, k and v [3, b, t, h, k]).

  Args:
    attend: function of q, k, v and dropout keys.
    x: [4, b, t, h, k]: q, k, v and the gradient of y.
    keys: key[b] for dropout.
  """
  import jax
  import jax.numpy as jnp
  y, vjp = jax.vjp(lambda *qkv: attend(*qkv, keys), *x[:3])
  return y, jnp.stack(vjp(x[3]))


def reference_attention(case):
  """attend(q, k, v, keys) in float32, with the same dropout mask as the kernel of the case."""
  from gptjax.kernels import dropout_hash
  from gptjax.model.attention import attention

  def equation(q, k, v, keys):
    kept = dropout_hash.mask(keys, case.rate, q.shape[2], q.shape[1]) if case.rate else True
    return masked_attention(kept, case.rate, q, k, v)
  if case.kernel == 'xla' and case.rate:  # its masks are drawn per block, independently of the dtype
    return lambda q, k, v, keys: attention(q, k, v, kernel='xla', rate=case.rate, keys=keys)
  return equation


def relative_errors(case, x, keys, outputs):
  """Relative errors of y and of the gradients, two floats, on the first sequences."""
  import jax
  import jax.numpy as jnp
  x_checked, keys = x[:, :N_CHECKED], keys[:N_CHECKED]
  with jax.default_matmul_precision('highest'):
    compute = jax.jit(functools.partial(forward_and_backward, reference_attention(case)))
    exact = compute(x_checked.astype(jnp.float32), keys)
  norm = lambda x: jnp.linalg.norm(x.ravel())
  relative_error = lambda a, b: norm(a.astype(jnp.float32) - b) / norm(b)
  compare = jax.jit(lambda y, grads, exact: (relative_error(y, exact[0]), relative_error(grads, exact[1])))
  return [float(error) for error in compare(outputs[0][:N_CHECKED], outputs[1][:, :N_CHECKED], exact)]


def compile_case(case, x, keys):
  """The compiled forward and backward pass of a case."""
  import jax

  from gptjax.model.attention import attention
  attend = lambda q, k, v, keys: attention(q, k, v, kernel=case.kernel, rate=case.rate, keys=keys)
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


def compile_and_check(what, x, keys, records):
  """({case: compiled program}, {case: errors}, {case: why it does not run}, first measurements)."""
  import jax
  programs, errors, failed, measurements = {}, {}, {}, []
  for case in CASES:
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
  parser.add_argument('--size', choices=SIZES, default='tiny')
  parser.add_argument('--turns', type=integer(1, 1000), default=5)
  parser.add_argument('--out', type=paths.flag, default='', help='JSON file for the results')
  journal.add_flag(parser)
  flags = parser.parse_args(argv)
  import jax
  import jax.numpy as jnp

  from gptjax.parallel import sharding
  records = journal.Journal(flags.journal)
  records.add('device', name=jax.devices()[0].device_kind)
  for what, value in device_facts():
    records.add('fact', what=what, value=value)
  sharding.ensure_mesh()
  c, b = make_config(flags.size).model, BATCH[jax.default_backend()]
  shape = 4, b, c.n_ctx, c.n_head, c.n_embd // c.n_head
  x, keys = jax.random.normal(jax.random.key(0), shape, jnp.bfloat16), jax.random.split(jax.random.key(1), b)
  what = f'{gates.ATTENTION} {flags.size}, forward and backward'
  programs, errors, failed, measurements = compile_and_check(what, x, keys, records)
  checks = [results.gate(f'{what}, {case.name}, larger error', '<=', MAX_ERROR, max(pair))
            for case, pair in errors.items()]
  for check in checks:
    records.add('gate', **check)
  measurements += measure(what, programs, x, keys, range(1, flags.turns + 1), records)
  rows = results.summarize(measurements)
  device = '' if jax.default_backend() == 'cpu' else jax.devices()[0].device_kind
  machine = machine_info(PACKAGES, device)
  print_table(machine, shape, rows, errors, failed)
  checks += gates.attention_gates(rows)
  results.print_gates(checks)
  results.write(flags.out, 'attention', machine, rows, checks,
                failed={case.name: why for case, why in failed.items()},
                errors={case.name: pair for case, pair in errors.items()})
  return int(not errors or not all(check['holds'] for check in checks))


def print_table(machine, shape, rows, errors, failed):
  """Print the speed and the errors of each kernel."""
  print(f'{shape[1]} sequences of {shape[2]}, {shape[3]} heads of {shape[4]}, bfloat16, on '
        f'{machine["device"]}, {machine["date"]}')
  print(f'{"":<22}{"ms":>10}{"min":>10}{"max":>10}{"error of y":>12}{"of gradients":>14}')
  errors_of = {case.name: pair for case, pair in errors.items()}
  for row in rows:
    y, gradients = errors_of[row['who']]
    print(f'{row["who"]:<22}{row["median"]:>10.3f}{row["least"]:>10.3f}{row["most"]:>10.3f}{y:>12.1e}'
          f'{gradients:>14.1e}')
  for case, why in failed.items():
    print(f'{case.name}: does not run here: {why}')
