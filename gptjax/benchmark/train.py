"""Training speed beside PyTorch's, by turns in one run: python -m gptjax.benchmark train

Needs jax, flax, optax and numpy; for the peers torch. No TensorFlow, no network.
"""

import argparse
import functools
import importlib
import importlib.metadata
import json
import platform
import statistics
import sys
import time

import numpy as np

from gptjax import host_memory
from gptjax.benchmark.turns import by_turns, serve, times_faster

# Layers, heads, width, context, vocabulary, sequences a step, compute dtype.
CPU_MODEL = dict(n_layer=6, n_head=6, n_embd=384, n_ctx=256, n_vocab=8192)
SIZES = {'cpu': (None, 16, 'float32'), '124M': ('gpt2_small', 32, 'bfloat16'),
         '355M': ('gpt2_medium', 16, 'bfloat16'), '774M': ('gpt2_large', 8, 'bfloat16'),
         '1558M': ('gpt2_xl', 4, 'bfloat16')}
CONTENDERS = ('gptjax', 'torch', 'torch-compile')


def make_config(size, batch_size):
  """The resolved config of a benchmark; works without ml_collections."""
  name, default_batch, dtype = SIZES[size]
  config = importlib.import_module(f'configs.{name or "default"}').get_config()
  if name is None:
    for field, value in CPU_MODEL.items():
      setattr(config.model, field, value)
    config.model.scan = False
  config.model.compute_dtype, config.model.dropout = dtype, 0.0
  config.attention.kernel = 'xla'
  config.data.seq_len = config.model.n_ctx
  config.train.batch_size = config.train.microbatch_size = batch_size or default_batch
  return config


def random_batch(config):
  rng = np.random.default_rng(0)
  shape = config.train.batch_size, config.data.seq_len
  draw = lambda: rng.integers(0, config.model.n_vocab, shape, dtype=np.int32)
  return {'inputs': draw(), 'targets': draw()}


def gptjax_steps(config):
  """A function that trains n steps with gptjax and gives the seconds of each; and facts."""
  import jax

  from gptjax import sharding, telemetry
  from gptjax.train import graph, init_state, train_step
  mesh = sharding.make_mesh(config.mesh)
  jax.set_mesh(mesh)
  state = jax.jit(functools.partial(init_state, config))()
  batch = sharding.put(random_batch(config), mesh)
  step = functools.partial(train_step, config=config, graphdef=graph(config), steps=10**6)
  compiled = jax.jit(step, donate_argnums=0).lower(state, batch).compile()
  held = [state]

  def train(n):
    seconds = []
    for _ in range(n):
      start = time.perf_counter()
      held[0], metrics = compiled(held[0], batch)
      jax.block_until_ready(metrics)
      seconds.append(time.perf_counter() - start)
    return seconds

  device = jax.devices()[0]
  flops = telemetry.flops_per_token(config.model, config.data.seq_len)
  return train, {'device': device.device_kind, 'devices': jax.device_count(), 'flops': flops,
                 'peak': telemetry.peak_flops(device), 'jax': jax.__version__}


def worker(contender, size, batch_size):
  """Answers each number n with the seconds of n steps, after one that takes the machine over."""
  config = make_config(size, batch_size)
  if contender == 'gptjax':
    host_memory.keep()
    train, facts = gptjax_steps(config)
  else:
    from gptjax.benchmark.train_torch import torch_steps
    train, facts = torch_steps(config, random_batch(config), compiled=contender == 'torch-compile')
  serve(facts, lambda n: train(n + 1)[1:])


def table(results, config):
  """Rows {contender, tokens a second (median, least, most), ratio to the first, mfu}."""
  tokens = config.train.batch_size * config.data.seq_len
  medians = {name: [statistics.median(turn) for turn in turns] for name, (_, turns) in results.items()}
  first = next(iter(results))
  rows = []
  for name, (facts, turns) in results.items():
    steps = [second for turn in turns for second in turn]
    speed = tokens / statistics.median(steps)
    mfu = speed * facts['flops']['palm'] / facts['peak'] if facts.get('peak') else None
    rows.append({'contender': name, 'tokens_per_second': speed, 'mfu': mfu,
                 'least': tokens / max(steps), 'most': tokens / min(steps),
                 'gptjax_is_times': times_faster(medians[first], medians[name])})
  return rows


def main(argv):
  parser = argparse.ArgumentParser(prog='python -m gptjax.benchmark train', description=__doc__)
  parser.add_argument('--size', choices=SIZES, default='cpu')
  parser.add_argument('--batch_size', type=int, default=0, help='sequences a step; 0: the size\'s own')
  parser.add_argument('--contenders', default='gptjax,torch', help=f'of {", ".join(CONTENDERS)}')
  parser.add_argument('--turns', type=int, default=5)
  parser.add_argument('--steps', type=int, default=3, help='steps a turn')
  parser.add_argument('--out', default='', help='JSON file for the results')
  parser.add_argument('--worker', choices=CONTENDERS, help=argparse.SUPPRESS)
  args = parser.parse_args(argv)
  if args.worker:
    return worker(args.worker, args.size, args.batch_size)
  unknown = set(args.contenders.split(',')) - set(CONTENDERS)
  if unknown:
    parser.error(f'no such contender: {", ".join(sorted(unknown))}')
  config = make_config(args.size, args.batch_size)
  command = [sys.executable, '-m', 'gptjax.benchmark', 'train', f'--size={args.size}',
             f'--batch_size={args.batch_size}', '--worker']
  results = by_turns({name: [*command, name] for name in args.contenders.split(',')}, args.steps, args.turns)
  rows = table(results, config)
  c = config.model
  print(f'{c.n_layer} layers x {c.n_embd} x {c.n_head} heads, vocabulary {c.n_vocab}, batch '
        f'{config.train.batch_size} x {config.data.seq_len}, {c.compute_dtype}, on '
        f'{results[rows[0]["contender"]][0]["device"]} ({platform.processor() or platform.machine()})')
  print(f'{"":<16}{"tokens/s":>10}{"least":>10}{"most":>10}{"MFU":>8}   gptjax is')
  for row in rows:
    mfu = f'{row["mfu"]:.1%}' if row['mfu'] else ''
    print(f'{row["contender"]:<16}{row["tokens_per_second"]:>10,.0f}{row["least"]:>10,.0f}'
          f'{row["most"]:>10,.0f}{mfu:>8}   {row["gptjax_is_times"]:.2f} x')
  if args.out:
    with open(args.out, 'w') as file:
      json.dump({'rows': rows, 'size': args.size, 'turns': args.turns, 'steps': args.steps,
                 'facts': {name: facts for name, (facts, _) in results.items()}}, file, indent=1)
  return 0
