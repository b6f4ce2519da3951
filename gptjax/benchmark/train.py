"""Training speed beside PyTorch's, by turns in one run: python -m gptjax.benchmark train

Needs jax, flax, optax and numpy; for the peers torch and transformers. No TensorFlow, no network. Each
contender takes the largest batch of the size's that fits into its share of the memory.
"""

import argparse
import functools
import gc
import json
import os
import sys
import time
from typing import NamedTuple

import numpy as np

from gptjax import config_files, cpu, paths
from gptjax.benchmark import results
from gptjax.benchmark.machine import machine
from gptjax.benchmark.turns import by_turns, serve, times_faster
from gptjax.data import command
from gptjax.errors import InputError
from gptjax.flag_types import integer, real

OURS = 'gptjax'
CONTENDERS = (OURS, 'torch', 'torch-compile', 'torch-compile-blocks', 'transformers', 'transformers-compile')
PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'numpy', 'torch', 'transformers')
FULL = ('RESOURCE_EXHAUSTED', 'out of memory')  # what errors say
MEMORY = 0.92  # share of a GPU's memory that all contenders have together
CPU_MODEL = dict(n_layer=6, n_head=6, n_embd=384, n_ctx=256, n_vocab=8192, scan=False)
TINY_MODEL = dict(n_layer=2, n_head=2, n_embd=32, n_ctx=32, n_vocab=96, scan=True)


class Size(NamedTuple):
  """config: of configs/; model: what is changed there; batches: sequences a step, from the most on."""
  config: str
  model: dict
  batches: tuple
  dtype: str


SIZES = {'tiny': Size('default', TINY_MODEL, (4,), 'float32'),
         'cpu': Size('default', CPU_MODEL, (16,), 'float32'),
         '124M': Size('gpt2_small', {}, (32, 16, 8), 'bfloat16'),
         '355M': Size('gpt2_medium', {}, (16, 8), 'bfloat16'),
         '774M': Size('gpt2_large', {}, (8, 4), 'bfloat16'),
         '1558M': Size('gpt2_xl', {}, (8, 4, 2), 'bfloat16')}


def make_config(size, batch_size=0, changes=None):
  """The config of a benchmark, not resolved; works without ml_collections.

  Args:
    size: of SIZES.
    batch_size: sequences a step; 0: the most that the size tries.
    changes: {'model.dropout': 0.1, ...}.
  """
  name, model, batches, dtype = SIZES[size]
  config = config_files.shipped(name)
  for field, value in {**model, 'compute_dtype': dtype, 'dropout': 0.0, 'remat': 'none'}.items():
    setattr(config.model, field, value)
  config.data.seq_len = config.model.n_ctx
  config.train.batch_size = config.train.microbatch_size = batch_size or batches[0]
  for field, value in (changes or {}).items():
    *sections, last = field.split('.')
    section = functools.reduce(getattr, sections, config)
    if not hasattr(section, last):
      raise InputError(f'config.{field} is not a field of gptjax/defaults.py')
    setattr(section, last, value)
  return config


def random_batch(config):
  rng = np.random.default_rng(0)
  shape = config.train.batch_size, config.data.seq_len
  draw = lambda: rng.integers(0, config.model.n_vocab, shape, dtype=np.int32)
  return {'inputs': draw(), 'targets': draw()}


def compiled_step(config, **options):
  """(the train step as compiled, a fresh state, a batch on the device); resolves the config.

  options: of XLA's compiler, beside those of the config's preset.
  """
  import jax

  from gptjax import compiler, sharding
  from gptjax import config as configs
  from gptjax.train import graph, init_state, train_step
  configs.resolve(config, '')
  compiler.check(config.xla_preset, jax.default_backend())
  mesh = sharding.make_mesh(config.mesh)
  jax.set_mesh(mesh)
  state = jax.jit(functools.partial(init_state, config))()
  batch = sharding.put(random_batch(config), mesh)
  step = functools.partial(train_step, config=config, graphdef=graph(config), steps=10**6)
  lowered = jax.jit(step, donate_argnums=0).lower(state, batch)
  options = compiler.options(config.xla_preset) | options
  return lowered.compile(compiler_options=options), state, batch


def gptjax_steps(config):
  """A function that trains n steps, after one that is not counted, and facts.

  Returns:
    (function of n that gives {'seconds': a step, 'loss': the last, 'memory': bytes at the most, or None},
    facts: {'device', 'flops': a token, 'peak': of the device or None, 'kernel'}).
  """
  import jax

  from gptjax import telemetry
  step, state, batch = compiled_step(config)
  device, held = jax.devices()[0], [state]

  def once():
    held[0], metrics = step(held[0], batch)
    return metrics['loss']

  def train(n):
    float(once())
    began = time.perf_counter()
    for _ in range(n):
      loss = once()
    loss = float(loss)
    seconds = (time.perf_counter() - began) / n
    memory = (device.memory_stats() or {}).get('peak_bytes_in_use')
    return {'seconds': seconds, 'loss': loss, 'memory': memory}

  del state
  train(1)  # finds whether the memory suffices
  return train, {'device': device.device_kind, 'kernel': config.attention.kernel,
                 'flops': telemetry.flops_per_token(config.model, config.data.seq_len),
                 'peak': telemetry.peak_flops(device)}


def largest(batches, make):
  """`make` of the first of these batch sizes that the memory has room for."""
  for batch_size in batches:
    try:
      return make(batch_size)
    except RuntimeError as error:  # JAX's and PyTorch's errors of memory are ones
      if batch_size == batches[-1] or not any(word in str(error) for word in FULL):
        raise
    gc.collect()


