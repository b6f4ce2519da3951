"""Fine-tuning speed compared with transformers' Trainer, interleaved: python -m gptjax.benchmark finetune

The contenders train a model of GPT-1's shape from random weights on the same encoded examples, in float32
with dropout, without the auxiliary loss, which the Trainer does not have:

  gptjax         batches bucketed by length (config.finetune.group_by_length), with the padded widths of a
                 long run on a CPU: buckets=16, width_multiple=1, width_saving=0.01
  padded         the same step with batches padded to n_ctx
  trainer        OpenAIGPTForSequenceClassification, batches grouped by length and padded to their longest
  trainer-random the same with random batches, the Trainer's default
"""

import argparse
import functools
import sys
import tempfile
import time
from importlib.util import find_spec

import numpy as np

from gptjax.benchmark import results
from gptjax.benchmark.interleave import interleaved, serve, speedup
from gptjax.benchmark.machine import machine_info
from gptjax.benchmark.results import OURS
from gptjax.command import run
from gptjax.command.flag_types import integer
from gptjax.errors import InputError
from gptjax.kernels import cpu
from gptjax.storage.files import paths

PADDED, TRAINER, RANDOM = 'padded', 'trainer', 'trainer-random'
CONTENDERS = OURS, PADDED, TRAINER, RANDOM
TARGETS = {PADDED: 2, TRAINER: 1}  # times as many examples per second
PACKAGES = ('jax', 'jaxlib', 'flax', 'numpy', 'torch', 'transformers')
EXAMPLES = 4096  # of the task
EVERY = 16       # examples of gptjax for one that is padded to n_ctx: a turn takes each about as long


