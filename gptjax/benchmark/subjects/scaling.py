"""Weak scaling, the cost of a step per device as devices are added: python -m gptjax.benchmark scaling

In weak scaling each device keeps its number of sequences, so that its work, its memory and the arrays that it
exchanges should stay the same. CPU devices of this machine are measured; for TPU v5p the numbers come from
the program that its compiler makes, without a TPU (needs gptjax[plan-tpu]).
"""

import argparse
import functools
import math
import sys
import time
from collections import namedtuple
from pathlib import Path

import numpy as np

from gptjax.benchmark import journal, results
from gptjax.benchmark.machine import machine_info
from gptjax.benchmark.subjects.train import make_config, random_batch
from gptjax.command import bars, figures
from gptjax.command import run as command
from gptjax.command.flag_types import Listed, integer
from gptjax.plan import hlo

FLAT = 0.03  # relative change that still counts as none
NEGLIGIBLE = 1e-3  # share of all exchanged bytes below which a collective is ignored
SUMS = 'all-reduce', 'reduce-scatter'
SLICE = 64  # chips of each slice of the family tpu-slices
CPU_MODEL = dict(n_layer=4, n_head=4, n_embd=128, n_ctx=128, n_vocab=2048, scan=True)

# size: of `benchmark.train`; mesh: function from n devices to the sizes of the mesh axes; state_is_sharded:
# whether the state is divided among the devices.
Family = namedtuple('Family', 'name platform size batch mesh state_is_sharded')
FAMILIES = (
  Family('cpu-data', 'CPU', 'cpu', 4, lambda n: {'data': n}, False),
  Family('cpu-fsdp', 'CPU', 'cpu', 4, lambda n: {'data': 1, 'fsdp': n}, True),
  Family('tpu-data', 'TPU v5p', '124M', 8, lambda n: {'data': n}, False),
  Family('tpu-fsdp', 'TPU v5p', '1558M', 4, lambda n: {'data': n // 8, 'fsdp': 8}, False),
  Family('tpu-slices', 'TPU v5p', '1558M', 4, lambda n: {'replica': n // SLICE, 'data': SLICE // 8,
                                                         'fsdp': 8}, False),
)
NOT_COVERED = """\
Not included: the network itself (its latency grows with the ring, its bandwidth is shared and differs
between slices), stragglers, and the work of hosts (input, checkpoints, failures). Memory of the runtime and
of network buffers is not counted either."""


def slice_topology(chips):
  """The topology of a v5p slice as close to a cube as possible; chips: a power of two, at least 8."""
  sizes = [2, 2, 2]
  for doubling in range(round(math.log2(chips / 8))):
    sizes[2 - doubling % 3] *= 2
  return 'x'.join(map(str, sizes))


def topology_name(family, n):
  """The topology of a TPU family for n chips."""
  slices = family.mesh(n).get('replica', 1)
  return f'v5p:{slice_topology(n // slices)}{f"x{slices}" if slices > 1 else ""}'


def weak_scaling_config(family, n):
  """The config of the family for n devices."""
  config = make_config(family.size, family.batch * n, {'attention.kernel': 'xla'})
  for field, value in (CPU_MODEL if family.platform == 'CPU' else {}).items():
    setattr(config.model, field, value)
  config.data.seq_len = config.model.n_ctx
  for axis, size in {'replica': 1, 'data': 1, 'fsdp': 1, 'tensor': 1, **family.mesh(n)}.items():
    setattr(config.mesh, axis, size)
  return config


def measure_row(family, n):
  """One line of the table; bytes and FLOPs are per device and step.

  Returns:
    {'devices', 'mesh', 'flops', 'state', 'whole': bytes of the state that are replicated, 'peak',
    'compile_seconds', 'arrays': {kind of collective: bytes of its result, or of its input for a scatter},
    'sent': {kind: bytes over the network, by the ring algorithms}, 'collectives': {kind: number of runs}};
    a kind of collective may end in ' between slices';
    on CPU devices 'state' is measured, and 'tokens_per_second' is added, of all devices on the same cores.
  """
  import jax

  from gptjax.parallel import sharding
  from gptjax.plan import program, topology
  config = weak_scaling_config(family, n)
  devices = jax.devices()[:n] if family.platform == 'CPU' else topology.describe(
    topology_name(family, n))
  mesh = sharding.make_mesh(config.mesh, devices)
  compiled, cost = program.compile_and_cost(config, mesh)
  measured = run_steps(config, mesh, compiled) if family.platform == 'CPU' else {}
  return {'devices': n, 'mesh': dict(mesh.shape), 'flops': cost.flops, 'state': cost.params + cost.optimizer,
          'whole': cost.replicated, 'peak': cost.peak,
          'arrays': hlo.by_kind(cost.collectives, hlo.full_bytes),
          'sent': hlo.by_kind(cost.collectives, hlo.sent_bytes),
          'collectives': hlo.by_kind(cost.collectives, lambda collective: collective.runs),
          'compile_seconds': cost.seconds,
          **measured}


def run_steps(config, mesh, compiled, steps=3):
  """Train a few steps; returns bytes of the state on the first device, and tokens per second of all."""
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
  leaves = jax.tree.leaves((state.params, state.opt_state))
  tokens = steps * config.train.batch_size * config.data.seq_len
  return {'state': sum(x.addressable_shards[0].data.nbytes for x in leaves),
          'tokens_per_second': tokens / seconds}


def relative_changes(rows, family):
  """{quantity: relative excess of its largest value over its smallest}, where none is expected.

  Exchanged bytes are compared between rows whose meshes have the same axes longer than 1: another axis adds
  another sum. The compiler may replace a reduce-scatter by an all-reduce and a slice, so both count as one.
  One row alone is compared with nothing.
  """
  comparable = comparable_rows(rows)
  kinds = sorted({kind for row in comparable for kind in row['arrays']} - set(SUMS))
  series = {'flops': [row['flops'] for row in rows]}
  if family.state_is_sharded:
    series['divided state x devices'] = [(row['state'] - rows[-1]['whole']) * row['devices'] for row in rows]
  else:
    series |= {name: [row[name] for row in rows] for name in ('state', 'peak')}
  reduced_bytes = lambda row: sum(row['arrays'].get(kind, 0) for kind in SUMS)
  series[f'arrays of {" and ".join(SUMS)}'] = [reduced_bytes(row) for row in comparable]
  share_of = lambda kind, row: row['arrays'].get(kind, 0) / max(sum(row['arrays'].values()), 1)
  series['collectives per step'] = [sum(row['collectives'].values()) for row in comparable]
  series |= {f'arrays of {kind}': [row['arrays'].get(kind, 0) for row in comparable] for kind in kinds
             if any(share_of(kind, row) > NEGLIGIBLE for row in comparable)}
  return {name: max(values) / min(values) - 1 if min(values, default=0) else math.inf
          for name, values in series.items() if len(values) > 1}


def comparable_rows(rows):
  """The rows whose mesh has the same axes longer than 1 as that of the last row."""
  axes = lambda row: {axis for axis, size in row['mesh'].items() if size > 1}
  return [row for row in rows if axes(row) == axes(rows[-1])]


def format_table(rows, family):
  """Yield the lines of the table of a family, and a line for each quantity that grows."""
  kinds = sorted({kind for row in rows for kind in row['arrays']})
  first, mib = rows[0], lambda value: f'{value / 2**20:,.1f}'
  config = weak_scaling_config(family, first['devices'])
  yield (f'{family.name}: {config.model.n_layer} layers x {config.model.n_embd}, {family.batch} sequences of '
         f'{config.data.seq_len:,} tokens per device, on {family.platform}; per device and step:')
  heads = ['devices', 'mesh', 'GFLOP', 'state MiB', 'peak MiB', 'collectives',
           *(f'{kind} MiB (sent)' for kind in kinds), *(['tokens/s'] if 'tokens_per_second' in first else [])]
  lines = [[str(row['devices']), ' '.join(f'{axis} {size}' for axis, size in row['mesh'].items() if size > 1),
            f'{row["flops"] / 1e9:,.1f}', mib(row['state']), mib(row['peak']),
            f'{sum(row["collectives"].values()):,}',
            *(f'{mib(row["arrays"].get(kind, 0))} ({mib(row["sent"].get(kind, 0))})' for kind in kinds),
            *([f'{row["tokens_per_second"]:,.0f}'] if 'tokens_per_second' in row else [])] for row in rows]
  widths = [max(map(len, column)) for column in zip(heads, *lines)]
  for line in (heads, *lines):
    yield '  '.join(text.rjust(width) for text, width in zip(line, widths))
  for name, change in relative_changes(rows, family).items():
    yield f'  {"flat" if change <= FLAT else "NOT FLAT"}: {name}, within {change:.1%}'
  if family.state_is_sharded:
    yield (f'  falls as expected: state, as 1 / devices except {mib(rows[-1]["whole"])} MiB of gains and '
           'biases, which are replicated; and peak with it')
  if len(rows) > len(comparable_rows(rows)):
    excluded = ', '.join(str(row['devices']) for row in rows if row not in comparable_rows(rows))
    yield ('  grows once: arrays and collectives, when another mesh axis exceeds 1 (not compared: '
           f'{excluded} devices)')
  if kinds:
    yield ('  grows as expected: bytes sent, from 0 for one device towards the size of the array '
           '(all-gather, reduce-scatter: (n - 1) / n of it) or twice that (all-reduce), for a group of n '
           'devices')


def plot(tables, path):
  """Plot one column per family: above, quantities relative to the first row; below, bytes sent."""
  figure, panels = figures.figure(2, len(tables), (4.2 * len(tables), 6.5), squeeze=False, sharex='col')
  for (above, below), (family, rows) in zip(panels.T, tables):
    devices = [row['devices'] for row in rows]
    for name in ('flops', 'state', 'peak'):
      above.plot(devices, [row[name] / rows[0][name] for row in rows], marker='o', label=name)
    for kind in sorted({kind for row in rows for kind in row['sent']}):
      line, = below.plot(devices, [row['sent'].get(kind, 0) / 2**20 for row in rows], marker='o', label=kind)
      limit = rows[-1]['arrays'].get(kind, 0) * (2 if kind.startswith('all-reduce') else 1) / 2**20
      below.axhline(limit, color=line.get_color(), linestyle=':', linewidth=1)
    above.set(title=f'{family.platform}, {family.size}: {family.name.partition("-")[2]}', ylim=(0, None))
    below.set(xscale='log', xlabel='devices', ylim=(0, None), xticks=devices, xticklabels=devices)
    below.minorticks_off()
    above.legend(fontsize=8)
    below.legend(fontsize=8)
  panels[0][0].set_ylabel('per device, relative to the first row')
  panels[1][0].set_ylabel('MiB sent per device and step\n(dotted: the limit)')
  figure.savefig(path, dpi=120)


def device_counts(text):
  """(8, 16, ...) from '8,16,...'; () from ''."""
  counts = tuple(Listed(integer(1, 2**16), empty=True)(text))
  if any(n & (n - 1) for n in counts):
    raise argparse.ArgumentTypeError(f'{text}: the numbers of devices must be powers of two')
  return counts


def main(argv):
  parser = command.Parser(prog='python -m gptjax.benchmark scaling', description=__doc__,
                          formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--cpu', type=device_counts, default='1,2,4,8',
                      help="numbers of CPU devices, by commas; '' for none; default: %(default)s")
  parser.add_argument('--tpu', type=device_counts, default='8,32,64,128,256,512,1024',
                      help="numbers of TPU chips, by commas; '' for none; default: %(default)s")
  parser.add_argument('--families', default=','.join(family.name for family in FAMILIES),
                      help='what is scaled, comma-separated; default: %(default)s')
  results.add_out(parser, '; the plot is written next to it')
  args = parser.parse_args(argv)
  names = args.families.split(',')
  if unknown := set(names) - {family.name for family in FAMILIES}:
    parser.error(f'unknown family {", ".join(sorted(unknown))}: use {parser.get_default("families")}')
  if min(args.tpu, default=8) < 8:
    parser.error(f'--tpu={min(args.tpu)}: the smallest slice has 8 chips')
  counts = {family: [n for n in (args.cpu if family.platform == 'CPU' else args.tpu)
                     if min(family.mesh(n).values()) > 0]  # several slices need more chips than one has
            for family in FAMILIES if family.name in names}
  if not any(counts.values()):
    parser.error('there is nothing to measure: --cpu and --tpu have no devices for these --families')
  import jax
  jax.config.update('jax_platforms', 'cpu')
  jax.config.update('jax_num_cpu_devices', max(args.cpu, default=1))
  return measure(counts, args.out)


def measure(families, out):
  """Compute, print and plot the tables; returns 1 if a quantity that should be flat is not.

  A program may take half an hour to compile, so each row is in the journal next to `out` as soon as it is
  known, and a restart with the same code and libraries continues after it.
  """
  tables, worst, machine = [], 0.0, machine_info(('jax', 'jaxlib', 'libtpu'))
  path = journal.journal_path(out) if out else ''
  Path(path).parent.mkdir(parents=True, exist_ok=True)
  measured_with = f'{machine["code"]} {machine["processor"]} {machine["versions"]} {machine["flags"]}'
  with bars.bar(total=sum(map(len, families.values())), unit='program') as bar:
    for family, devices in families.items():
      rows = []
      for n in devices:
        digest = f'{family.name} {n} {measured_with}'
        rows.append(journal.once(path, digest, lambda: {'row': measure_row(family, n)})['row'])
        bar.update()
      if rows:
        tables.append((family, rows))
        worst = max([worst, *relative_changes(rows, family).values()])
        bar.write('\n'.join(format_table(rows, family)) + '\n', file=sys.stdout)
  print(NOT_COVERED)
  if out:
    speeds = [results.row(f'weak scaling, {family.name}', f'{row["devices"]} devices', 'tokens/s',
                          [row['tokens_per_second']])
              for family, rows in tables for row in rows if 'tokens_per_second' in row]
    gates = [results.gate(f'{family.name}, {name}: grows by', '<=', FLAT, change)
             for family, rows in tables for name, change in relative_changes(rows, family).items()]
    results.write(out, 'scaling', machine, speeds, gates,
                  families={family.name: rows for family, rows in tables})
    plot(tables, f'{out.removesuffix(".json")}.png')
  return int(worst > FLAT)
