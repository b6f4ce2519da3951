"""The command: python -m gptjax.plan --config=configs/gpt2_xl.py --topology=v5e:16x16"""

if __name__ == '__main__':
  from gptjax.command import shutdown, startup
  from gptjax.parallel import jax_settings
  startup.begin('plan', 'stopped', stdout_is_result=True)
  from gptjax.plan import flags as plan_flags
  plan_flags.handle_help()
  jax_settings.begin('plan')

import os
import sys

from absl import flags, logging

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')  # before JAX is imported

import jax

from gptjax import errors
from gptjax.config import command_line
from gptjax.config import resolve as configs
from gptjax.errors import InputError
from gptjax.parallel import sharding
from gptjax.plan import estimate, hardware, kernels, report, topology
from gptjax.plan import flags as plan_flags
from gptjax.plan.search import apply_settings, search

FLAGS = flags.FLAGS


def run(config, name, options):
  """Print the plan, the ranked plans or the attention kernels; returns 0, or 1 if no plan fits."""
  jax.config.update('jax_platforms', 'cpu')
  topology.check_name(name)
  device, devices = hardware.device_for(name), topology.describe(name)
  configs.resolve(config, '', devices[0])  # for these devices, not those of this machine
  config.train.steps = config.train.steps or (0 if config.train.epochs else 1)
  configs.check(config, devices[0])
  if options.kernels:
    mesh = sharding.make_mesh(config.mesh, devices)
    sharding.check(config, mesh)
    print(kernels.table(kernels.estimate_kernels(config, mesh, device), config, mesh, name))
    return 0
  if not options.search and (mesh := valid_mesh(config, devices)):
    plan = estimate.plan(config, mesh, device)
  else:
    ranked = search(config, devices, device, options.few if options.search else 1)
    print(report.ranking_table(ranked, name, device) + '\n')
    settings, plan = ranked[0]
    apply_settings(config, settings)
    mesh = sharding.make_mesh(config.mesh, devices)
  print(report.plan_text(plan, config, mesh, name, device, options.price))
  return int(not plan.fits(device))


def valid_mesh(config, devices):
  """Return the config's mesh of these devices; if it does not fit, print why and return None."""
  try:
    mesh = sharding.make_mesh(config.mesh, devices)
    sharding.check(config, mesh)
  except InputError as error:
    print(f'{error}; planning the mesh with the best estimate instead (--search compiles more)\n')
    return None
  return mesh


def main(argv):
  try:
    plan_flags.handle_help(argv)
    command_line.parse_flags(FLAGS, argv, ('topology',), plan_flags.USAGE.example)
    return run(FLAGS.config, FLAGS.topology, FLAGS)
  except Exception as error:
    code = errors.print_line(error, 'gptjax')
    if code is None:
      raise
    return code


if __name__ == '__main__':
  logging.set_verbosity(logging.WARNING)
  exit_code = main(sys.argv)
  shutdown.ignore_signals()
  sys.exit(exit_code)