def make_parser():
  parser = run.Parser(prog='python -m gptjax.benchmark finetune', description=__doc__,
                      formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--task', default='sst2', help='of one sequence per example, see gptjax.finetune.tasks')
  parser.add_argument('--tokenizer', required=True, help='gpt1:DIR, for example')
  parser.add_argument('--tfds_dir', type=paths.flag, default='', help='folder of the data set')
  parser.add_argument('--n_ctx', type=integer(1, 65536), default=512)
  parser.add_argument('--n_layer', type=integer(1, 1000), default=12)
  parser.add_argument('--n_embd', type=integer(1, 65536), default=768)
  parser.add_argument('--contenders', default=f'{OURS},{TRAINER},{RANDOM}',
                      help='of those above; padded to 512 tokens, 12 layers x 768 need 30 GB')
  parser.add_argument('--batches', type=integer(1, 1_000_000), default=16, help='of 32 examples, per turn')
  parser.add_argument('--turns', type=integer(1, 1000), default=3,
                      help='measurements of each contender after a warm-up; default: %(default)s')
  results.add_out(parser)
  parser.add_argument('--worker', choices=CONTENDERS, help=argparse.SUPPRESS)
  return parser


def load(flags):
  """(the config of GPT-1's shape, the encoded task)."""
  from gptjax.config import files
  from gptjax.config import resolve as configs
  from gptjax.data.tokenizers import loading
  from gptjax.finetune import data, weights
  from gptjax.finetune.tasks import published
  tokenizer, config = loading.load(flags.tokenizer), files.shipped('gpt1_finetune', flags.task)
  config.model.update(dict(n_layer=flags.n_layer, n_embd=flags.n_embd, n_head=max(flags.n_embd // 64, 1),
                           n_ctx=flags.n_ctx, n_vocab=tokenizer.n_vocab))
  config.data.tfds_dir, config.finetune.limit, config.finetune.lm_coef = flags.tfds_dir, EXAMPLES, 0.0
  config.finetune.update(dict(buckets=16, width_multiple=1, width_saving=0.01))
  config.model.compute_dtype = 'float32'
  configs.resolve(config, '')
  configs.check(config)
  loaded = data.load(flags.task, published.find(flags.task), tokenizer, config)
  if loaded.train.starts.shape[1] > 1 or loaded.is_regression:
    raise InputError(f'--task={flags.task}: only tasks of classes with one sequence per example can be '
                     'compared, for example sst2, cola or rte')
  return weights.with_task_tokens(config), loaded


def gptjax_trainer(flags, is_padded):
  """A function of (turn, number of batches) that trains and returns examples and seconds."""
  cpu.retain_freed_memory()
  cpu.configure_devices()
  import jax

  from gptjax.finetune import batches, step, weights
  from gptjax.kernels import xla_presets
  from gptjax.parallel import sharding
  config, loaded = load(flags)
  size, mesh, kind = config.train.batch_size, sharding.make_mesh(config.mesh), loaded.task.kind
  jax.set_mesh(mesh)
  state_cell = [weights.init_state(config, kind, loaded.n_outputs, None, mesh)]
  train_step = jax.jit(functools.partial(
    step.train_step, config=config, is_regression=False, steps=10**6,
    graphdef=step.graph(config, kind, loaded.n_outputs)), donate_argnums=0,
    compiler_options=xla_presets.options('none', 'cpu'))
  widths = [flags.n_ctx] if is_padded else loaded.widths
  schedule = batches.BatchSchedule(loaded.train.max_lengths, widths, size, 0, by_length=not is_padded)
  rows = sharding.local_rows(size, mesh)

  def one_step(examples, width):
    batch = batches.make_batch(loaded.train, examples, width, size, rows)
    state_cell[0], metrics = train_step(state_cell[0], sharding.shard_batch(batch, mesh))
    return metrics

  epoch = [schedule(i) for i in range(schedule.per_epoch)]
  for width in widths:  # compile
    one_step(loaded.train.index[:0], width)

  def train(turn, n):
    n = max(1, n // EVERY) if is_padded else n
    jax.block_until_ready(state_cell[0])
    start, n_examples = time.perf_counter(), 0
    for examples, width in representative(epoch, [width for _, width in epoch], n, turn):
      one_step(examples, width)
      n_examples += len(examples)
    jax.block_until_ready(state_cell[0])
    return n_examples, time.perf_counter() - start

  return train


def trainer(flags, is_grouped):
  """The function of `gptjax_trainer` with transformers' Trainer, which makes its batches itself."""
  import torch
  import transformers
  from transformers.trainer_pt_utils import LengthGroupedSampler
  transformers.utils.logging.set_verbosity_error()
  config, loaded = load(flags)
  c, size = config.model, config.train.batch_size
  examples = [{'input_ids': loaded.train.tokens[start:start + length].tolist(), 'labels': int(label)}
              for start, length, label in zip(loaded.train.starts[:, 0], loaded.train.lengths[:, 0],
                                              loaded.train.labels)]
  model = transformers.OpenAIGPTForSequenceClassification(transformers.OpenAIGPTConfig(
    vocab_size=c.n_vocab, n_positions=c.n_ctx, n_embd=c.n_embd, n_layer=c.n_layer, n_head=c.n_head,
    num_labels=loaded.n_outputs, pad_token_id=0))

  def collate(batch):
    width = max(len(example['input_ids']) for example in batch)
    pad = lambda ids, value: ids + [value] * (width - len(ids))
    return {'input_ids': torch.tensor([pad(example['input_ids'], 0) for example in batch]),
            'attention_mask': torch.tensor([pad([1] * len(example['input_ids']), 0) for example in batch]),
            'labels': torch.tensor([example['labels'] for example in batch])}

  class Clock(transformers.TrainerCallback):
    """Seconds from the first batch on, without the start of the Trainer."""

    def on_train_begin(self, *arguments, **options):
      self.start = time.perf_counter()

    def on_step_end(self, *arguments, **options):
      self.seconds = time.perf_counter() - self.start

  def train(turn, n):
    rng, clock, lengths = np.random.default_rng(turn), Clock(), [len(each['input_ids']) for each in examples]
    order = rng.permutation(len(examples)).tolist()
    if is_grouped:  # the Trainer's own groups of an epoch
      order = list(LengthGroupedSampler(size, lengths=lengths, generator=torch.Generator().manual_seed(turn)))
    batches = [order[i:i + size] for i in range(0, len(order), size)]
    chosen = representative(batches, [max(lengths[i] for i in batch) for batch in batches], n, turn)
    rows = [examples[i] for batch in chosen for i in batch]
    with tempfile.TemporaryDirectory() as folder:
      arguments = transformers.TrainingArguments(
        output_dir=folder, per_device_train_batch_size=size, num_train_epochs=1, use_cpu=True, seed=turn,
        train_sampling_strategy='sequential', max_grad_norm=1.0, weight_decay=0.01,
        learning_rate=config.optimizer.learning_rate, save_strategy='no', logging_strategy='no',
        report_to=[], disable_tqdm=True)
      transformers.Trainer(model, arguments, train_dataset=rows, data_collator=collate,
                           callbacks=[clock]).train()
    return len(rows), clock.seconds

  return train


def representative(batches, lengths, n, turn):
  """n of the batches of an epoch, evenly spaced by length, so that turns and contenders are comparable.

  All of them, if there are fewer.
  """
  n = min(n, len(batches))
  ordered = [batch for _, batch in sorted(enumerate(batches), key=lambda pair: lengths[pair[0]])]
  offset = (0.5 + 0.618 * turn) % 1
  return [ordered[int((i + offset) * len(ordered) / n)] for i in range(n)]


def worker(flags):
  """Answer each request, a number of batches, with [examples, seconds]."""
  if flags.worker in (OURS, PADDED):
    train = gptjax_trainer(flags, flags.worker == PADDED)
  else:
    train = trainer(flags, flags.worker == TRAINER)
  turn = iter(range(10**9))
  return serve({}, lambda n: train(next(turn), n))


def main(argv):
  flags = make_parser().parse_args(argv)
  if flags.worker:
    return worker(flags)
  names = flags.contenders.split(',')
  if OURS not in names or set(names) - set(CONTENDERS):
    raise InputError(f'--contenders={flags.contenders} must include {OURS}; the choices are '
                     f'{", ".join(CONTENDERS)}')
  if not cpu.is_only_device():
    raise InputError('this comparison is of CPUs: set JAX_PLATFORMS=cpu')
  if set(names) & {TRAINER, RANDOM} and not (find_spec('transformers') and find_spec('accelerate')):
    raise InputError('the Trainer needs transformers and accelerate: pip install "gptjax[bench]", or choose '
                     f'--contenders={OURS},{PADDED}')
  config, loaded = load(flags)
  machine = machine_info(PACKAGES)
  command = [sys.executable, '-m', 'gptjax.benchmark', 'finetune', *argv]
  answers = interleaved({name: [*command, f'--worker={name}'] for name in names}, flags.batches, flags.turns)
  seconds = {name: [s / n for n, s in turns] for name, (_, turns) in answers.items()}  # per example
  print(f'{machine["processor"]}, {machine["cores"]} cores, {machine["date"]}; {flags.task}, '
        f'{loaded.train.max_lengths.mean():.1f} tokens per example, {config.model.n_layer} x '
        f'{config.model.n_embd}, widths {", ".join(map(str, loaded.widths))}')
  rows, gates = [], []
  for name, own in seconds.items():
    ratio = speedup(seconds[OURS], own) if name != OURS else None
    rows.append(results.row(f'fine-tuning, {flags.task}', name, 'examples/s', [1 / each for each in own],
                            ratio))
    print(f'{name:<16}{rows[-1]["median"]:>10.2f} examples/s' + (f'{ratio:>8.2f} x' if ratio else ''))
    if name in TARGETS and ratio:
      gates.append(results.gate(f'times as many examples per second as {name}', '>=', TARGETS[name], ratio))
  results.print_gates(gates)
  results.write(flags.out, 'finetune', machine, rows, gates, widths=loaded.widths,
                tokens=float(loaded.train.max_lengths.mean()),
                examples={name: [n for n, _ in turns] for name, (_, turns) in answers.items()})
  return int(not all(gate['holds'] for gate in gates))
