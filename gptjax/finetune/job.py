"""The fine-tuning job: each task with each seed, then one table."""

import contextlib
import copy
import functools
import json
import math
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from gptjax import atomic, hosts, sharding, telemetry
from gptjax import checkpoint as checkpoints
from gptjax import config as configs
from gptjax.data import pipeline
from gptjax.finetune import batches, parts, report, results, tasks, weights
from gptjax.finetune import data as datas
from gptjax.finetune.step import graph, predict_step, train_step
from gptjax.pretrain import DONE, STOPPED
from gptjax.pretrained.run import keep_tokenizer
from gptjax.watchdog import Watchdog


class Run(NamedTuple):
  """What does not change while one task is fine-tuned with one seed."""
  config: Any     # of the model that is fine-tuned: n_vocab counts the new tokens, train.seed is the run's
  folder: Path
  mesh: Any
  data: Any       # datas.Data
  plan: Any       # batches.Plan
  graphdef: Any
  steps: int
  stop: Any       # hosts.Stop
  watchdog: Any


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
  source, tokenizer = weights.source_of(config)
  configs.resolve(config, workdir)
  configs.check(config)
  check(config)
  hosts.compare(configs.facts(config) | {'--workdir': os.path.abspath(workdir)})
  mesh = sharding.make_mesh(config.mesh)
  sharding.check(config, mesh)
  loaded = [datas.load(name, tasks.find(name), tokenizer, config) for name in config.finetune.tasks]
  hosts.compare({f'digest of task {data.name}': data.digest for data in loaded})
  hosts.told(lambda: lay_out(config, workdir, tokenizer, loaded))
  found = {}
  with jax.set_mesh(mesh), hosts.stop_signals() as stop, contextlib.closing(Watchdog(config.watchdog)) as dog:
    for data in loaded:
      for seed in seeds(config):
        run = prepared(config, workdir, data, seed, mesh, stop, dog)
        result = one(run, source)
        if result is None:
          return STOPPED
        found.setdefault(data.name, []).append(result)
  if jax.process_index() == 0:
    finish(config, workdir, loaded, found)
  return DONE


def check(config):
  """Refuses what only fine-tuning can refuse (ValueError)."""
  c, f = config, config.finetune
  for holds, message in (
      (f.tasks, 'config.finetune.tasks is empty: --config=configs/gpt1_finetune.py:TASK names one'),
      (f.train in parts.TRAINED, f'config.finetune.train = {f.train!r} is not one of {", ".join(parts.TRAINED)}'),
      (c.model.architecture == 'transformer' or f.train == 'full',
       f'config.finetune.train = {f.train!r} needs a Transformer: an LSTM is fine-tuned in full'),
      (f.train != 'last' or 1 <= f.last_layers <= c.model.n_layer,
       f'config.finetune.last_layers = {f.last_layers} must be from 1 to config.model.n_layer = '
       f'{c.model.n_layer}'),
      (-1 <= f.transfer_layers <= c.model.n_layer, f'config.finetune.transfer_layers = {f.transfer_layers} must '
       f'be from -1 (all) to config.model.n_layer = {c.model.n_layer}'),
      (1 <= f.buckets <= 8, f'config.finetune.buckets = {f.buckets} must be from 1 to 8'),
      (f.n_seeds >= 1, f'config.finetune.n_seeds = {f.n_seeds} must be at least 1'),
      (f.lora_rank >= 1, f'config.finetune.lora_rank = {f.lora_rank} must be at least 1'),
      (f.lm_coef >= 0, f'config.finetune.lm_coef = {f.lm_coef} must not be negative'),
      (0 <= f.head_dropout < 1, f'config.finetune.head_dropout = {f.head_dropout} must lie in [0, 1)'),
      (min(f.limit, f.patience, f.train_examples) >= 0,
       'config.finetune.limit, patience and train_examples must not be negative'),
      (c.checkpoint.keep_best >= 1, 'config.checkpoint.keep_best = 0 would lose the best checkpoint: at least 1'),
      (c.data.seq_len >= 8, f'config.data.seq_len = {c.data.seq_len} is too short to fine-tune: at least 8')):
    if not holds:
      raise ValueError(message)
  for name in f.tasks:
    tasks.find(name)


