"""The fine-tuning job: each task with each seed, then one table."""

import contextlib
import math
import os
import sys
from pathlib import Path

import jax

from gptjax.config import memory, resume
from gptjax.config import resolve as configs
from gptjax.data.corpus import mixture
from gptjax.domains import LARGEST_SEED
from gptjax.errors import InputError
from gptjax.files import atomic, literal_path
from gptjax.finetune import batches, results, weights
from gptjax.finetune import data as datas
from gptjax.finetune.run import Run, fine_tuned
from gptjax.finetune.step import graph
from gptjax.finetune.tasks import published
from gptjax.finetune.tasks.transforms import TEXT
from gptjax.parallel import processes, sharding
from gptjax.parallel.watchdog import Watchdog
from gptjax.pretrain.loop import DONE, PREPARE_LIMIT, STOPPED, prepare_corpus
from gptjax.pretrained.run_weights import save_tokenizer
from gptjax.storage import ownership


def finetune(config, workdir, overrides=()):
  """Fine-tunes, or goes on where the workdir's checkpoints are.

  Args:
    config: as written; it is resolved in place.
    workdir: folder of the results.
    overrides: names of the fields that the command line sets, like 'train.steps'.

  Returns:
    Exit code: 0 or 75.

  Raises:
    ValueError: bad config or input, one line.
  """
  configs.check_fields(config)
  resume.keep_stored_fields(config, workdir, overrides)
  check(config)
  source, tokenizer = weights.source_of(config)
  configs.resolve(config, workdir)
  configs.check(config)
  check_model(config)
  processes.compare(configs.facts(config) | {'--workdir': os.path.abspath(workdir)})
  mesh = sharding.make_mesh(config.mesh)
  sharding.check(config, mesh)
  memory.check(config, mesh)
  if any(task.kind == TEXT for task in chosen(config).values()):
    mixture.require_corpora(config.data)
  literal_path.check(workdir)
  with ownership.own_workdir(workdir):
    return run_owned(config, workdir, mesh, source, tokenizer)


def run_owned(config, workdir, mesh, source, tokenizer):
  """All tasks and seeds, once no other process writes to the workdir; the exit code."""
  if any(task.kind == TEXT for task in chosen(config).values()):
    processes.on_process_0(lambda: prepare_corpus(config, workdir, tokenizer), PREPARE_LIMIT)
  loaded = [datas.load(name, task, tokenizer, config) for name, task in chosen(config).items()]
  processes.compare({f'digest of task {data.name}': data.digest for data in loaded})
  processes.on_process_0(lambda: initialize_workdir(config, workdir, tokenizer, loaded))
  found = {}
  with (jax.set_mesh(mesh), processes.stop_signals() as stop,
        contextlib.closing(Watchdog(config.watchdog)) as dog):
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


def chosen(config):
  """{name: tasks.Task} of `finetune.tasks`."""
  return {name: published.find(name, config.finetune.own_tasks) for name in config.finetune.tasks}


def check(config):
  """Refuses what only fine-tuning can refuse (ValueError)."""
  f, seq_len = config.finetune, config.data.seq_len
  _require(f.tasks, 'config.finetune.tasks is empty: --config=configs/gpt1_finetune.py:TASK names one')
  chosen(config)
  _require(config.train.seed + f.n_seeds - 1 <= LARGEST_SEED,
           f'config.train.seed = {config.train.seed} and config.finetune.n_seeds = {f.n_seeds} go beyond the '
           f'largest seed, {LARGEST_SEED}: lower one of them')
  _require(not f.data_dir or Path(f.data_dir).is_dir(),
           f'config.finetune.data_dir = {f.data_dir!r} is not a folder')
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
  _require(f.train != 'lora' or f.lora_rank <= config.model.n_embd,
           f'config.finetune.lora_rank = {f.lora_rank} is more than config.model.n_embd = '
           f'{config.model.n_embd}: lower it')
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


def initialize_workdir(config, workdir, tokenizer, loaded):
  """What process 0 writes before the runs: config.json and the tokenizer."""
  configs.make_workdir(workdir)
  configs.write_or_check_config(config, workdir, '+'.join(data.digest for data in loaded))
  save_tokenizer(tokenizer, workdir)


def prepared(config, workdir, data, tokenizer, seed, mesh, stop, watchdog, programs):
  """The Run of a task with a seed."""
  folder, config = folder_of(config, workdir, data.name, seed), weights.with_marks(config)
  config.train.seed = seed
  plan = batches.Plan(data.train.longest, data.widths, config.train.batch_size, seed,
                      config.finetune.group_by_length)
  steps = config.train.steps or math.ceil(config.train.epochs * plan.per_epoch)
  graphdef = graph(config, data.task.kind, data.outputs)
  return Run(config, folder, mesh, data, tokenizer, plan, graphdef, steps, stop, watchdog,
             programs)


def finish(config, workdir, loaded, found):
  """Writes and says the results of all tasks and seeds."""
  collected = results.collect(found, {data.name: data.task.paper for data in loaded})
  notes = {data.name: data.task.note for data in loaded}
  results.write(workdir, collected, notes)
  said = ['', results.table(collected, notes), '', f'results       {Path(workdir) / results.RESULTS}']
  for data in loaded:
    best = max(found[data.name], key=lambda run: results.main_score(data, run['metrics']))
    made = folder_of(config, workdir, data.name, best['seed']) / results.PREDICTIONS
    for file in data.test if config.finetune.predict else ():
      target = Path(workdir) / results.PREDICTIONS / f'{file}.tsv'
      target.parent.mkdir(exist_ok=True)
      if made != target.parent:
        atomic.write(target, (made / target.name).read_bytes())
      said.append(f'predictions   {target} (seed {best["seed"]})')
  print('\n'.join(said), file=sys.stderr)
