"""What a step costs each device as more are added: python -m gptjax.benchmark scaling

Weak scaling: each device keeps its number of sequences, so that its work, its memory and the arrays that it
exchanges should stay what they are. Measured on CPU devices of this machine; for TPU v5p read from the
program that its compiler makes, with no TPU (needs gptjax[plan-tpu]).
"""

import argparse
import functools
import math
import sys
import time
from collections import namedtuple

import numpy as np
from tqdm import tqdm

from gptjax.benchmark import results
from gptjax.benchmark.machine import machine
from gptjax.benchmark.subjects.train import make_config, random_batch
from gptjax.command import figures
from gptjax.command import run as command
from gptjax.command.flag_types import Listed, integer
from gptjax.files import paths

FLAT = 0.03  # what may change and still be called the same
LITTLE = 1e-3  # share of all that is sent, below which it is not looked at
SUMS = 'all-reduce', 'reduce-scatter'
CPU_MODEL = dict(n_layer=4, n_head=4, n_embd=128, n_ctx=128, n_vocab=2048, scan=True)

# size: of `benchmark.train`; mesh: sizes of its axes for n devices; state_falls: is it divided among them?
Family = namedtuple('Family', 'name place size batch mesh state_falls')
FAMILIES = (
  Family('cpu-data', 'CPU', 'cpu', 4, lambda n: {'data': n}, False),
  Family('cpu-fsdp', 'CPU', 'cpu', 4, lambda n: {'data': 1, 'fsdp': n}, True),
  Family('tpu-data', 'TPU v5p', '124M', 8, lambda n: {'data': n}, False),
  Family('tpu-fsdp', 'TPU v5p', '1558M', 4, lambda n: {'data': n // 8, 'fsdp': 8}, False),
)
NOT_COVERED = """\
Not in these numbers: the network itself (its latency grows with the ring, its bandwidth is shared and differs
between slices), stragglers, and what hosts do (input, checkpoints, failures). Memory of the runtime and of
the network's buffers is not counted either."""


def shape(chips):
  """The v5p slice of so many chips, a power of two from 8 on, as near to a cube as it gets."""
  sizes = [2, 2, 2]
  for doubling in range(round(math.log2(chips / 8))):
    sizes[2 - doubling % 3] *= 2
  return 'x'.join(map(str, sizes))


def weak(family, n):
  """The config of the family for n devices."""
  config = make_config(family.size, family.batch * n, {'attention.kernel': 'xla'})
  for field, value in (CPU_MODEL if family.place == 'CPU' else {}).items():
    setattr(config.model, field, value)
  config.data.seq_len = config.model.n_ctx
  for axis, size in {'replica': 1, 'data': 1, 'fsdp': 1, 'tensor': 1, **family.mesh(n)}.items():
    setattr(config.mesh, axis, size)
  return config


def row(family, n):
  """One line of the table; bytes and flops are those of one device, a step.

  Returns:
    {'devices', 'mesh', 'flops', 'state', 'whole': what of it is not divided, 'peak', 'compile_seconds',
    'arrays': {kind of collective: bytes that come out of it or, of a scatter, go in},
    'sent': {kind: bytes over the network, by the ring algorithms}};
    on CPU devices 'state' is measured, and there is 'tokens_per_second', of all devices on the same cores.
  """
  import jax

  from gptjax.parallel import sharding
  from gptjax.plan import hlo, program, topology
  config = weak(family, n)
  devices = jax.devices()[:n] if family.place == 'CPU' else topology.describe(f'v5p:{shape(n)}')
  mesh = sharding.make_mesh(config.mesh, devices)
  compiled, cost = program.compile_and_cost(config, mesh)
  measured = run(config, mesh, compiled) if family.place == 'CPU' else {}
  return {'devices': n, 'mesh': dict(mesh.shape), 'flops': cost.flops, 'state': cost.params + cost.optimizer,
          'whole': cost.replicated, 'peak': cost.peak, 'arrays': hlo.bytes_by_kind(cost.collectives,
                                                                                   hlo.full_bytes),
          'sent': hlo.bytes_by_kind(cost.collectives, hlo.sent_bytes), 'compile_seconds': cost.seconds,
          **measured}


def run(config, mesh, compiled, steps=3):
  """Trains for real: bytes of the state on the first device, and tokens a second of all."""
  import jax

  from gptjax.parallel import sharding
  from gptjax.train import step
  with jax.set_mesh(mesh):
    state = jax.jit(functools.partial(step.init_state, config))()
    batch = sharding.shard_batch(random_batch(config), mesh)
    state, metrics = compiled(state, batch)
    start = time.perf_counter()
    for _ in range(steps):
      state, metrics = compiled(state, batch)
    assert np.isfinite(metrics['loss'])
    seconds = time.perf_counter() - start
  held = sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves((state.params, state.opt_state)))
  return {'state': held, 'tokens_per_second': steps * config.train.batch_size * config.data.seq_len / seconds}


def changes(rows, family):
  """{quantity: by how much, relative, its largest value exceeds its smallest}, where theory says: not at all.

  What is sent is compared where the same axes of the mesh are longer than 1: another axis is another sum. The
  compiler is free to write a scatter as a sum and a cut, so both count as one.
  """
  alike = compared(rows)
  kinds = sorted({kind for row in alike for kind in row['arrays']} - set(SUMS))
  series = {'flops': [row['flops'] for row in rows]}
  if family.state_falls:
    series['divided state x devices'] = [(row['state'] - rows[-1]['whole']) * row['devices'] for row in rows]
  else:
    series |= {name: [row[name] for row in rows] for name in ('state', 'peak')}
  summed = lambda row: sum(row['arrays'].get(kind, 0) for kind in SUMS)
  series[f'arrays of {" and ".join(SUMS)}'] = [summed(row) for row in alike]
  series |= {f'arrays of {kind}': [row['arrays'].get(kind, 0) for row in alike] for kind in kinds
             if any(row['arrays'].get(kind, 0) > LITTLE * sum(row['arrays'].values()) for row in alike)}
  return {name: max(values) / min(values) - 1 if min(values, default=0) else math.inf
          for name, values in series.items() if values}


def compared(rows):
  """The rows whose mesh has the same axes longer than 1 as the last one's."""
  axes = lambda row: {axis for axis, size in row['mesh'].items() if size > 1}
  return [row for row in rows if axes(row) == axes(rows[-1])]


def report(rows, family):
  """The table of a family and what grew, as lines."""
  kinds = sorted({kind for row in rows for kind in row['arrays']})
  first, mib = rows[0], lambda value: f'{value / 2**20:,.1f}'
  config = weak(family, first['devices'])
  yield (f'{family.name}: {config.model.n_layer} layers x {config.model.n_embd}, {family.batch} sequences of '
         f'{config.data.seq_len:,} tokens a device, on {family.place}; of one device, a step:')
  heads = ['devices', 'mesh', 'GFLOP', 'state MiB', 'peak MiB', *(f'{kind} MiB (sent)' for kind in kinds),
           *(['tokens/s'] if 'tokens_per_second' in first else [])]
  lines = [[str(row['devices']), ' '.join(f'{axis} {size}' for axis, size in row['mesh'].items() if size > 1),
            f'{row["flops"] / 1e9:,.1f}', mib(row['state']), mib(row['peak']),
            *(f'{mib(row["arrays"].get(kind, 0))} ({mib(row["sent"].get(kind, 0))})' for kind in kinds),
            *([f'{row["tokens_per_second"]:,.0f}'] if 'tokens_per_second' in row else [])] for row in rows]
  widths = [max(map(len, column)) for column in zip(heads, *lines)]
  for line in (heads, *lines):
    yield '  '.join(text.rjust(width) for text, width in zip(line, widths))
  for name, change in changes(rows, family).items():
    yield f'  {"flat" if change <= FLAT else "NOT FLAT"}: {name}, within {change:.1%}'
  if family.state_falls:
    yield (f'  falls as theory says: state, as 1 / devices but for {mib(rows[-1]["whole"])} MiB of gains and '
           'biases, which are whole on each; and peak with it')
  if len(rows) > len(compared(rows)):
    left_out = ', '.join(str(row['devices']) for row in rows if row not in compared(rows))
    yield (f'  grows as theory says: what is summed, once, where one more axis of the mesh is longer than 1 '
           f'(not compared: what {left_out} devices send)')
  if kinds:
    yield ('  grows as theory says: what is sent, from 0 for one device towards the whole array (all-gather, '
           'reduce-scatter: (n - 1) / n of it) or twice that (all-reduce), n devices being in a group')


def draw(tables, path):
  """One column a family: above, quantities beside those of the first row; below, what is sent."""
  figure, panels = figures.figure(2, len(tables), (4.2 * len(tables), 6.5), squeeze=False, sharex='col')
  for (above, below), (family, rows) in zip(panels.T, tables):
    devices = [row['devices'] for row in rows]
    for name in ('flops', 'state', 'peak'):
      above.plot(devices, [row[name] / rows[0][name] for row in rows], marker='o', label=name)
    for kind in sorted({kind for row in rows for kind in row['sent']}):
      line, = below.plot(devices, [row['sent'].get(kind, 0) / 2**20 for row in rows], marker='o', label=kind)
      limit = rows[-1]['arrays'].get(kind, 0) * (2 if kind == 'all-reduce' else 1) / 2**20
      below.axhline(limit, color=line.get_color(), linestyle=':', linewidth=1)
    above.set(title=f'{family.place}, {family.size}: {family.name.partition("-")[2]}', ylim=(0, None))
    below.set(xscale='log', xlabel='devices', ylim=(0, None), xticks=devices, xticklabels=devices)
    below.minorticks_off()
    above.legend(fontsize=8)
    below.legend(fontsize=8)
  panels[0][0].set_ylabel('of one device, beside the first')
  panels[1][0].set_ylabel('MiB sent by one device, a step\n(dotted: the limit)')
  figure.savefig(path, dpi=120)


def counts(text):
  """(8, 16, ...) of '8,16,...'; '': none."""
  found = tuple(Listed(integer(1, 2**16), empty=True)(text))
  if any(n & (n - 1) for n in found):
    raise argparse.ArgumentTypeError(f'{text}: counts of devices are powers of two')
  return found


def main(argv):
  parser = command.Parser(prog='python -m gptjax.benchmark scaling', description=__doc__,
                          formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--cpu', type=counts, default=(1, 2, 4, 8), help="CPU devices; '' for none")
  parser.add_argument('--tpu', type=counts, default=(8, 32, 128, 512, 1024), help="TPU chips; '' for none")
  parser.add_argument('--families', default=','.join(family.name for family in FAMILIES), help='which tables')
  parser.add_argument('--out', type=paths.flag, default='',
                      help='JSON file for the results; the picture goes beside it')
  args = parser.parse_args(argv)
  names = args.families.split(',')
  if unknown := set(names) - {family.name for family in FAMILIES}:
    parser.error(f'no such family: {", ".join(sorted(unknown))}')
  if min(args.tpu, default=8) < 8:
    parser.error('the smallest slice here has 8 chips')
  import jax
  jax.config.update('jax_platforms', 'cpu')
  jax.config.update('jax_num_cpu_devices', max(args.cpu, default=1))
  return measure({family: args.cpu if family.place == 'CPU' else args.tpu for family in FAMILIES
                  if family.name in names}, args.out)


def measure(families, out):
  """Fills, prints and draws the tables; 1 if something is not flat that should be."""
  tables, worst = [], 0.0
  with tqdm(total=sum(map(len, families.values())), unit='program', disable=not sys.stderr.isatty()) as bar:
    for family, devices in families.items():
      rows = []
      for n in devices:
        rows.append(row(family, n))
        bar.update()
      if rows:
        tables.append((family, rows))
        worst = max(worst, *changes(rows, family).values())
        tqdm.write('\n'.join(report(rows, family)) + '\n', file=sys.stdout)
  print(NOT_COVERED)
  if out:
    speeds = [results.row(f'weak scaling, {family.name}', f'{row["devices"]} devices', 'tokens/s',
                        [row['tokens_per_second']])
              for family, rows in tables for row in rows if 'tokens_per_second' in row]
    gates = [results.gate(f'{family.name}, {name}: grows by', '<=', FLAT, change)
             for family, rows in tables for name, change in changes(rows, family).items()]
    results.write(out, 'scaling', machine(('jax', 'jaxlib', 'libtpu')), speeds, gates,
                families={family.name: rows for family, rows in tables})
    draw(tables, f'{out.removesuffix(".json")}.png')
  return int(worst > FLAT)
