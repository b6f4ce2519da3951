"""Each attention kernel, right and how fast: python -m gptjax.benchmark attention

What the device is, one exponential as the first program, then for each kernel, with dropout where it has
that: the relative errors of its result and gradients in bfloat16, beside the equation in float32 with the
same weights dropped, then milliseconds of a forward and a backward pass, all kernels interleaved.
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
from gptjax.files import paths

DROPOUT_RATE = 0.1
MAX_ERROR = 0.05  # relative error at the most: bfloat16 has 8 bits
N_CHECKED = 2     # sequences whose errors are computed: float32 keeps all scores
BATCH, CALLS = {'cpu': 2, 'gpu': 32, 'tpu': 32}, {'cpu': 1, 'gpu': 20, 'tpu': 20}  # of a turn
DEVICES = {'cudnn': 'gpu', 'pallas': 'gpu', 'splash': 'tpu'}


class Case(NamedTuple):
  """A kernel with a rate of dropout."""
  kernel: str
  rate: float

  @property
  def name(self):
    return f'{self.kernel}, dropout {self.rate}' if self.rate else self.kernel


# In order of worth: random masks of XLA's are long to compile, and nobody's first choice.
CASES = (Case('xla', 0.0), Case('cudnn', 0.0), Case('splash', 0.0), Case('pallas', 0.0),
         Case('pallas', DROPOUT_RATE), Case('xla', DROPOUT_RATE))


def masked_attention(kept, rate, q, k, v):
  """The equation of attention, of [b, t, h, k], without the weights that are not `kept`, bool[b, h, t, t]."""
  import jax
  import jax.numpy as jnp
  scores = jnp.einsum('bthk,bshk->bhts', q, k) * q.shape[-1] ** -0.5
  weights = jax.nn.softmax(jnp.where(jnp.tril(jnp.ones(scores.shape[2:], bool)), scores, -jnp.inf))
  return jnp.einsum('bhts,bshk->bthk', jnp.where(kept, weights / (1 - rate), 0), v)


def forward_and_backward(attend, x, keys):
  """A forward and a backward pass: (y [b, t, h, k], gradients of q, k and v [3, b, t, h, k]).

  Args:
    attend: function of q, k, v and keys.
    x: [4, b, t, h, k], q, k, v and the gradient of y.
    keys: key[b], of dropout.
  """
  import jax
  import jax.numpy as jnp
  y, pull = jax.vjp(lambda *qkv: attend(*qkv, keys), *x[:3])
  return y, jnp.stack(pull(x[3]))


def reference_attention(case):
  """attend(q, k, v, keys) in float32 that drops what the kernel drops."""
  from gptjax.kernels import flash
  from gptjax.model.attention import attention

  def equation(q, k, v, keys):
    kept = flash.mask(keys, case.rate, q.shape[2], q.shape[1]) if case.rate else True
    return masked_attention(kept, case.rate, q, k, v)
  if case.kernel == 'xla' and case.rate:  # its masks are drawn by blocks, whatever the dtype
    return lambda q, k, v, keys: attention(q, k, v, kernel='xla', rate=case.rate, keys=keys)
  return equation


def relative_errors(case, x, keys, ours):
  """Relative errors of y and of the gradients, two floats, on the first sequences."""
  import jax
  import jax.numpy as jnp
  some, keys = x[:, :N_CHECKED], keys[:N_CHECKED]
  with jax.default_matmul_precision('highest'):
    compute = jax.jit(functools.partial(forward_and_backward, reference_attention(case)))
    exact = compute(some.astype(jnp.float32), keys)
  apart = lambda a, b: jnp.linalg.norm((a.astype(jnp.float32) - b).ravel()) / jnp.linalg.norm(b.ravel())
  compare = jax.jit(lambda y, grads, exact: (apart(y, exact[0]), apart(grads, exact[1])))
  return [float(error) for error in compare(ours[0][:N_CHECKED], ours[1][:, :N_CHECKED], exact)]


def compile_case(case, x, keys):
  """The program of a case, forward and backward."""
  import jax

  from gptjax.model.attention import attention
  attend = lambda q, k, v, keys: attention(q, k, v, kernel=case.kernel, rate=case.rate, keys=keys)
  return jax.jit(functools.partial(forward_and_backward, attend)).lower(x, keys).compile()


def device_facts():
  """Starts the device, then computes one exponential: [(what, value)] facts."""
  import jax
  import jax.numpy as jnp
  began = time.perf_counter()
  device = jax.devices()[0]
  started = time.perf_counter() - began
  value = float(jax.jit(jnp.exp)(jnp.float32(1)))
  return [('device started in s', round(started, 2)),
          ('memory of the device, bytes', (device.memory_stats() or {}).get('bytes_limit')),
          ('exp(1)', value), ('exp, compiled and run in s', round(time.perf_counter() - began - started, 2))]


def compile_and_check(what, x, keys, kept):
  """({case: its program}, {case: its errors}, {case: why it does not run}, a figure of each)."""
  import jax
  found, off, failed, figures = {}, {}, {}, []
  for case in CASES:
    wanted = DEVICES.get(case.kernel)
    if wanted and wanted != jax.default_backend():
      failed[case] = f'runs on a {wanted.upper()}'
      continue
    began, name = time.perf_counter(), f'{what}, {case.name}'
    try:
      program = compile_case(case, x, keys)
      seconds, memory = time.perf_counter() - began, program.memory_analysis()
      off[case] = relative_errors(case, x, keys, program(x, keys))
    except Exception as error:  # what does not run here is a finding too
      failed[case] = str(error).splitlines()[0][:300]
      kept.add('fact', what=name, value=f'does not run here: {failed[case]}')
      continue
    found[case] = program
    kept.add('fact', what=f'{name}, errors of y and its gradients in bfloat16', value=off[case])
    kept.add('fact', what=f'{name}, compiled in s', value=round(seconds, 2))
    kept.add('fact', what=f'{name}, peak of temporaries in MiB',
             value=memory and round(memory.temp_size_in_bytes / 2**20, 1))
    figures += measure(what, {case: program}, x, keys, [0], kept)
  return found, off, failed, figures


def measure(what, found, x, keys, turns, kept):
  """`results.figure`s of programs, interleaved."""
  import jax
  figures, calls = [], CALLS[jax.default_backend()]
  for turn in turns:
    for case, program in found.items():
      began = time.perf_counter()
      for _ in range(calls):
        y = program(x, keys)
      jax.block_until_ready(y)
      taken = (time.perf_counter() - began) / calls
      figures.append(results.measurement(what, case.name, 'ms', taken * 1e3, turn))
      kept.add('figure', **figures[-1])
  return figures


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
  kept = journal.Journal(flags.journal)
  kept.add('device', name=jax.devices()[0].device_kind)
  for what, value in device_facts():
    kept.add('fact', what=what, value=value)
  sharding.ensure_mesh()
  c, b = make_config(flags.size).model, BATCH[jax.default_backend()]
  shape = 4, b, c.n_ctx, c.n_head, c.n_embd // c.n_head
  x, keys = jax.random.normal(jax.random.key(0), shape, jnp.bfloat16), jax.random.split(jax.random.key(1), b)
  what = f'{gates.ATTENTION} {flags.size}, forward and backward'
  found, off, failed, figures = compile_and_check(what, x, keys, kept)
  checks = [results.gate(f'{what}, {case.name}, larger error', '<=', MAX_ERROR, max(pair))
            for case, pair in off.items()]
  for check in checks:
    kept.add('gate', **check)
  rows = results.summarize(figures + measure(what, found, x, keys, range(1, flags.turns + 1), kept))
  where = machine_info(PACKAGES, '' if jax.default_backend() == 'cpu' else jax.devices()[0].device_kind)
  print_table(where, shape, rows, off, failed)
  checks += gates.attention_gates(rows)
  results.print_gates(checks)
  results.write(flags.out, 'attention', where, rows, checks,
                failed={case.name: why for case, why in failed.items()},
                errors={case.name: pair for case, pair in off.items()})
  return int(not off or not all(check['holds'] for check in checks))


def print_table(where, shape, rows, off, failed):
  print(f'{shape[1]} sequences of {shape[2]}, {shape[3]} heads of {shape[4]}, bfloat16, on '
        f'{where["device"]}, {where["date"]}')
  print(f'{"":<22}{"ms":>10}{"least":>10}{"most":>10}{"error of y":>12}{"of gradients":>14}')
  errors_of = {case.name: pair for case, pair in off.items()}
  for row in rows:
    y, gradients = errors_of[row['who']]
    print(f'{row["who"]:<22}{row["median"]:>10.3f}{row["least"]:>10.3f}{row["most"]:>10.3f}{y:>12.1e}'
          f'{gradients:>14.1e}')
  for case, why in failed.items():
    print(f'{case.name}: does not run here: {why}')