def seeds(config):
  return range(config.train.seed, config.train.seed + config.finetune.n_seeds)


def folder_of(config, workdir, name, seed):
  """Where a task with a seed has its metrics and checkpoints: the workdir itself, where there is but one."""
  folder = Path(workdir)
  folder = folder / name if len(config.finetune.tasks) > 1 else folder
  return folder / f'seed-{seed}' if config.finetune.n_seeds > 1 else folder


def lay_out(config, workdir, tokenizer, loaded):
  """What process 0 writes before the runs: config.json and the tokenizer."""
  configs.make_workdir(workdir)
  configs.claim(config, workdir, '+'.join(data.digest for data in loaded))
  fresh = Path(workdir) / 'tokenizer.saved'
  tokenizer.save(fresh)
  keep_tokenizer(fresh, workdir)
  shutil.rmtree(fresh)


def prepared(config, workdir, data, seed, mesh, stop, watchdog):
  """The Run of a task with a seed."""
  config = weights.with_marks(config)
  config.train.seed = seed
  plan = batches.Plan(data.train.longest, data.widths, config.train.batch_size, seed)
  steps = config.train.steps or math.ceil(config.train.epochs * plan.per_epoch)
  with jax.set_mesh(mesh):
    graphdef = graph(config, data.task.kind, data.outputs)
  return Run(config, folder_of(config, workdir, data.name, seed), mesh, data, plan, graphdef, steps, stop, watchdog)


def one(run, source):
  """Fine-tunes one task with one seed; its result, a dict, or None if told to stop."""
  config, path = run.config, run.folder / results.RESULT
  done = hosts.told(lambda: json.loads(path.read_text()) if path.exists() else None)
  if done and not config.finetune.predict:
    return done
  hosts.told(lambda: run.folder.mkdir(parents=True, exist_ok=True))
  start_fresh = functools.partial(weights.first_state, config, run.data.task.kind, run.data.outputs)
  shapes = sharding.concrete(jax.eval_shape(lambda: start_fresh(None, run.mesh)), run.mesh)
  restored = checkpoints.restore(run.folder / 'checkpoints', shapes, lambda line: print(line, file=sys.stderr))
  state = restored[0] if restored else start_fresh(source, run.mesh)
  tell = telemetry.Telemetry(run.folder, run.steps, int(state.step), config.log.tensorboard)
  saves = checkpoints.Checkpoints(run.folder / 'checkpoints', config.checkpoint.keep, config.checkpoint.keep_best,
                                  {'corpus_digest': run.data.digest, 'versions': configs.versions()})
  try:
    report.greet(run, tell, state)
    state, finished = loop(run, state, tell, saves)
    result = conclude(run, state, shapes, tell) if finished else None
    if result is None:
      tell.say('stopped and saved: the same command goes on from there')
    return result
  except Exception as error:
    hosts.fail(error, run.folder)  # now: closing waits for a save in flight, and that for the others
    raise
  finally:
    saves.close()
    tell.close()


