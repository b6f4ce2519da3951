"""One task fine-tuned with one seed: the loop around the step, evaluation, the best checkpoint."""

import concurrent.futures
import contextlib
import functools
import os
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from gptjax.command import bars, shutdown
from gptjax.config import resolve as configs
from gptjax.data.corpus import pipeline
from gptjax.files import atomic, records
from gptjax.finetune import batches, report, results, weights
from gptjax.finetune.step import predict_step, train_step
from gptjax.finetune.tasks.transforms import TEXT
from gptjax.kernels import xla_presets
from gptjax.parallel import processes, sharding
from gptjax.pretrained.export import export_obstacle, save_pretrained
from gptjax.report.telemetry import Stopwatch, Telemetry
from gptjax.storage import checkpoint as checkpoints
from gptjax.text.words import plural


class Run(NamedTuple):
  """What does not change while one task is fine-tuned with one seed."""
  config: Any     # of the model that is fine-tuned: n_vocab counts the new tokens, train.seed is the run's
  folder: Path
  mesh: Any
  data: Any       # data.Data
  tokenizer: Any
  plan: Any       # batches.Plan
  graphdef: Any
  steps: int
  stop: Any       # hosts.Stop
  watchdog: Any   # Watchdog
  programs: dict  # what is compiled for this task, by width, and `predict`; all seeds share it


def fine_tuned(run, source):
  """Fine-tunes, or goes on where the folder's newest checkpoint is.

  Args:
    run: Run.
    source: layout.Source of the pretrained weights, or None.

  Returns:
    {'version', 'seed', 'step' of the best checkpoint, 'steps', 'cut', 'empty', 'metrics'}; None if told to
    stop.
  """
  config, path, folder = run.config, run.folder / results.RESULT, run.folder / 'checkpoints'
  done = processes.on_process_0(lambda: records.read_or_discard(path, layout=results.RESULT_LAYOUT))
  if done:
    results.require_version(path, done)
    done = results.of_this_version(done)
    tested = not run.data.scored or any(name.startswith(results.TEST) for name in done['metrics'])
    if done['steps'] == run.steps and not config.finetune.predict and tested:
      return done
  processes.on_process_0(lambda: run.folder.mkdir(parents=True, exist_ok=True))
  begin = functools.partial(weights.first_state, config, run.data.task.kind, run.data.outputs)
  shapes = sharding.with_shardings(jax.eval_shape(lambda: begin(None, run.mesh)), run.mesh)
  restored = checkpoints.restore(folder, shapes, lambda line: print(line, file=sys.stderr))
  state = restored[0] if restored else begin(source, run.mesh)
  shutdown.exit_on_signal(shutdown.resume_message(int(state.step)))
  telemetry = Telemetry(run.folder, run.steps, config.log.tensorboard)
  telemetry.begin(int(state.step))
  saves = checkpoints.Checkpoints(folder, config.checkpoint.keep, config.checkpoint.keep_best,
                                  {'corpus_digest': run.data.digest, 'versions': configs.versions()})
  try:
    report.log_start(run, telemetry, state)
    state, finished = loop(run, state, telemetry, saves)
    telemetry.close_bar()
    if finished:
      shutdown.exit_on_signal('stopped before the results are written, the last step is saved: the same '
                              'command continues there')
    result = conclude(run, state, shapes, telemetry) if finished else None
    if result is None:
      telemetry.log(f'stopped after step {int(state.step)}, saved: the same command goes on from there')
    return result
  except Exception as error:
    processes.fail(error, run.folder)  # now: closing waits for a save in flight, and that for the others
    raise
  finally:
    saves.close()
    telemetry.close()


