"""The fine-tuning job: each task with each seed, then one table."""

import contextlib
import copy
import math
import os
import shutil
import sys
from pathlib import Path

import jax

from gptjax import atomic, hosts, sharding
from gptjax import config as configs
from gptjax.errors import InputError
from gptjax.finetune import batches, parts, results, tasks, weights
from gptjax.finetune import data as datas
from gptjax.finetune.run import Run, fine_tuned
from gptjax.finetune.step import graph
from gptjax.finetune.transforms import TEXT
from gptjax.pretrain import DONE, PREPARE_LIMIT, STOPPED, prepare_corpus
from gptjax.pretrained.run import keep_tokenizer
from gptjax.watchdog import Watchdog


def finetune(config, workdir):
  """Fine-tunes, or goes on where the workdir's checkpoints are.

  Args:
    config: as written; it is resolved in place.
    workdir: folder of the results.

  Returns:
    Exit code: 0 or 75.

  Raises:
    ValueError: bad config or input, one line.
  """
  check(config)
  source, tokenizer = weights.source_of(config)
  configs.resolve(config, workdir)
  configs.check(config)
  check_model(config)
  hosts.compare(configs.facts(config) | {'--workdir': os.path.abspath(workdir)})
  mesh = sharding.make_mesh(config.mesh)
  sharding.check(config, mesh)
  if any(tasks.find(name).kind == TEXT for name in config.finetune.tasks):
    hosts.told(lambda: make_corpus(config, workdir, tokenizer), PREPARE_LIMIT)
  loaded = [datas.load(name, tasks.find(name), tokenizer, config) for name in config.finetune.tasks]
  hosts.compare({f'digest of task {data.name}': data.digest for data in loaded})
  hosts.told(lambda: lay_out(config, workdir, tokenizer, loaded))
  found = {}
  with jax.set_mesh(mesh), hosts.stop_signals() as stop, contextlib.closing(Watchdog(config.watchdog)) as dog:
    for data in loaded:
      programs = {}
      for seed in range(config.train.seed, config.train.seed + config.finetune.n_seeds):
        run = prepared(config, workdir, data, tokenizer, seed, mesh, stop, dog, programs)
        result = fine_tuned(run, source)
        if result is None:
          return STOPPED
        found.setdefault(data.name, []).append(result)
  if jax.process_index() == 0:
    finish(config, workdir, loaded, found)
  return DONE


def check(config):
  """Refuses what only fine-tuning can refuse (ValueError)."""
  f, seq_len = config.finetune, config.data.seq_len
  _require(f.tasks, 'config.finetune.tasks is empty: --config=configs/gpt1_finetune.py:TASK names one')
  for name in f.tasks:
    tasks.find(name)
  _require(f.train in parts.TRAINED,
           f'config.finetune.train = {f.train!r} is not one of {", ".join(parts.TRAINED)}')
  _require(1 <= f.buckets <= 8, f'config.finetune.buckets = {f.buckets} must be from 1 to 8')
  _require(0 <= f.head_dropout < 1, f'config.finetune.head_dropout = {f.head_dropout} must lie in [0, 1)')
  for field in ('n_seeds', 'lora_rank', 'last_layers'):
    _require(f[field] >= 1, f'config.finetune.{field} = {f[field]} must be at least 1')
  for field in ('limit', 'patience', 'train_examples', 'lm_coef'):
    _require(f[field] >= 0, f'config.finetune.{field} = {f[field]} must not be negative')
  _require(config.checkpoint.keep_best >= 1,
           'config.checkpoint.keep_best = 0 would lose the best checkpoint: keep 1 at least')
  _require(seq_len == 0 or seq_len >= 8, f'config.data.seq_len = {seq_len} is too short: 8 at least')


def check_model(config):
  """Refuses what the model that the weights bring cannot have (ValueError)."""
  f, n_layer = config.finetune, config.model.n_layer
  _require(config.model.architecture == 'transformer' or f.train == 'full',
           f'config.finetune.train = {f.train!r} needs a Transformer: an LSTM is fine-tuned in full')
  _require(f.train != 'last' or f.last_layers <= n_layer,
           f'config.finetune.last_layers = {f.last_layers} is more than the {n_layer} layers of the model')
  _require(-1 <= f.transfer_layers <= n_layer,
           f'config.finetune.transfer_layers = {f.transfer_layers} must be from -1 (all) to the {n_layer} '
           'layers of the model')


def _require(holds, message):
  if not holds:
    raise InputError(message)


def folder_of(config, workdir, name, seed):
  """Where a task with a seed has its metrics and checkpoints: the workdir itself, where there is but one."""
  folder = Path(workdir)
  folder = folder / name if len(config.finetune.tasks) > 1 else folder
  return folder / f'seed-{seed}' if config.finetune.n_seeds > 1 else folder


def make_corpus(config, workdir, tokenizer):
  """Makes the corpus that the config names a source for, with the tokenizer of the weights."""
  configs.make_workdir(workdir)
  save_tokenizer(tokenizer, workdir)
  with_tokenizer = copy.deepcopy(config)
  with_tokenizer.data.tokenizer = str(Path(workdir) / 'tokenizer')
  prepare_corpus(with_tokenizer, workdir)


def lay_out(config, workdir, tokenizer, loaded):
  """What process 0 writes before the runs: config.json and the tokenizer."""
  configs.make_workdir(workdir)
  configs.claim(config, workdir, '+'.join(data.digest for data in loaded))
  save_tokenizer(tokenizer, workdir)


def save_tokenizer(tokenizer, workdir):
  """Writes WORKDIR/tokenizer, if it is not there yet."""
  saved = Path(workdir) / 'tokenizer.saved'
  tokenizer.save(saved)
  keep_tokenizer(saved, workdir)
  shutil.rmtree(saved)


def prepared(config, workdir, data, tokenizer, seed, mesh, stop, watchdog, programs):
  """The Run of a task with a seed."""
  folder, config = folder_of(config, workdir, data.name, seed), weights.with_marks(config)
  config.train.seed = seed
  plan = batches.Plan(data.train.longest, data.widths, config.train.batch_size, seed)
  steps = config.train.steps or math.ceil(config.train.epochs * plan.per_epoch)
  graphdef = graph(config, data.task.kind, data.outputs)
  return Run(config, folder, mesh, data, tokenizer, plan, graphdef, steps, stop, watchdog,
             programs)


def finish(config, workdir, loaded, found):
  """Writes and says the results of all tasks and seeds."""
  collected = results.collect(found, {data.name: data.task.paper for data in loaded})
  results.write(workdir, collected)
  said = ['', results.table(collected), '', f'results       {Path(workdir) / results.RESULTS}']
  for data in loaded:
    best = max(found[data.name], key=lambda run: results.main_score(data, run['metrics']))
    made = folder_of(config, workdir, data.name, best['seed']) / results.PREDICTIONS
    for file in data.test:
      target = Path(workdir) / results.PREDICTIONS / f'{file}.tsv'
      target.parent.mkdir(exist_ok=True)
      if made != target.parent:
        atomic.write(target, (made / target.name).read_bytes())
      said.append(f'predictions   {target} (seed {best["seed"]})')
  print('\n'.join(said), file=sys.stderr)
