"""Training speed under single changes of the config: python -m gptjax.benchmark variants

Variants run one after the other in one process, all with the same batch size. With --journal each measurement
is on disk as soon as it is taken.
"""

import argparse
import gc
import sys

from gptjax.benchmark import journal, results
from gptjax.benchmark.machine import machine_info
from gptjax.benchmark.results import OURS
from gptjax.benchmark.sizes import SIZES, batch_sizes
from gptjax.benchmark.subjects.train import (
  PACKAGES,
  config_override,
  make_measurement,
  make_trainer,
  memory_limit,
  print_table,
)
from gptjax.command import run
from gptjax.command.flag_types import integer
from gptjax.kernels import xla_presets

BATCH_MEMORY_SHARE = 0.3  # of the memory, for the batch size: some variants need 3 times as much
VARIANTS = {
  'as it is': {}, 'dropout 0.1': {'model.dropout': 0.1}, 'layers scanned': {'model.scan': True},
  'kernel xla': {'attention.kernel': 'xla'}, 'remat dots': {'model.remat': 'dots'},
  'loss in chunks of 512': {'loss.chunk': 512}, 'remat full': {'model.remat': 'full'}}
ON_GPUS = {'kernel pallas': {'attention.kernel': 'pallas'},
           'kernel pallas, dropout 0.1': {'attention.kernel': 'pallas', 'model.dropout': 0.1}}


def available_variants():
  """VARIANTS, and the kernels and compiler presets for this kind of device."""
  import jax
  presets = {f'xla_preset {name}': {'xla_preset': name} for name, (kind, _) in xla_presets.PRESETS.items()
             if kind == jax.default_backend()}
  first = dict(list(VARIANTS.items())[:3])
  return {**first, **(ON_GPUS if jax.default_backend() == 'gpu' else {}), **presets, **VARIANTS}


def main(argv):
  parser = run.Parser(prog='python -m gptjax.benchmark variants', description=__doc__,
                      formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--size', choices=SIZES, default='cpu',
                      help='of the model; cpu: 14M parameters, tiny: for a trial; default: %(default)s')
  parser.add_argument('--turns', type=integer(1, 1000), default=3,
                      help='measurements of each contender after a warm-up; default: %(default)s')
  parser.add_argument('--steps', type=integer(1, 1_000_000), default=5,
                      help='steps per turn; default: %(default)s')
  parser.add_argument('--only', default='', help='variants, comma-separated; default: all')
  parser.add_argument('--set', type=config_override, action='append', default=[], metavar='FIELD=VALUE',
                      help='config field to change in all variants')
  results.add_out(parser)
  journal.add_flag(parser)
  flags = parser.parse_args(argv)
  variants = available_variants()
  if unknown := set(filter(None, flags.only.split(','))) - set(variants):
    parser.error(f'unknown variant {", ".join(sorted(unknown))}: use {", ".join(variants)}')
  return measure(flags, {name: changes for name, changes in variants.items()
                         if not flags.only or name in flags.only.split(',')})


def measure(flags, variants):
  """Measure the variants, print and write the results; returns 1 if none could run."""
  import jax
  machine = machine_info(PACKAGES, '' if jax.default_backend() == 'cpu' else jax.devices()[0].device_kind)
  print(f'{flags.size} on {machine["device"]}, {machine["date"]}')
  memory = memory_limit(OURS, 1)
  batch_size = batch_sizes(flags.size, memory and memory * BATCH_MEMORY_SHARE)[0]
  records, measurements, failed = journal.Journal(flags.journal), [], {}
  for name, changes in variants.items():
    what = f'training {flags.size}, {SIZES[flags.size].dtype}, {name}'
    try:
      train, facts = make_trainer(OURS, flags.size, batch_size, {**dict(flags.set), **changes}, 1)
      for turn in range(1, flags.turns + 1):
        measurements.append(make_measurement(what, OURS, facts, train(flags.steps), turn))
        records.add('figure', **measurements[-1])
    except Exception as error:  # a variant that does not run here is a result too
      failed[name] = str(error).splitlines()[0][:300]
      records.add('fact', what=what, value=f'does not run here: {failed[name]}')
      print(f'{name}: does not run here: {failed[name]}', file=sys.stderr)
    rows = results.summarize(measurements)
    if rows and rows[-1]['what'] == what:
      print(f'\n{name}')
      print_table(rows[-1:])
      sys.stdout.flush()
    results.write(flags.out, 'variants', machine, rows, failed=failed, changes=variants)
    train = facts = None
    jax.clear_caches()
    gc.collect()
  return int(not measurements)
