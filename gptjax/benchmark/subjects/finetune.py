"""Examples a second of fine-tuning, bucketed and padded to n_ctx: python -m gptjax.benchmark finetune

The lengths are those of a task (SST-2 unless another is named), the model is one of GPT-1's shape made small;
both kinds of batches run by turns through the same program of the step, in this process.
"""

import argparse
import functools
import statistics
import time

import jax
from tqdm import tqdm

from gptjax.benchmark import results
from gptjax.benchmark.machine import machine_info
from gptjax.command import run as command
from gptjax.command.flag_types import integer
from gptjax.config import files
from gptjax.config import resolve as configs
from gptjax.data.tokenizers import loading
from gptjax.files import paths
from gptjax.finetune import batches, data, step, weights
from gptjax.finetune.tasks import published
from gptjax.parallel import sharding


def make_parser():
  made = command.Parser(prog='python -m gptjax.benchmark finetune')
  made.add_argument('--task', default='sst2', help='of gptjax/finetune/tasks/published.py')
  made.add_argument('--tokenizer', required=True, help='gpt1:DIR, for example')
  made.add_argument('--tfds_dir', type=paths.flag, default='', help='where the data set lies')
  made.add_argument('--n_ctx', type=integer(1, 65536), default=512)
  made.add_argument('--n_layer', type=integer(1, 1000), default=2)
  made.add_argument('--n_embd', type=integer(1, 65536), default=128)
  made.add_argument('--batches', type=integer(1, 1_000_000), default=30, help='bucketed batches a turn')
  made.add_argument('--turns', type=integer(1, 1000), default=3)
  made.add_argument('--out', type=paths.flag, default='', help='JSON file for the results')
  made.formatter_class = argparse.ArgumentDefaultsHelpFormatter
  return made


def make_config(flags, tokenizer):
  config = files.shipped('gpt1_finetune', flags.task)
  config.model.update(dict(n_layer=flags.n_layer, n_embd=flags.n_embd, n_head=max(flags.n_embd // 64, 1),
                           n_ctx=flags.n_ctx, n_vocab=tokenizer.n_vocab))
  config.data.tfds_dir, config.finetune.limit = flags.tfds_dir, 4096
  configs.resolve(config, '')
  configs.check(config)
  return config


def measure(flags):
  """{'bucketed': [examples a second of a turn], 'padded': the same, 'widths': [...]}."""
  tokenizer = loading.load(flags.tokenizer)
  config = make_config(flags, tokenizer)
  loaded = data.load(flags.task, published.find(flags.task), tokenizer, config)
  config, size = weights.with_task_tokens(config), config.train.batch_size
  mesh = sharding.make_mesh(config.mesh)
  with jax.set_mesh(mesh):
    kind = loaded.task.kind
    state = weights.init_state(config, kind, loaded.outputs, None, mesh)
    run = jax.jit(functools.partial(step.train_step, config=config, numeric=loaded.numeric, steps=1000,
                                    graphdef=step.graph(config, kind, loaded.outputs)), donate_argnums=0)
    make_schedule = functools.partial(batches.BatchSchedule, loaded.train.max_lengths)
    plans = {'bucketed': (make_schedule(loaded.widths, size, 0, by_length=True), flags.batches),
             'padded': (make_schedule([flags.n_ctx], size, 0), 2)}
    found = {name: [] for name in plans}
    rows = sharding.local_rows(size, mesh)
    for name, (plan, _) in plans.items():  # compiles
      for width in tqdm(plan.widths, desc=f'compiling, {name}', unit='width', leave=False, disable=None):
        nobody = loaded.train.index[:0]
        state, _ = run(state, sharding.put(batches.make_batch(loaded.train, nobody, width, size, rows), mesh))
    for turn in tqdm(range(flags.turns), desc='measuring', unit='turn', leave=False, disable=None):
      for name, (plan, n) in plans.items():
        jax.block_until_ready(state)
        began, seen = time.monotonic(), 0
        for i in range(turn * n, (turn + 1) * n):
          examples, width = plan(i)
          batch = batches.make_batch(loaded.train, examples, width, size, rows)
          state, _ = run(state, sharding.put(batch, mesh))
          seen += len(examples)
        jax.block_until_ready(state)
        found[name].append(seen / (time.monotonic() - began))
  return found | {'widths': loaded.widths, 'tokens': float(loaded.train.max_lengths.mean())}


def main(arguments):
  flags = make_parser().parse_args(arguments)
  found = measure(flags)
  bucketed, padded = (statistics.median(found[name]) for name in ('bucketed', 'padded'))
  faster = statistics.median(a / b for a, b in zip(found['bucketed'], found['padded']))
  here = machine_info(('jax', 'flax', 'numpy'))
  print(f'{here["processor"]}, {here["cores"]} cores, {here["date"]}; {flags.task}, {found["tokens"]:.1f} '
        f'tokens an example\nbucketed to {", ".join(map(str, found["widths"]))}: {bucketed:,.1f} examples/s\n'
        f'padded to {flags.n_ctx}: {padded:,.1f} examples/s\n{faster:.1f} times as many (at least 2 wanted)')
  rows = [results.row(f'fine-tuning, {flags.task}', 'gptjax, bucketed', 'examples/s', found['bucketed']),
          results.row(f'fine-tuning, {flags.task}', f'padded to {flags.n_ctx}', 'examples/s', found['padded'],
                      faster)]
  gate = results.gate('bucketed, times as many examples as padded', '>=', 2, faster)
  results.write(flags.out, 'finetune', here, rows, [gate], **found)
  return 0 if gate['holds'] else 1
