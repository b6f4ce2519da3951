"""Time per component of a training step: python -m gptjax.benchmark profile

Traces a few steps. The time of each operation on the device is attributed to the component of the model whose
code it comes from, according to the metadata of the compiled program.
"""

import argparse
import collections
import re
import tempfile
import time
from pathlib import Path

from gptjax.benchmark import journal, results
from gptjax.benchmark.machine import machine_info
from gptjax.benchmark.results import OURS
from gptjax.benchmark.sizes import SIZES, batch_sizes, make_config
from gptjax.benchmark.subjects.train import (
  MEMORY_SHARE,
  PACKAGES,
  compiled_step,
  config_override,
  memory_limit,
)
from gptjax.command import run as command
from gptjax.command.flag_types import integer

STEPS = 3
UNATTRIBUTED = 'not attributed'
# (file, prefix of the function's qualified name, component); the first match is used.
COMPONENTS = (('layers.py', 'dropout', 'dropout'), ('layers.py', 'fold_in', 'dropout'),
              ('attention.py', '', 'attention'), ('fused.py', '', 'attention'), ('flash.py', '', 'attention'),
              ('layers.py', 'lookup', 'embedding'), ('layers.py', '_lookup', 'embedding'),
              ('loss.py', '', 'loss'), ('layers.py', 'Norm', 'norms'),
              ('layers.py', 'Projection.__call__', 'activation'),
              ('cpu_forms.py', 'elementwise', 'activation'), ('cpu_forms.py', 'unstacked', 'projections'),
              ('cpu_matmul.py', 'sum_over_rows', 'attention'),
              ('layers.py', 'Projection', 'projections'), ('cpu_matmul.py', '', 'projections'),
              ('compute.py', 'in_dtype', 'casts of weights'),
              ('gpt.py', '', 'residuals and reshapes'), ('layers.py', '', 'residuals and reshapes'),
              ('sharding.py', '', 'residuals and reshapes'),
              ('step.py', 'train_step', 'optimizer'), ('step.py', '', 'casts of weights'),
              ('', '', 'optimizer'))  # Optax
CONTROL_FLOW = 'while', 'call', 'conditional'  # their time is that of the operations that they call
# A row of a metadata table: its number, then a name or two more numbers.
TABLE_ROW = re.compile(r'(\d+) (?:"(.*)"|\{(?:file_name_id=(\d+) function_name_id|file_location_id)=(\d+))')


def operation_sources(text):
  """{operation: (file, function)}, its innermost stack frame, from the text of a compiled program."""
  tables, table = collections.defaultdict(dict), None
  for line in text.splitlines():
    if line in ('FileNames', 'FunctionNames', 'FileLocations', 'StackFrames'):
      table = line
    elif table and (row := TABLE_ROW.match(line)):
      number, name, file, last_id = row.groups()
      tables[table][number] = name if name is not None else (file, last_id)
  def source_of(frame):
    file, function = tables['FileLocations'][tables['StackFrames'][frame][1]]
    return Path(tables['FileNames'][file]).name, tables['FunctionNames'][function]
  operations = re.findall(r'%([\w.\-]+) = .*?stack_frame_id=(\d+)', text)
  return {operation: source_of(frame) for operation, frame in operations if frame in tables['StackFrames']}


def component_of(source):
  """The component in COMPONENTS of a (file, function)."""
  file, function = source
  return next(component for name, prefix, component in COMPONENTS
              if name in ('', file) and function.startswith(prefix))


def device_events(folder):
  """Yield (operation or '', seconds) of each event on the device in a trace."""
  from jax.profiler import ProfileData
  path = next(Path(folder).rglob('*.xplane.pb'))
  planes = list(ProfileData.from_file(str(path)).planes)
  devices = [plane for plane in planes if plane.name.startswith('/device:GPU')]
  for plane in devices or planes:
    for line in plane.lines:
      if devices and not line.name.startswith('Stream'):
        continue
      for event in line.events:
        operation = dict(event.stats).get('hlo_op', '')
        if operation or devices:
          yield str(operation), event.duration_ns / 1e9


def measure_components(config):
  """({component: seconds per step on the device}, wall-clock seconds per step without tracing)."""
  import jax
  # On a GPU, a CUDA graph of kernels would be one event.
  step, state, batch = compiled_step(config, xla_gpu_enable_command_buffer='')
  def run(state):
    for _ in range(STEPS):
      state, metrics = step(state, batch)
    jax.block_until_ready(metrics)
    return state
  state = run(state)
  start = time.perf_counter()
  state = run(state)
  seconds = (time.perf_counter() - start) / STEPS
  sources, seconds_of = operation_sources(step.as_text()), collections.Counter()
  with tempfile.TemporaryDirectory() as folder:
    with jax.profiler.trace(folder):
      run(state)
    for operation, event_seconds in device_events(folder):
      if not operation.startswith(CONTROL_FLOW):
        component = component_of(sources[operation]) if operation in sources else UNATTRIBUTED
        seconds_of[component] += event_seconds / STEPS
  return dict(seconds_of.most_common()), seconds


def main(argv):
  parser = command.Parser(prog='python -m gptjax.benchmark profile', description=__doc__,
                          formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--size', choices=SIZES, default='cpu',
                      help='of the model; cpu: 14M parameters, tiny: for a trial; default: %(default)s')
  parser.add_argument('--batch_size', type=integer(0, 65536), default=0,
                      help='sequences per step; 0: as many as fit on the device')
  parser.add_argument('--set', type=config_override, action='append', default=[], metavar='FIELD=VALUE',
                      help='config field to change, like model.dropout=0.1')
  results.add_out(parser)
  journal.add_flag(parser)
  flags = parser.parse_args(argv)
  import jax
  memory = memory_limit(OURS, 1)
  batch_size = flags.batch_size or batch_sizes(flags.size, memory and memory * MEMORY_SHARE)[0]
  config = make_config(flags.size, batch_size, dict(flags.set))
  components, seconds = measure_components(config)
  machine = machine_info(PACKAGES, '' if jax.default_backend() == 'cpu' else jax.devices()[0].device_kind)
  total = sum(components.values())
  print(f'{flags.size}, batch {config.train.batch_size} x {config.data.seq_len}, on {machine["device"]}, '
        f'{machine["date"]}\na step takes {seconds * 1e3:.1f} ms; operations of the device, all threads or '
        f'streams together, take {total * 1e3:.1f} ms:')
  journal.Journal(flags.journal).add('details', seconds=seconds, parts=components)
  for component, taken in components.items():
    print(f'{component:<24}{taken * 1e3:>9.2f} ms{taken / total:>7.1%}')
  results.write(flags.out, 'profile', machine, [], size=flags.size, seconds=seconds, parts=components,
                tokens=config.train.batch_size * config.data.seq_len)
  return 0
