"""Accuracy of the training step on this device: python -m gptjax.benchmark check

Compares loss and gradients in bfloat16 with each attention kernel to those in float32 with the plain kernel
at the highest matmul precision; then trains a few steps on one batch, whose loss must fall. For attention
alone, with dropout and with its speed, see python -m gptjax.benchmark attention.
"""

import argparse
import functools

from gptjax.benchmark import journal, results
from gptjax.benchmark.machine import machine_info
from gptjax.benchmark.sizes import SIZES, make_config, random_batch
from gptjax.benchmark.subjects.train import PACKAGES, compiled_step
from gptjax.command import run

LAYERS, BATCH, STEPS = 4, 2, 20
MAX_ERROR = 0.05       # relative error of the gradient in bfloat16
MAX_ERROR_RATIO = 1.5  # of another kernel's error in bfloat16 to the plain kernel's


def reduced_config(size, changes):
  """A config with the widths of a size but few layers, and with `changes` applied."""
  changes = {'model.n_layer': min(LAYERS, make_config(size).model.n_layer), **changes}
  return make_config(size, BATCH, changes)


def loss_and_grads(config, params):
  """Loss and gradients for the batch of the config: (float32[], tree like params)."""
  import jax

  from gptjax.config import resolve as configs
  from gptjax.parallel import sharding
  from gptjax.train import step as train
  configs.resolve(config, '')
  batch = sharding.shard_batch(random_batch(config), sharding.make_mesh(config.mesh))
  compute = functools.partial(train.loss_and_grads, config=config, graphdef=train.graph(config))
  return jax.jit(compute)(params, batch, None)


def relative_error(grads, exact):
  """Relative error of a tree: float32[]."""
  import jax
  import optax
  return optax.tree.norm(jax.tree.map(lambda a, b: a - b, grads, exact)) / optax.tree.norm(exact)


def kernel_errors(size, kernels, on_result=lambda kernel, result: None):
  """{kernel: (relative error of the loss, of the gradient)} in bfloat16, {kernel: why it does not run}.

  on_result: function of a kernel and its errors or the reason why it does not run, called after each kernel.
  """
  import jax

  from gptjax.parallel import sharding
  from gptjax.train import step as train
  exact = reduced_config(size, {'model.compute_dtype': 'float32', 'attention.kernel': 'xla'})
  jax.set_mesh(sharding.make_mesh(exact.mesh))
  params = jax.jit(functools.partial(train.init_state, exact))().params
  with jax.default_matmul_precision('highest'):
    loss, grads = loss_and_grads(exact, params)
  compare, errors, failed = jax.jit(relative_error), {}, {}
  for kernel in kernels:
    config = reduced_config(size, {'model.compute_dtype': 'bfloat16', 'attention.kernel': kernel})
    try:
      kernel_loss, kernel_grads = loss_and_grads(config, params)
      errors[kernel] = (abs(float(kernel_loss) / float(loss) - 1), float(compare(kernel_grads, grads)))
    except Exception as error:  # a kernel that does not run on this device is a result too
      failed[kernel] = str(error).splitlines()[0][:300]
    on_result(kernel, errors.get(kernel) or f'does not run here: {failed[kernel]}')
  return errors, failed


def overfit_losses(size):
  """Losses of a few steps on one batch."""
  config = reduced_config(size, {'optimizer.warmup_steps': 1, 'optimizer.learning_rate': 1e-3})
  step, state, batch = compiled_step(config)
  losses = []
  for _ in range(STEPS):
    state, metrics = step(state, batch)
    losses.append(float(metrics['loss']))
  return losses


def main(argv):
  parser = run.Parser(prog='python -m gptjax.benchmark check', description=__doc__,
                      formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--size', choices=SIZES, default='tiny',
                      help='of the model; cpu: 14M parameters, tiny: for a trial; default: %(default)s')
  results.add_out(parser)
  journal.add_flag(parser)
  flags = parser.parse_args(argv)
  import jax

  from gptjax.model import attention
  records = journal.Journal(flags.journal)

  def on_result(kernel, result):
    what = f'step of {flags.size}, {kernel}, errors of loss and gradient in bfloat16'
    records.add('fact', what=what, value=result)

  kernels = [kernel for kernel in attention.KERNELS if kernel != 'auto']
  errors, failed = kernel_errors(flags.size, kernels, on_result)
  losses = overfit_losses(flags.size)
  gates = make_gates(errors, losses)
  for gate in gates:
    records.add('gate', **gate)
  device = jax.devices()[0].device_kind
  machine = machine_info(PACKAGES, '' if jax.default_backend() == 'cpu' else device)
  print(f'{flags.size}, at most {LAYERS} layers, on {machine["device"]}, {machine["date"]}; bfloat16 against '
        'float32:')
  for kernel, (loss, gradient) in errors.items():
    print(f'{kernel:<8} loss {loss:.1e}  gradient {gradient:.1e}')
  for kernel, why in failed.items():
    print(f'{kernel:<8} does not run here: {why}')
  results.print_gates(gates)
  results.write(flags.out, 'check', machine, [], gates, errors=errors, failed=failed, losses=losses)
  return int(not all(gate['holds'] for gate in gates))


def make_gates(errors, losses):
  """Gates of the results of `kernel_errors` and of `overfit_losses`."""
  plain_error = errors['xla'][1]
  gates = [results.gate('xla in bfloat16, error of the gradient', '<=', MAX_ERROR, plain_error)]
  gates += [results.gate(f"{kernel}, error of the gradient relative to xla's", '<=', MAX_ERROR_RATIO,
                         error / plain_error) for kernel, (_, error) in errors.items() if kernel != 'xla']
  return [*gates, results.gate(f'loss after {STEPS} steps on one batch, relative to the first', '<=', 0.999,
                               losses[-1] / losses[0])]