def loop(run, state, telemetry, saves):
  """Trains from `state.step` to the last step, an early stop, or until told to stop.

  Returns:
    (state, whether the run is over).
  """
  start, watch, late = int(state.step), Stopwatch(), None
  evaluate_and_checkpoint(run, state, start, telemetry, saves)
  at_work = start < run.steps and not run.stop.requested() and not over(run, telemetry)
  step_fns = compiled(run, state, telemetry) if at_work else {}
  if at_work:
    shutdown.defer_signal(processes.STOPPING)
  made = pipeline.synchronous_batches(functools.partial(train_batch, run), start,
                                      run.steps if at_work else start)
  shard = functools.partial(sharding.shard_batch, mesh=run.mesh)
  with contextlib.closing(pipeline.prefetch_to_device(made, shard, 2)) as ahead:
    watch.restart()
    for step, (batch, waited) in enumerate(ahead, start):
      watch.input += waited
      state, metrics = step_fns[batch['tokens'].shape[2]](state, batch)
      if late:
        report.step(run, telemetry, watch, *late)
        run.watchdog.progress()
      late = step + 1, metrics
      if due(run, step + 1) or _every(run.config.checkpoint.every_steps, step + 1):
        report.step(run, telemetry, watch, *late)
        late, aside = None, time.monotonic()
        evaluate_and_checkpoint(run, state, step + 1, telemetry, saves)
        watch.excluded += time.monotonic() - aside
      saves.poll()
      if run.stop.requested() or (due(run, step + 1) and over(run, telemetry)):
        break
  if late:
    report.step(run, telemetry, watch, *late)
  run.watchdog.progress(slow=True)
  stopped = run.stop.requested()
  if stopped:
    saves.save(state, int(state.step), _metric(telemetry, int(state.step)))
  saves.wait()
  processes.on_process_0(lambda: None)  # process 0 has signed the checkpoint: from here on nothing is lost
  return state, not stopped


def compiled(run, state, telemetry):
  """{width: the train step, compiled for it}, as many at a time as there are cores; the state is donated."""
  widths = [width for width in batches.used_widths(run.plan, run.steps) if width not in run.programs]
  step = jax.jit(functools.partial(train_step, config=run.config, graphdef=run.graphdef,
                                   numeric=run.data.numeric, steps=run.steps), donate_argnums=0)
  began, nobody, jobs = time.monotonic(), np.arange(0), {}
  if widths:
    telemetry.busy(f'compiling the step for {plural(len(widths), "width")}')
  with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    for width in widths:
      batch = sharding.shard_batch(batch_of(run, run.data.train, nobody, width), run.mesh)
      jobs[width] = pool.submit(step.lower(state, batch).compile,
                                compiler_options=xla_presets.options(run.config.xla_preset))
    bar = bars.bar(jobs.items(), desc='compiling', unit='width', leave=False)
    run.programs.update({width: job.result() for width, job in bar})
  if jobs:
    telemetry.bar.set_postfix_str('')
    telemetry.log(f'compiled the step for {plural(len(jobs), "width")} in {time.monotonic() - began:.1f} s')
  return run.programs


def batch_of(run, encoded, examples, width):
  """This host's rows of a batch of these examples."""
  size = run.config.train.batch_size
  return batches.batch(encoded, examples, width, size, sharding.local_rows(size, run.mesh))


def train_batch(run, step):
  """This host's rows of batch `step`."""
  return batch_of(run, run.data.train, *run.plan(step))


def _every(every, step):
  return every > 0 and step > 0 and step % every == 0


def due(run, step):
  """Whether the model is measured after a step: after each epoch, each eval.every_steps, and the last one."""
  epochs, every = run.plan.per_epoch, run.config.eval.every_steps
  return step == run.steps or _every(epochs, step) or _every(every, step)


def evaluate_and_checkpoint(run, state, step, telemetry, saves):
  """Evaluation and checkpoint, where due after `step` and not yet on record."""
  run.watchdog.progress(slow=True)
  if due(run, step) and _metric(telemetry, step) is None:
    outputs = measure(run, state, run.data.validation)
    if outputs is None:
      return
    found = results.scores(run.data, outputs, run.data.validation)
    score = results.main_score(run.data, found)
    telemetry.write(step, {'eval/score': score, **{f'eval/{name}': value for name, value in found.items()}})
    telemetry.log(f'step {step}  {_shown(found)}')
  if due(run, step) or _every(run.config.checkpoint.every_steps, step):
    saves.wait()
    saves.save(state, step, _metric(telemetry, step))


def _shown(metrics):
  return '  '.join(f'{name} {results.printed(name, value, 2)}' for name, value in metrics.items())


def _metric(telemetry, step):
  """What `Checkpoints` keeps the smallest of; None where nothing was measured."""
  score = processes.on_process_0(lambda: telemetry.value(step, 'eval/score'))
  return None if score is None else -score


