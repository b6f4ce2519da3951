"""Training speed compared with PyTorch, interleaved in one run: python -m gptjax.benchmark train

Needs jax, flax, optax and numpy; for the PyTorch contenders torch and transformers. No TensorFlow, no
network. Each contender uses the largest batch that fits in its share of the device's memory. On a CPU, the
matmuls of a step alone are measured too (see `gptjax.benchmark.limits`).
"""

import argparse
import functools
import gc
import json
import os
import sys
import time
from importlib.util import find_spec
from pathlib import Path

from gptjax import defaults
from gptjax.benchmark import journal, limits, matmuls, results
from gptjax.benchmark.interleave import interleaved, serve
from gptjax.benchmark.machine import machine_info
from gptjax.benchmark.results import OURS
from gptjax.benchmark.sizes import SIZES, batch_sizes, make_config, random_batch
from gptjax.command import bars, run
from gptjax.command.flag_types import integer, real
from gptjax.errors import InputError
from gptjax.kernels import cpu
from gptjax.storage.files import paths

CONTENDERS = (OURS, 'torch', 'torch-compile', 'torch-compile-blocks', 'transformers', 'transformers-compile',
              'nanogpt', 'nanogpt-compile')
# On a CPU, times as fast as the contender; those of GPUs are in gates.py.
TARGETS = {'torch': 1.2, 'torch-compile': 1, 'nanogpt': 1.2, 'nanogpt-compile': 1}
PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'numpy', 'torch', 'transformers')
# Fields of `config.model` that the contenders have, or on which neither their work nor their memory depends.
GPT2_FIELDS = ('n_layer', 'n_head', 'n_embd', 'n_ctx', 'n_vocab', 'pad_vocab_to', 'dropout',
               'init_std', 'wpe_init_std', 'scale_residual_init', 'scan', 'remat', 'compute_dtype')
OUT_OF_MEMORY = ('RESOURCE_EXHAUSTED', 'out of memory')  # texts in error messages
STEP = 'step'  # the task of the workers of limits
MEMORY_SHARE = 0.92  # of a GPU's memory, for all contenders together


def compiled_step(config, **options):
  """(the compiled train step, a fresh state, a batch on the device); resolves the config.

  options: for XLA's compiler, in addition to those of the config's preset.
  """
  import jax

  from gptjax.config import resolve as configs
  from gptjax.kernels import xla_presets
  from gptjax.parallel import sharding
  from gptjax.pretrain.trace import trace_step
  from gptjax.train.step import init_state
  configs.resolve(config, '')
  xla_presets.check(config.xla_preset, jax.default_backend())
  mesh = sharding.make_mesh(config.mesh)
  jax.set_mesh(mesh)
  state = jax.jit(functools.partial(init_state, config))()
  batch = sharding.shard_batch(random_batch(config), mesh)
  options = xla_presets.options(config.xla_preset, jax.default_backend()) | options
  traced = trace_step(config, mesh, 10**6, (state, batch))
  return traced.lower().compile(compiler_options=options), state, batch


def gptjax_trainer(config):
  """A function that trains n steps after one warm-up step, and facts.

  Returns:
    (function of n that returns {'seconds': per step, 'loss': of the last step, 'memory': peak bytes or None},
    facts: {'device', 'flops': per token, 'peak': FLOP/s of the device or None, 'kernel', 'compile_s'}).
  """
  import jax

  from gptjax.model import size
  from gptjax.report import telemetry
  start = time.perf_counter()
  step, state, batch = compiled_step(config)
  seconds = time.perf_counter() - start
  device, state_cell = jax.devices()[0], [state]

  def one_step():
    state_cell[0], metrics = step(state_cell[0], batch)
    return metrics['loss']

  def train(n):
    float(one_step())
    start = time.perf_counter()
    for _ in range(n):
      loss = one_step()
    loss = float(loss)
    seconds = (time.perf_counter() - start) / n
    memory = (device.memory_stats() or {}).get('peak_bytes_in_use')
    return {'seconds': seconds, 'loss': loss, 'memory': memory}

  del state
  train(1)  # fails if the memory does not suffice
  return train, {'device': device.device_kind, 'kernel': config.attention.kernel, 'compile_s': seconds,
                 'flops': size.flops_per_token(config.model, config.data.seq_len),
                 'peak': telemetry.peak_flops(device)}


def with_largest_batch(sizes, make):
  """`make` of the first of the batch sizes that fits in memory."""
  for batch_size in sizes:
    try:
      return make(batch_size)
    except RuntimeError as error:  # the type of JAX's and PyTorch's out-of-memory errors
      if batch_size == sizes[-1] or not any(word in str(error) for word in OUT_OF_MEMORY):
        raise
    gc.collect()


