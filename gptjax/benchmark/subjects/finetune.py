"""Fine-tuning speed with bucketed batches and with padding to n_ctx: python -m gptjax.benchmark finetune

The sequence lengths are those of a task (default: SST-2), and the model is a small one of GPT-1's shape. Both
kinds of batches run interleaved through the same compiled step, in this process.
"""

import argparse
import functools
import statistics
import time

from gptjax.benchmark import results
from gptjax.benchmark.machine import machine_info
from gptjax.command import bars
from gptjax.command import run as command
from gptjax.command.flag_types import integer
from gptjax.storage.files import paths


def make_parser():
  parser = command.Parser(prog='python -m gptjax.benchmark finetune', description=__doc__)
  parser.add_argument('--task', default='sst2', help='of gptjax/finetune/tasks/published.py')
  parser.add_argument('--tokenizer', required=True, help='gpt1:DIR, for example')
  parser.add_argument('--tfds_dir', type=paths.flag, default='', help='folder of the data set')
  parser.add_argument('--n_ctx', type=integer(1, 65536), default=512)
  parser.add_argument('--n_layer', type=integer(1, 1000), default=2)
  parser.add_argument('--n_embd', type=integer(1, 65536), default=128)
  parser.add_argument('--batches', type=integer(1, 1_000_000), default=30, help='bucketed batches per turn')
  parser.add_argument('--turns', type=integer(1, 1000), default=3)
  parser.add_argument('--out', type=paths.flag, default='', help='JSON file for the results')
  parser.formatter_class = argparse.ArgumentDefaultsHelpFormatter
  return parser


def make_config(flags, tokenizer):
  """The resolved config of a small model."""
  from gptjax.config import files
  from gptjax.config import resolve as configs
  config = files.shipped('gpt1_finetune', flags.task)
  config.model.update(dict(n_layer=flags.n_layer, n_embd=flags.n_embd, n_head=max(flags.n_embd // 64, 1),
                           n_ctx=flags.n_ctx, n_vocab=tokenizer.n_vocab))
  config.data.tfds_dir, config.finetune.limit = flags.tfds_dir, 4096
  configs.resolve(config, '')
  configs.check(config)
  return config


def measure(flags):
  """Measure both kinds of batches.

  Returns:
    {'bucketed': [examples per second of each turn], 'padded': the same, 'widths': [...], 'tokens': mean
    length}.
  """
  import jax

  from gptjax.data.tokenizers import loading
  from gptjax.finetune import batches, data, step, weights
  from gptjax.finetune.tasks import published
  from gptjax.parallel import sharding
  tokenizer = loading.load(flags.tokenizer)
  config = make_config(flags, tokenizer)
  loaded = data.load(flags.task, published.find(flags.task), tokenizer, config)
  config, size = weights.with_task_tokens(config), config.train.batch_size
  mesh = sharding.make_mesh(config.mesh)
  with jax.set_mesh(mesh):
    kind = loaded.task.kind
    state = weights.init_state(config, kind, loaded.n_outputs, None, mesh)
    train_step = jax.jit(functools.partial(
      step.train_step, config=config, is_regression=loaded.is_regression, steps=1000,
      graphdef=step.graph(config, kind, loaded.n_outputs)), donate_argnums=0)
    make_schedule = functools.partial(batches.BatchSchedule, loaded.train.max_lengths)
    schedules = {'bucketed': (make_schedule(loaded.widths, size, 0, by_length=True), flags.batches),
                 'padded': (make_schedule([flags.n_ctx], size, 0), 2)}
    speeds = {name: [] for name in schedules}
    rows = sharding.local_rows(size, mesh)
    for name, (schedule, _) in schedules.items():  # compile
      for width in bars.bar(schedule.widths, desc=f'compiling, {name}', unit='width', leave=False):
        empty = batches.make_batch(loaded.train, loaded.train.index[:0], width, size, rows)
        state, _ = train_step(state, sharding.shard_batch(empty, mesh))
    for turn in bars.bar(range(flags.turns), desc='measuring', unit='turn', leave=False):
      for name, (schedule, n) in schedules.items():
        jax.block_until_ready(state)
        start, n_examples = time.monotonic(), 0
        for i in range(turn * n, (turn + 1) * n):
          examples, width = schedule(i)
          batch = batches.make_batch(loaded.train, examples, width, size, rows)
          state, _ = train_step(state, sharding.shard_batch(batch, mesh))
          n_examples += len(examples)
        jax.block_until_ready(state)
        speeds[name].append(n_examples / (time.monotonic() - start))
  return speeds | {'widths': loaded.widths, 'tokens': float(loaded.train.max_lengths.mean())}


def main(arguments):
  flags = make_parser().parse_args(arguments)
  speeds = measure(flags)
  bucketed, padded = (statistics.median(speeds[name]) for name in ('bucketed', 'padded'))
  ratio = statistics.median(a / b for a, b in zip(speeds['bucketed'], speeds['padded']))
  machine = machine_info(('jax', 'flax', 'numpy'))
  print(f'{machine["processor"]}, {machine["cores"]} cores, {machine["date"]}; {flags.task}, '
        f'{speeds["tokens"]:.1f} tokens per example\nbucketed to {", ".join(map(str, speeds["widths"]))}: '
        f'{bucketed:,.1f} examples/s\n'
        f'padded to {flags.n_ctx}: {padded:,.1f} examples/s\n{ratio:.1f} times as many (target: at least 2)')
  what = f'fine-tuning, {flags.task}'
  rows = [results.row(what, 'gptjax, bucketed', 'examples/s', speeds['bucketed']),
          results.row(what, f'padded to {flags.n_ctx}', 'examples/s', speeds['padded'], ratio)]
  gate = results.gate('bucketed, times as many examples as padded', '>=', 2, ratio)
  results.write(flags.out, 'finetune', machine, rows, [gate], **speeds)
  return 0 if gate['holds'] else 1
