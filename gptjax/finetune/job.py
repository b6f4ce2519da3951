"""The fine-tuning job: each task with each seed, then one table."""

import contextlib
import math
import sys

import jax

from gptjax.config import memory, resume
from gptjax.config import resolve as configs
from gptjax.data.corpus import mixture
from gptjax.domains import LARGEST_SEED
from gptjax.errors import InputError
from gptjax.finetune import batches, results, weights
from gptjax.finetune import data as task_data
from gptjax.finetune.run import Run, finetune_run
from gptjax.finetune.step import graph
from gptjax.finetune.tasks import published
from gptjax.finetune.tasks.transforms import LANGUAGE_MODEL
from gptjax.parallel import processes, sharding
from gptjax.parallel.watchdog import Watchdog
from gptjax.pretrain.loop import DONE, STOPPED
from gptjax.pretrain.preparation import PREPARE_LIMIT, prepare_corpus
from gptjax.pretrained.run_weights import save_tokenizer
from gptjax.storage import orbax_io, ownership
from gptjax.storage.files import access, paths


def finetune(config, workdir, overrides=()):
  """Fine-tune, or resume from the checkpoints in the workdir.

  Args:
    config: unresolved; it is resolved in place.
    workdir: folder of the results, here or in a bucket.
    overrides: names of the fields that the command line sets, like 'train.steps'.

  Returns:
    Exit code: 0 or 75.

  Raises:
    ValueError: bad config or input, one line.
  """
  workdir = paths.location(workdir)
  configs.check_fields(config)
  resume.restore_stored_fields(config, workdir, overrides)
  check(config)
  source, tokenizer = weights.open_pretrained(config)
  configs.resolve(config, workdir)
  configs.check(config)
  check_model(config)
  processes.compare(configs.facts(config) | {'--workdir': str(workdir)})
  mesh = sharding.make_mesh(config.mesh)
  sharding.check(config, mesh)
  memory.check(config, mesh)
  if any(task.kind == LANGUAGE_MODEL for task in selected_tasks(config).values()):
    mixture.require_corpora(config.data)
  orbax_io.check_supported(paths.location(workdir))
  with ownership.own_workdir(workdir):
    return run_tasks(config, workdir, mesh, source, tokenizer)


def run_tasks(config, workdir, mesh, source, tokenizer):
  """Run all tasks and seeds once this process owns the workdir; returns the exit code."""
  if any(task.kind == LANGUAGE_MODEL for task in selected_tasks(config).values()):
    processes.on_process_0(lambda: prepare_corpus(config, workdir, tokenizer), PREPARE_LIMIT)
  loaded = [task_data.load(name, task, tokenizer, config) for name, task in selected_tasks(config).items()]
  processes.compare({f'digest of task {data.name}': data.digest for data in loaded})
  processes.on_process_0(lambda: initialize_workdir(config, workdir, tokenizer, loaded))
  results_of = {}
  with (jax.set_mesh(mesh), processes.stop_signals() as stop,
        contextlib.closing(Watchdog(config.watchdog)) as watchdog):
    for data in loaded:
      programs = {}
      for seed in range(config.train.seed, config.train.seed + config.finetune.n_seeds):
        run = make_run(config, workdir, data, tokenizer, seed, mesh, stop, watchdog, programs)
        result = finetune_run(run, source)
        if result is None:
          return STOPPED
        results_of.setdefault(data.name, []).append(result)
  if jax.process_index() == 0:
    write_results(config, workdir, loaded, results_of)
  return DONE


def selected_tasks(config):
  """{name: published.Task} of `finetune.tasks`."""
  return {name: published.find(name, config.finetune.own_tasks) for name in config.finetune.tasks}


def check(config):
  """Check the fields that only fine-tuning uses (ValueError)."""
  f, seq_len = config.finetune, config.data.seq_len
  _require(f.tasks, 'config.finetune.tasks is empty: choose a task, --config=configs/gpt1_finetune.py:TASK')
  selected_tasks(config)
  _require(config.train.seed + f.n_seeds - 1 <= LARGEST_SEED,
           f'config.train.seed = {config.train.seed} and config.finetune.n_seeds = {f.n_seeds} exceed the '
           f'largest seed, {LARGEST_SEED}: lower one of them')
  _require(not f.data_dir or access.is_folder(paths.location(f.data_dir)),
           f'config.finetune.data_dir = {f.data_dir!r} is not a folder')
  _require(config.checkpoint.keep_best >= 1,
           'config.checkpoint.keep_best = 0 would delete the best checkpoint: keep at least 1')
  _require(not config.checkpoint.keep_period_weights_only,
           'config.checkpoint.keep_period_weights_only = True is for pretraining: set it to False')
  _require(seq_len == 0 or seq_len >= 8, f'config.data.seq_len = {seq_len} is too short: use at least 8')


def check_model(config):
  """Check the config against the model of the weights (ValueError)."""
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


def _require(condition, message):
  if not condition:
    raise InputError(message)


def run_folder(config, workdir, name, seed):
  """The folder of the metrics and checkpoints of one run; the workdir itself if there is only one run."""
  folder = paths.location(workdir)
  folder = folder / name if len(config.finetune.tasks) > 1 else folder
  return folder / f'seed-{seed}' if config.finetune.n_seeds > 1 else folder


def initialize_workdir(config, workdir, tokenizer, loaded):
  """Write the tokenizer and config.json, on process 0 before the runs."""
  configs.make_workdir(workdir)
  save_tokenizer(tokenizer, workdir)
  configs.write_or_check_config(config, workdir, '+'.join(data.digest for data in loaded))


def make_run(config, workdir, data, tokenizer, seed, mesh, stop, watchdog, programs):
  """The Run of a task with a seed."""
  folder, config = run_folder(config, workdir, data.name, seed), weights.with_task_tokens(config)
  config.train.seed = seed
  schedule = batches.BatchSchedule(data.train.max_lengths, data.widths, config.train.batch_size, seed,
                                   config.finetune.group_by_length)
  steps = config.train.steps or math.ceil(config.train.epochs * schedule.per_epoch)
  graphdef = graph(config, data.task.kind, data.n_outputs)
  return Run(config, folder, mesh, data, tokenizer, schedule, graphdef, steps, stop, watchdog,
             programs)


def write_results(config, workdir, loaded, results_of):
  """Write and print the results of all tasks and seeds."""
  collected = results.collect(results_of, {data.name: data.task.paper for data in loaded})
  workdir, notes = paths.location(workdir), {data.name: data.task.note for data in loaded}
  results.write(workdir, collected, notes, config.finetune.limit)
  lines = ['', results.table(collected, notes), '', f'results       {workdir / results.RESULTS}']
  for data in loaded:
    best = max(results_of[data.name], key=lambda run: results.main_score(data, run['metrics']))
    predictions = run_folder(config, workdir, data.name, best['seed']) / results.PREDICTIONS
    for file in data.test if config.finetune.predict else ():
      target = workdir / results.PREDICTIONS / f'{file}.tsv'
      access.make_folder(target.parent)
      if predictions != target.parent:
        access.copy(predictions / target.name, target)
      lines.append(f'predictions   {target} (seed {best["seed"]})')
  print('\n'.join(lines), file=sys.stderr)