def history(run, telemetry):
  """[[score, step], ...] of all evaluations so far, the same on all hosts.

  Those that a damaged metrics.jsonl has lost are taken from the checkpoints that were kept.
  """
  def read():
    found = {record['step']: record['eval/score'] for record in telemetry.records if 'eval/score' in record}
    folder = run.folder / 'checkpoints'
    kept = map(checkpoints.read_manifest, (folder / str(step) for step in checkpoints.steps(folder)))
    lost = {one['step']: -one['metric'] for one in kept if one and one['metric'] is not None}
    return sorted(([score, step] for step, score in {**lost, **found}.items()), key=lambda pair: pair[1])
  return processes.on_process_0(read)


def over(run, telemetry):
  """Whether `finetune.patience` evaluations have brought nothing better."""
  patience = run.config.finetune.patience
  found = [score for score, _ in history(run, telemetry)] if patience else []
  return len(found) > patience > 0 and max(found[-patience:]) <= max(found[:-patience])


def measure(run, state, splits):
  """What the head says of all examples of several batches.Encoded.

  Returns:
    {name: float[n, c]}, or None if told to stop.
  """
  predict = functools.partial(predict_step, config=run.config, graphdef=run.graphdef)
  step, outputs = run.programs.setdefault('predict', jax.jit(predict)), {}
  for name, encoded in splits.items():
    values, rows = [], []
    # Test sets do not choose the widths, or asking for predictions would change the training.
    widths = sorted({*run.data.widths, run.config.data.seq_len})
    made = batches.in_order(encoded.longest, widths, run.config.train.batch_size)
    bar = bars.bar(made, desc=f'measuring {name}'.strip(), unit='batch', leave=False)
    for examples, width in bar:
      if run.stop.requested():
        return None
      batch = sharding.shard_batch(batch_of(run, encoded, examples, width), run.mesh)
      values.append(step(state, batch)[:len(examples)])
      rows.append(examples)
      jax.block_until_ready(values[-2:-1])  # a few are under way, not all: else the watchdog could not tell
      run.watchdog.progress(slow=len(values) == 1)
    outputs[name] = np.concatenate(jax.device_get(values))[np.argsort(np.concatenate(rows))]
  return outputs


def conclude(run, state, shapes, telemetry):
  """The result of a run: the metrics of its best checkpoint, and its predictions; None if told to stop."""
  config, data = run.config, run.data
  _, step = max(history(run, telemetry), key=lambda pair: (pair[0], -pair[1]))
  found = processes.on_process_0(lambda: next((record for record in reversed(telemetry.records)
                                   if record['step'] == step and 'eval/score' in record), None))
  exported = (data.task.kind == TEXT and config.model.architecture == 'transformer'
              and not processes.is_multiprocess())
  if exported and (why := export_obstacle(config)):
    telemetry.log(f'not exported: {why}')
    exported = False
  tests = {f'test {file}': one for file, one in data.test.items()}
  few = batches.chosen(data.train, slice(config.finetune.train_examples))
  few = {'train': few} if config.finetune.train_examples else {}
  # The line of the best checkpoint in metrics.jsonl may have been damaged.
  validation = {} if found else {f'validation {name}': one for name, one in data.validation.items()}
  splits = {**validation, **tests, **few}
  if (splits or exported) and step != int(state.step):
    path = run.folder / 'checkpoints' / str(step)
    state = checkpoints.load(path, checkpoints.read_manifest(path), shapes)
  outputs = measure(run, state, splits)
  if outputs is None:
    return None
  of = lambda split, several: {name: outputs[f'{split} {name}'] for name in several}
  metrics = (results.evaluated(data, found) if found else
             results.scores(data, of('validation', data.validation), data.validation))
  result = {'version': results.VERSION, 'seed': config.train.seed, 'step': step, 'steps': run.steps,
            'cut': data.train.cut, 'empty': data.train.empty,
            'metrics': metrics | results.test_scores(data, of('test', data.test))}
  if few:
    result['train_metrics'] = results.scores(data, {'': outputs['train']}, {'': few['train']})
  if config.finetune.predict:
    processes.on_process_0(lambda: [str(results.write_predictions(run.folder, data, file, values))
                        for file, values in of('test', data.test).items()])
  if exported:
    save_pretrained(weights.language_model(state, config), run.tokenizer, run.folder / 'export')
    telemetry.log(f'export        {run.folder / "export"}')
  processes.on_process_0(lambda: atomic.write(run.folder / results.RESULT, records.text(result)))
  telemetry.log(f'best at step {step}: {_shown(result["metrics"])}')
  return result