def loop(run, state, tell, saves):
  """Trains from `state.step` to the last step, an early stop, or until told to stop.

  Returns:
    (state, whether the run is over).
  """
  config, start = run.config, int(state.step)
  watch, late = telemetry.Stopwatch(), None
  side_work(run, state, start, tell, saves)
  if start < run.steps and not over(run, tell):
    step_fns = compiled(run, state, tell)
  made = pipeline.plain_batches(functools.partial(train_batch, run), start, run.steps)
  with contextlib.closing(pipeline.ahead(made, lambda batch: placed(run, batch), 2)) as ahead:
    watch.restart()
    for step in range(start, run.steps):
      if run.stop.asked() or (due(run, step) and over(run, tell)):
        break
      batch, waited = next(ahead)
      watch.input += waited
      state, metrics = step_fns[batch['tokens'].shape[2]](state, batch)
      if late:
        report.step(run, tell, watch, *late)
        run.watchdog.progress()
      late = step + 1, metrics
      if due(run, step + 1) or _every(config.checkpoint.every_steps, step + 1):
        report.step(run, tell, watch, *late)
        late, aside = None, time.monotonic()
        side_work(run, state, step + 1, tell, saves)
        watch.aside += time.monotonic() - aside
      saves.poll()
  if late:
    report.step(run, tell, watch, *late)
  run.watchdog.progress(slow=True)
  stopped = run.stop.asked()
  if stopped:
    saves.save(state, int(state.step), _metric(tell, int(state.step)))
  saves.wait()
  return state, not stopped


def compiled(run, state, tell):
  """{width: the train step, compiled for it}; the state is donated."""
  step = functools.partial(train_step, config=run.config, graphdef=run.graphdef, numeric=run.data.numeric,
                           steps=run.steps)
  began, made = time.monotonic(), {}
  for width in tqdm(run.data.widths, desc='compiling', unit='width', leave=False, disable=None):
    some = placed(run, {**batch_of(run, run.data.train, np.arange(1), run.data.widths[-1]),
                        'tokens': np.zeros((_rows(run).stop - _rows(run).start, run.data.train.starts.shape[1],
                                            width), np.int32)})
    made[width] = jax.jit(step, donate_argnums=0).lower(state, some).compile()
    run.watchdog.progress(slow=True)
  tell.say(f'compiled the step for {len(made)} widths in {time.monotonic() - began:.1f} s')
  return made


def _rows(run):
  return sharding.local_rows(run.config.train.batch_size, run.mesh)


def placed(run, batch):
  return sharding.put(batch, run.mesh)


def batch_of(run, encoded, examples, width):
  return batches.batch(encoded, examples, width, run.config.train.batch_size, _rows(run))


def train_batch(run, step):
  """This host's rows of batch `step`."""
  return batch_of(run, run.data.train, *run.plan(step))


def _every(every, step):
  return every > 0 and step > 0 and step % every == 0


def due(run, step):
  """Whether the model is measured after this step: after each epoch, each eval.every_steps, and at the end."""
  return step == run.steps or _every(run.plan.per_epoch, step) or _every(run.config.eval.every_steps, step)


def side_work(run, state, step, tell, saves):
  """Evaluation and checkpoint, where due after `step` and not yet on record."""
  run.watchdog.progress(slow=True)
  measured = due(run, step)
  if measured and hosts.told(lambda: tell.value(step, 'eval/score')) is None:
    outputs = measure(run, state, run.data.validation)
    if outputs is None:
      return
    found = results.scores(run.data, outputs, run.data.validation)
    score = results.main_score(run.data, found)
    tell.write(step, {'eval/score': score, **{f'eval/{name}': value for name, value in found.items()}})
    tell.say(f'step {step}  ' + '  '.join(f'{name} {value:.2f}' for name, value in found.items()))
  if measured or _every(run.config.checkpoint.every_steps, step):
    saves.wait()
    saves.save(state, step, _metric(tell, step))


def _metric(tell, step):
  """What `Checkpoints` keeps the smallest of; None where nothing was measured."""
  score = hosts.told(lambda: tell.value(step, 'eval/score'))
  return None if score is None else -score


def history(tell):
  """[(score, step), ...] of all evaluations so far, the same on all hosts."""
  return hosts.told(lambda: [[record['eval/score'], record['step']] for record in tell.records
                             if 'eval/score' in record])


def over(run, tell):
  """Whether `finetune.patience` evaluations have brought nothing better."""
  patience = run.config.finetune.patience
  found = [score for score, _ in history(tell)] if patience else []
  return len(found) > patience > 0 and max(found[-patience:]) <= max(found[:-patience])