def make_trainer(contender, size, batch_size, changes, share, nanogpt=''):
  """`gptjax_trainer` or `torch_trainer` at the largest batch that fits; facts contain its 'batch_size'.

  share: of the GPU's memory, for this process.
  nanogpt: folder of a clone of nanoGPT.
  """
  def make(batch_size):
    config = make_config(size, batch_size, changes)
    if contender == OURS:
      train, facts = gptjax_trainer(config)
    else:
      require_gpt2(config, contender)
      from gptjax.benchmark.train_torch import torch_trainer
      train, facts = torch_trainer(config, random_batch(config), contender, share, nanogpt)
    return train, {**facts, 'batch_size': batch_size, 'tokens': batch_size * config.data.seq_len}
  sizes = [batch_size] if batch_size else batch_sizes(size, memory_limit(contender, share))
  return with_largest_batch(sizes, make)


def require_gpt2(config, contender):
  """Raise InputError for options that the contenders' model, which is GPT-2, does not have."""
  for name, field in defaults.FIELDS['model'].items():
    value = getattr(config.model, name)
    if name not in GPT2_FIELDS and value != field.default:
      raise InputError(f'{contender} trains GPT-2, which has no config.model.{name} = {value!r}: measure '
                       f'gptjax alone, --contenders={OURS}')
  if config.data.packing:
    raise InputError(f'{contender} has no config.data.packing: measure gptjax alone, --contenders={OURS}')


def memory_limit(contender, share):
  """Bytes of the GPU's memory that this process may use; None on a CPU."""
  if contender != OURS:
    from gptjax.benchmark.train_torch import gpu_memory
    return share * gpu_memory() or None
  import jax
  return (jax.devices()[0].memory_stats() or {}).get('bytes_limit')  # JAX's limit is its share already


def missing_package(contender):
  """A package that a contender needs and that is not installed; '' if nothing is missing."""
  package = contender.partition('-')[0]
  packages = {OURS: (), 'nanogpt': ('torch',)}.get(package, ('torch', package))
  return next((package for package in packages if find_spec(package) is None), '')


def step_matmuls(flags):
  """{STEP: [Matmul] of a training step}."""
  from gptjax.config import resolve as configs
  config = make_config(flags.size, flags.batch_size, dict(flags.set))
  configs.resolve(config, '')
  return {STEP: matmuls.of_step(config)}


def worker(flags):
  """Answer each request n with the measurements of n steps, or with the limits of one step."""
  if flags.worker in limits.WORKERS:
    return limits.serve_worker(flags.worker, lambda: step_matmuls(flags))
  if flags.worker == OURS:
    os.environ['XLA_PYTHON_CLIENT_MEM_FRACTION'] = f'{flags.share:.3f}'
    cpu.retain_freed_memory()
    cpu.configure_devices()
  train, facts = make_trainer(flags.worker, flags.size, flags.batch_size, dict(flags.set), flags.share,
                              flags.nanogpt)
  return serve(facts, train)


def make_measurement(what, name, facts, answer, turn):
  """A `results.measurement` from a contender's answer, with batch size, memory and the FLOPs for its MFU."""
  more = {'batch_size': facts['batch_size'], 'memory': answer['memory'], 'loss': answer['loss']}
  more |= {key: facts[key] for key in ('flops', 'peak') if facts.get('peak')}
  return results.measurement(what, name, 'tokens/s', facts['tokens'] / answer['seconds'], turn, **more)


def with_limits(rows, answers):
  """The rows, that of gptjax with its share of the limits that were measured."""
  if not answers.get(OURS, (None, []))[1]:
    return rows
  fields = limits.matmul_fields([turn['seconds'] for turn in answers[OURS][1]], answers, STEP)
  return [row | fields if row['who'] == OURS else row for row in rows]


def make_gates(rows, device):
  """The gates of shares of limits, and on a CPU in float32 those of the contenders; see `results.gate`."""
  peers = [row for row in rows if row['who'] in TARGETS and row['ratio']]
  return limits.gates(rows) + [
    results.gate(f'{row["what"]}, times as fast as {row["who"]}', '>=', TARGETS[row['who']], row['ratio'])
    for row in peers if device == 'cpu' and row['what'].endswith(', float32')]


def print_table(rows):
  """Print the rows."""
  print(f'{"":<22}{"tokens/s":>10}{"min":>10}{"max":>10}{"batch":>7}{"GiB":>7}{"MFU":>8}{"causal":>8}'
        '   gptjax speedup')
  for row in rows:
    mfu = [f'{row[name]:.1%}' if name in row else '' for name in ('mfu_palm', 'mfu_causal')]
    memory = f'{row["memory"] / 2**30:.1f}' if row['memory'] else ''
    ratio = f'{row["ratio"]:.2f} x' if row['ratio'] else ''
    print(f'{row["who"]:<22}{row["median"]:>10,.0f}{row["least"]:>10,.0f}{row["most"]:>10,.0f}'
          f'{row["batch_size"]:>7}{memory:>7}{mfu[0]:>8}{mfu[1]:>8}   {ratio}{limits.described(row)}')


def config_override(text):
  """('model.dropout', 0.1) from 'model.dropout=0.1'."""
  name, _, value = text.partition('=')
  try:
    return name, json.loads(value)
  except ValueError:
    return name, value