def steps_of(contender, size, batch_size, changes, share):
  """`gptjax_steps` or `torch_steps` at the largest batch that fits; facts say which, as 'batch_size'."""
  def make(batch_size):
    config = make_config(size, batch_size, changes)
    if contender == OURS:
      train, facts = gptjax_steps(config)
    else:
      from gptjax.benchmark.train_torch import torch_steps
      train, facts = torch_steps(config, random_batch(config), contender, share)
    return train, {**facts, 'batch_size': batch_size, 'tokens': batch_size * config.data.seq_len}
  return largest([batch_size] if batch_size else SIZES[size].batches, make)


def worker(flags):
  """Answers each number n with what n steps took."""
  if flags.worker == OURS:
    os.environ['XLA_PYTHON_CLIENT_MEM_FRACTION'] = f'{flags.share:.3f}'
    cpu.keep_memory()
  train, facts = steps_of(flags.worker, flags.size, flags.batch_size, dict(flags.set), flags.share)
  return serve(facts, train)


def rows_of(what, found):
  """A row of `results` for each contender, with its batch size, memory and, of gptjax, MFU.

  Args:
    what: is measured.
    found: {contender: (facts, [answer of each turn])}, of `by_turns`.
  """
  seconds = {name: [turn['seconds'] / facts['tokens'] for turn in turns]
             for name, (facts, turns) in found.items()}
  rows = []
  for name, (facts, turns) in found.items():
    ratio = times_faster(seconds[OURS], seconds[name]) if name != OURS and OURS in seconds else None
    row = results.row(what, name, 'tokens/s', [1 / each for each in seconds[name]], ratio)
    row |= {'batch_size': facts['batch_size'], 'memory': turns[-1]['memory'], 'loss': turns[-1]['loss']}
    if facts.get('peak'):
      row |= {f'mfu_{name}': row['median'] * flops / facts['peak'] for name, flops in facts['flops'].items()}
    rows.append(row)
  return rows


def show(rows):
  print(f'{"":<22}{"tokens/s":>10}{"least":>10}{"most":>10}{"batch":>7}{"GiB":>7}{"MFU":>8}{"causal":>8}'
        '   gptjax is')
  for row in rows:
    mfu = [f'{row[name]:.1%}' if name in row else '' for name in ('mfu_palm', 'mfu_causal')]
    memory = f'{row["memory"] / 2**30:.1f}' if row['memory'] else ''
    ratio = f'{row["ratio"]:.2f} x' if row['ratio'] else ''
    print(f'{row["who"]:<22}{row["median"]:>10,.0f}{row["least"]:>10,.0f}{row["most"]:>10,.0f}'
          f'{row["batch_size"]:>7}{memory:>7}{mfu[0]:>8}{mfu[1]:>8}   {ratio}')


def field(text):
  """('model.dropout', 0.1) of 'model.dropout=0.1'."""
  name, _, value = text.partition('=')
  try:
    return name, json.loads(value)
  except ValueError:
    return name, value


def make_parser():
  parser = command.Parser(prog='python -m gptjax.benchmark train', description=__doc__)
  parser.add_argument('--size', choices=SIZES, default='cpu')
  parser.add_argument('--batch_size', type=integer(0, 65536), default=0,
                      help='sequences a step; 0: the size\'s own')
  parser.add_argument('--contenders', default='gptjax,torch', help=f'of {", ".join(CONTENDERS)}')
  parser.add_argument('--turns', type=integer(1, 1000), default=5)
  parser.add_argument('--steps', type=integer(1, 1_000_000), default=3, help='steps a turn')
  parser.add_argument('--set', type=field, action='append', default=[], metavar='FIELD=VALUE',
                      help='of the config, like model.dropout=0.1 or xla_preset=gpu_cublas')
  parser.add_argument('--out', type=paths.flag, default='', help='JSON file for the results')
  parser.add_argument('--worker', choices=CONTENDERS, help=argparse.SUPPRESS)
  parser.add_argument('--share', type=real(0, 1, open_left=True), help=argparse.SUPPRESS)
  return parser


def main(argv):
  parser = make_parser()
  flags = parser.parse_args(argv)
  contenders = flags.contenders.split(',')
  if unknown := set(contenders) - set(CONTENDERS):
    parser.error(f'no such contender: {", ".join(sorted(unknown))}')
  config = make_config(flags.size, flags.batch_size, dict(flags.set))
  if flags.worker:
    return worker(flags)
  return measure(flags, argv, contenders, config.model)


def measure(flags, argv, contenders, c):
  lost, share = [], MEMORY / len(contenders)
  command = [sys.executable, '-m', 'gptjax.benchmark', 'train', *argv, f'--share={share:.3f}', '--worker']
  found = by_turns({name: [*command, name] for name in contenders}, flags.steps, flags.turns, lost.append)
  if not found:
    print('gptjax.benchmark: no contender could train: see their messages above', file=sys.stderr)
    return 1
  changed = ''.join(f', {name}={value}' for name, value in flags.set)
  rows = rows_of(f'training {flags.size}, {c.compute_dtype}{changed}', found)
  device = next(iter(found.values()))[0]['device']
  where = machine(PACKAGES, '' if device == 'cpu' else device)
  print(f'{c.n_layer} layers x {c.n_embd} x {c.n_head} heads, vocabulary {c.n_vocab}, {c.n_ctx} tokens a '
        f'sequence, {c.compute_dtype}{changed}, on {where["device"]}, {where["date"]}')
  show(rows)
  results.write(flags.out, 'train', where, rows, size=flags.size, changes=dict(flags.set), steps=flags.steps,
                lost=lost, found=found)
  return 0