def measure(run, state, splits):
  """{name: float[n, c]}, what the head says of all examples of several batches.Encoded; None: told to stop."""
  step = jax.jit(functools.partial(predict_step, config=run.config, graphdef=run.graphdef))
  size, outputs = run.config.train.batch_size, {}
  for name, encoded in splits.items():
    parts_of = batches.in_order(encoded.longest, run.data.widths, size)
    values, rows = [], []
    for examples, width in tqdm(parts_of, desc=f'measuring {name}'.strip(), unit='batch', leave=False,
                                disable=None):
      if run.stop.asked():
        return None
      values.append(step(state, placed(run, batch_of(run, encoded, examples, width)))[:len(examples)])
      rows.append(examples)
      jax.block_until_ready(values[-2:-1])
      run.watchdog.progress()
    outputs[name] = np.concatenate(jax.device_get(values))[np.argsort(np.concatenate(rows))]
  return outputs


def conclude(run, state, shapes, tell):
  """The result of a run: the metrics of its best checkpoint, and its predictions; None if told to stop."""
  config, data = run.config, run.data
  score, step = max(history(tell), key=lambda pair: (pair[0], -pair[1]))
  result = {'seed': config.train.seed, 'step': step, 'steps': run.steps, 'cut': data.train.cut,
            'metrics': hosts.told(lambda: {name.removeprefix('eval/'): value for name, value in next(
              record for record in reversed(tell.records) if record['step'] == step
              and 'eval/score' in record).items() if name.startswith('eval/') and name != 'eval/score'})}
  if config.finetune.predict or config.finetune.train_examples:
    path = run.folder / 'checkpoints' / str(step)
    best = state if step == int(state.step) else checkpoints.load(path, checkpoints.read_manifest(path), shapes)
    some = {'train': first_examples(data.train, config.finetune.train_examples)} if (
      config.finetune.train_examples) else {}
    outputs = measure(run, best, some | (data.test if config.finetune.predict else {}))
    if outputs is None:
      return None
    if some:
      found = results.scores(data, {'': outputs.pop('train')}, {'': some['train']})
      result['train_metrics'] = found
    for file, values in outputs.items():
      hosts.told(lambda file=file, values=values: str(results.write_predictions(run.folder, data, file, values)))
  hosts.told(lambda: atomic.write(run.folder / results.RESULT, json.dumps(result, indent=1)))
  tell.say(f'best at step {step}: ' + '  '.join(f'{name} {value:.2f}' for name, value in result['metrics'].items()))
  return result


def first_examples(encoded, n):
  """The first n examples of a batches.Encoded."""
  return encoded._replace(**{name: getattr(encoded, name)[:n] for name in ('starts', 'lengths', 'labels', 'index')})


def finish(config, workdir, loaded, found):
  """Writes and says the results of all tasks and seeds."""
  paper = {data.name: data.task.paper for data in loaded}
  collected = results.collect(found, paper)
  results.write(workdir, collected)
  print(f'\n{results.table(collected)}\n', file=sys.stderr)
  said = [f'results       {Path(workdir) / results.RESULTS}']
  if config.finetune.predict:
    for data in loaded:
      best = max(found[data.name], key=lambda run: results.main_score(data, run['metrics']))
      made = folder_of(config, workdir, data.name, best['seed']) / results.PREDICTIONS
      for file in data.test:
        target = Path(workdir) / results.PREDICTIONS / f'{file}.tsv'
        target.parent.mkdir(exist_ok=True)
        if made != target.parent:
          shutil.copyfile(made / f'{file}.tsv', target)
        said.append(f'predictions   {target} (seed {best["seed"]})')
  print('\n'.join(said), file=sys.stderr)


def with_changes(config, changes):
  """A copy of a config with {'section.field': value} set."""
  config = copy.deepcopy(config)
  for name, value in changes.items():
    section, _, field = name.rpartition('.')
    (config[section] if section else config)[field] = value
  return config
