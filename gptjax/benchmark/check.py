"""Whether the step computes what it should on the device at hand: python -m gptjax.benchmark check

Loss and gradients in bfloat16 with each attention kernel, beside those in float32 with the plain one at the
highest precision of products; where the kernel `pallas` runs, also its gradients with dropout, beside the
equation with the same weights dropped; then a few steps on one batch, whose loss must fall.
"""

import argparse
import functools

from gptjax import paths
from gptjax.benchmark import results
from gptjax.benchmark.machine import machine
from gptjax.benchmark.train import PACKAGES, SIZES, compiled_step, make_config, random_batch
from gptjax.data import command

LAYERS, BATCH, STEPS = 4, 2, 20
ROUNDING = 0.05  # of bfloat16, the gradient's relative error at the most
ALIKE = 1.5      # times the error of the plain kernel in bfloat16, that another kernel may have


def small(size, changes):
  """The size's widths with few layers, in the dtype and with the kernel that `changes` name."""
  changes = {'model.n_layer': min(LAYERS, make_config(size).model.n_layer), **changes}
  return make_config(size, BATCH, changes)


def loss_and_grads(config, params):
  """Of the config's batch; (float32[], tree like params)."""
  import jax

  from gptjax import config as configs
  from gptjax import sharding, train
  configs.resolve(config, '')
  batch = sharding.put(random_batch(config), sharding.make_mesh(config.mesh))
  compute = functools.partial(train.loss_and_grads, config=config, graphdef=train.graph(config))
  return jax.jit(compute)(params, batch, None)


def errors(size, kernels):
  """{kernel: (relative error of the loss, of the gradient)} in bfloat16, {kernel: why it does not run}."""
  import jax
  import optax

  from gptjax import sharding, train
  exact = small(size, {'model.compute_dtype': 'float32', 'attention.kernel': 'xla'})
  jax.set_mesh(sharding.make_mesh(exact.mesh))
  params = jax.jit(functools.partial(train.init_state, exact))().params
  with jax.default_matmul_precision('highest'):
    loss, grads = loss_and_grads(exact, params)
  found, failed = {}, {}
  for kernel in kernels:
    config = small(size, {'model.compute_dtype': 'bfloat16', 'attention.kernel': kernel})
    try:
      ours, our_grads = loss_and_grads(config, params)
      difference = jax.tree.map(lambda a, b: a - b, our_grads, grads)
      found[kernel] = (float(abs(ours / loss - 1)),
                       float(optax.tree.norm(difference) / optax.tree.norm(grads)))
    except Exception as error:  # a kernel that is not for this device is a finding too
      failed[kernel] = str(error).splitlines()[0][:300]
  return found, failed


def attend_with(kept, rate, q, k, v):
  """The equation of attention, of [b, t, h, k], without the weights that are not `kept`, bool[b, h, t, t]."""
  import jax
  import jax.numpy as jnp
  scores = jnp.einsum('bthk,bshk->bhts', q, k) * q.shape[-1] ** -0.5
  weights = jax.nn.softmax(jnp.where(jnp.tril(jnp.ones(scores.shape[2:], bool)), scores, -jnp.inf))
  return jnp.einsum('bhts,bshk->bthk', jnp.where(kept, weights / (1 - rate), 0), v)


def dropped_error(rate=0.1, b=2, t=1024, h=4, k=64):
  """Relative errors of y and of its gradients in bfloat16, with the kernel `pallas` and dropout."""
  import jax
  import jax.numpy as jnp

  from gptjax import flash, sharding
  sharding.ensure_mesh()
  x = jax.random.normal(jax.random.key(0), (4, b, t, h, k), jnp.bfloat16)
  keys = jax.random.split(jax.random.key(1), b)

  def both(attend, x):
    y, pull = jax.vjp(attend, *x[:3])
    return y, jnp.stack(pull(x[3]))
  ours = jax.jit(functools.partial(both, functools.partial(flash.attend, rate=rate, keys=keys)))(x)
  with jax.default_matmul_precision('highest'):
    plain = functools.partial(both, functools.partial(attend_with, flash.mask(keys, rate, h, t), rate))
    exact = jax.jit(plain)(x.astype(jnp.float32))
  return [float(jnp.linalg.norm(a.astype(jnp.float32) - b) / jnp.linalg.norm(b)) for a, b in zip(ours, exact)]


def falling(size):
  """Losses of a few steps on one batch."""
  config = small(size, {'optimizer.warmup_steps': 1, 'optimizer.learning_rate': 1e-3})
  step, state, batch = compiled_step(config)
  losses = []
  for _ in range(STEPS):
    state, metrics = step(state, batch)
    losses.append(float(metrics['loss']))
  return losses


def main(argv):
  parser = command.Parser(prog='python -m gptjax.benchmark check', description=__doc__,
                          formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--size', choices=SIZES, default='tiny')
  parser.add_argument('--out', type=paths.flag, default='', help='JSON file for the results')
  flags = parser.parse_args(argv)
  import jax

  from gptjax import attention
  found, failed = errors(flags.size, [kernel for kernel in attention.KERNELS if kernel != 'auto'])
  dropped = dropped_error() if 'pallas' in found else []
  losses = falling(flags.size)
  plain = found['xla'][1]
  gates = [results.gate('xla in bfloat16, error of the gradient', '<=', ROUNDING, plain)]
  gates += [results.gate(f"{kernel}, error of the gradient beside xla's", '<=', ALIKE, error / plain)
            for kernel, (_, error) in found.items() if kernel != 'xla']
  gates += [results.gate(f'pallas with dropout, error of {what}', '<=', ROUNDING, error)
            for what, error in zip(('y', 'the gradient'), dropped)]
  gates.append(results.gate(f'loss after {STEPS} steps on one batch, beside the first', '<=', 0.999,
                            losses[-1] / losses[0]))
  device = jax.devices()[0].device_kind
  where = machine(PACKAGES, '' if jax.default_backend() == 'cpu' else device)
  print(f'{flags.size}, at most {LAYERS} layers, on {where["device"]}, {where["date"]}; bfloat16 against '
        'float32:')
  for kernel, (loss, gradient) in found.items():
    print(f'{kernel:<8} loss {loss:.1e}  gradient {gradient:.1e}')
  for kernel, why in failed.items():
    print(f'{kernel:<8} does not run here: {why}')
  results.show_gates(gates)
  results.write(flags.out, 'check', where, [], gates, errors=found, failed=failed, losses=losses)
  return int(not all(gate['holds'] for gate in gates))