def make_parser():
  """The parser of the flags."""
  parser = run.Parser(prog='python -m gptjax.benchmark train', description=__doc__)
  parser.add_argument('--size', choices=SIZES, default='cpu',
                      help='of the model; cpu: 14M parameters, tiny: for a trial; default: %(default)s')
  parser.add_argument('--batch_size', type=integer(0, 65536), default=0,
                      help='sequences per step; 0: the largest that fits')
  parser.add_argument('--contenders', default='gptjax,torch',
                      help=f'of {", ".join(CONTENDERS)}; default: %(default)s')
  parser.add_argument('--nanogpt', type=paths.flag, default='',
                      help='folder of a clone of nanoGPT, for the contenders of that name')
  parser.add_argument('--turns', type=integer(1, 1000), default=5,
                      help='measurements of each contender after a warm-up; default: %(default)s')
  parser.add_argument('--steps', type=integer(1, 1_000_000), default=3,
                      help='steps per turn; default: %(default)s')
  parser.add_argument('--set', type=config_override, action='append', default=[], metavar='FIELD=VALUE',
                      help='config field to change, like model.dropout=0.1 or xla_preset=gpu_cublas')
  parser.add_argument('--limit_s', type=real(0, 1e6, open_left=True), default=1e6,
                      help='time limit in seconds; contenders that are not ready in time are skipped')
  results.add_out(parser)
  journal.add_flag(parser)
  limits.add_flag(parser)
  parser.add_argument('--worker', choices=(*CONTENDERS, *limits.WORKERS), help=argparse.SUPPRESS)
  parser.add_argument('--share', type=real(0, 1, open_left=True), help=argparse.SUPPRESS)
  return parser


def main(argv):
  parser = make_parser()
  flags = parser.parse_args(argv)
  contenders = flags.contenders.split(',')
  if unknown := set(contenders) - set(CONTENDERS):
    parser.error(f'unknown contender {", ".join(sorted(unknown))}: use {", ".join(CONTENDERS)}')
  model_file = Path(flags.nanogpt) / 'model.py'
  if any(name.startswith('nanogpt') for name in contenders) and not (flags.nanogpt and model_file.is_file()):
    parser.error(f'--nanogpt = {flags.nanogpt!r} has no model.py: give the folder of a clone of nanoGPT')
  config = make_config(flags.size, flags.batch_size, dict(flags.set))
  if flags.worker:
    return worker(flags)
  return measure(flags, argv, contenders, config.model)


def measure(flags, argv, contenders, c):
  """Measure the contenders, print and write the results; returns the exit code."""
  changes = ''.join(f', {name}={value}' for name, value in flags.set)
  what = f'training {flags.size}, {c.compute_dtype}{changes}'
  records, measurements, devices, lost = journal.Journal(flags.journal), [], [], {}

  def on_lost(name, reason):
    lost[name] = reason
    bars.write(f'{name} {reason}', sys.stderr)
    records.add('lost', who=name, why=reason)

  def on_answer(name, facts, answer, turn):
    if name in limits.WORKERS:
      return
    if not devices:
      records.add('device', name=facts['device'])
    devices.append(facts['device'])
    if not turn and 'compile_s' in facts:
      records.add('fact', what=f'{what}, {name}, compiled in s', value=round(facts['compile_s'], 1))
    measurements.append(make_measurement(what, name, facts, answer, turn))
    records.add('figure', **measurements[-1])

  available = [name for name in contenders if not missing_package(name)]
  for name in contenders:
    if name not in available:
      reason = f'{missing_package(name)} is not installed'
      records.add('fact', what=f'contender {name}', value=f'absent: {reason}')
      print(f'{name} is skipped: {reason}', file=sys.stderr)
  share = MEMORY_SHARE / max(len(available), 1)
  command = [sys.executable, '-m', 'gptjax.benchmark', 'train', *argv, f'--share={share:.3f}', '--worker']
  limit_workers = () if c.architecture != 'transformer' else limits.available(flags)
  commands = {name: [*command, name] for name in (*available, *limit_workers)}
  answers = interleaved(commands, flags.steps, flags.turns, on_lost, on_answer, flags.limit_s)
  if not measurements:
    print('gptjax.benchmark: no contender could train: see the messages above', file=sys.stderr)
    return 1
  rows, device = with_limits(results.summarize(measurements), answers), devices[0]
  machine = machine_info(PACKAGES, '' if device == 'cpu' else device)
  print(f'{c.n_layer} layers x {c.n_embd} x {c.n_head} heads, vocabulary {c.n_vocab}, {c.n_ctx} tokens per '
        f'sequence, {c.compute_dtype}{changes}, on {machine["device"]}, {machine["date"]}')
  print_table(rows)
  limits.print_answers(answers)
  gates = make_gates(rows, device)
  results.print_gates(gates)
  results.write(flags.out, 'train', machine, rows, gates, size=flags.size, changes=dict(flags.set),
                steps=flags.steps, lost=list(lost), limits=limits.medians(answers),
                found={name: answers[name] for name in available if name in answers})
  return 0
