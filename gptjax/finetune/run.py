"""One task fine-tuned with one seed: the training loop, evaluation, choice of the best checkpoint."""

import concurrent.futures
import contextlib
import functools
import os
import sys
import time
from typing import Any, NamedTuple

import jax
import numpy as np

from gptjax.command import bars, shutdown
from gptjax.config import resolve as configs
from gptjax.data.corpus import pipeline
from gptjax.errors import InputError
from gptjax.finetune import batches, report, results, weights
from gptjax.finetune.step import predict_step, train_step
from gptjax.finetune.tasks.transforms import LANGUAGE_MODEL
from gptjax.kernels import xla_presets
from gptjax.parallel import control, processes, sharding
from gptjax.pretrained.export import export_unsupported_reason, save_pretrained
from gptjax.report.telemetry import Stopwatch, Telemetry, UnreadMetrics
from gptjax.storage import checkpoint as checkpoints
from gptjax.storage.files import access, records
from gptjax.storage.retention import in_period, rules_of
from gptjax.text.words import plural


class Run(NamedTuple):
  """The constants of one run, which fine-tunes one task with one seed."""
  config: Any     # of the fine-tuned model: n_vocab counts the task tokens, train.seed is that of the run
  folder: Any     # Path or Url
  mesh: Any
  data: Any       # data.Data
  tokenizer: Any
  schedule: Any   # batches.BatchSchedule
  graphdef: Any
  steps: int
  stop: Any       # agreement.Stop
  watchdog: Any   # Watchdog
  programs: dict  # compiled programs of the task: by width, and `predict`; shared by all seeds


def finetune_run(run, source):
  """Fine-tune, or resume from the folder's newest checkpoint.

  Args:
    run: Run.
    source: layout.Source of the pretrained weights, or None.

  Returns:
    {'version', 'seed', 'step' of the best checkpoint, 'steps', 'cut', 'empty', 'metrics'}; None if a signal
    has stopped the run.
  """
  config, path, folder = run.config, run.folder / results.RESULT, run.folder / 'checkpoints'
  earlier = processes.on_process_0(lambda: records.read_or_discard(path, layout=results.RESULT_LAYOUT))
  if earlier:
    results.require_version(path, earlier)
    earlier = results.upgrade_result(earlier)
    has_test_scores = not run.data.label_masks or any(
      name.startswith(results.TEST) for name in earlier['metrics'])
    if earlier['steps'] == run.steps and not config.finetune.predict and has_test_scores:
      return earlier
  processes.on_process_0(lambda: access.make_folder(run.folder))
  make_state = functools.partial(weights.init_state, config, run.data.task.kind, run.data.n_outputs)
  shapes = sharding.with_shardings(jax.eval_shape(lambda: make_state(None, run.mesh)), run.mesh)
  restored = checkpoints.restore(folder, shapes, lambda line: print(line, file=sys.stderr))
  state = restored[0] if restored else make_state(source, run.mesh)
  shutdown.exit_on_signal(shutdown.resume_message(int(state.step)))
  telemetry = Telemetry(run.folder, run.steps, config.log.tensorboard, config.log.wandb)
  telemetry.begin(int(state.step))
  saves = checkpoints.Checkpoints(folder, rules_of(config.checkpoint),
                                  {'corpus_digest': run.data.digest, 'versions': configs.versions()},
                                  before_manifest=telemetry.flush, max_failed=config.checkpoint.max_failed,
                                  upload_seconds=config.storage.retry_seconds)
  try:
    report.log_start(run, telemetry, state)
    state, finished = train_loop(run, state, telemetry, saves)
    telemetry.close_bar()
    if finished:
      shutdown.exit_on_signal('stopped before the results were written; the last step is saved: run the same '
                              'command again to resume')
    result = finish_run(run, state, shapes, telemetry) if finished else None
    if result is None:
      telemetry.log(f'stopped after step {int(state.step)}, saved: run the same command again to resume')
    return result
  except Exception as error:
    control.fail(error, run.folder)  # first: `close` waits for a save, and the save for the other processes
    raise
  finally:
    saves.close()
    telemetry.close()


def train_loop(run, state, telemetry, saves):
  """Train from `state.step` until the last step, an early stop, or a signal.

  Returns:
    (state, whether the run is complete).
  """
  start, watch = int(state.step), Stopwatch()

  def read(number, metrics):
    report.log_step(run, telemetry, watch, number, metrics)
    run.watchdog.progress()

  unread = UnreadMetrics(read)
  timer = processes.save_timer(run.config.checkpoint.every_minutes)
  evaluate_and_checkpoint(run, state, start, telemetry, saves)
  ended = start == run.steps or patience_exhausted(run, telemetry)
  telemetry.log_resume(start, ended)
  training = not ended and not run.stop.requested()
  step_fns = compile_steps(run, state, telemetry) if training else {}
  if training:
    shutdown.defer_signal(processes.STOPPING)
  end, put = run.steps if training else start, functools.partial(sharding.shard_batch, mesh=run.mesh)
  host_batches = pipeline.synchronous_batches(functools.partial(train_batch, run), start, end)
  with contextlib.closing(pipeline.prefetch_to_device(host_batches, put, 2)) as device_batches:
    watch.restart()
    for step, (batch, waited) in enumerate(device_batches, start):
      watch.input += waited
      state, metrics = step_fns[batch['tokens'].shape[2]](state, batch)
      unread.add(step + 1, metrics)
      timed = timer.due(saves.started)
      if timed or checkpoint_due(run, step + 1):
        unread.read_all()
        began = time.monotonic()
        evaluate_and_checkpoint(run, state, step + 1, telemetry, saves, timed)
        watch.excluded += time.monotonic() - began
      saves.poll()
      if run.stop.requested() or (evaluation_due(run, step + 1) and patience_exhausted(run, telemetry)):
        break
  unread.read_all()
  run.watchdog.progress(slow=True)
  stopped = run.stop.requested()
  if stopped:
    saves.stopping = True
    saves.save(state, int(state.step), _metric(telemetry, int(state.step)))
  saves.wait(last=True)
  processes.on_process_0(lambda: None)  # process 0 has written the manifest: the checkpoint is complete
  return state, not stopped


def compile_steps(run, state, telemetry):
  """{width: the compiled train step}, compiled in parallel on all cores; the step donates its state."""
  widths = [width for width in batches.used_widths(run.schedule, run.steps) if width not in run.programs]
  step = jax.jit(functools.partial(train_step, config=run.config, graphdef=run.graphdef,
                                   is_regression=run.data.is_regression, steps=run.steps), donate_argnums=0)
  options = xla_presets.options(run.config.xla_preset, jax.default_backend())
  start, no_examples, jobs = time.monotonic(), np.arange(0), {}
  if widths:
    telemetry.show_activity(f'compiling the step for {plural(len(widths), "width")}')
  with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    for width in widths:
      batch = sharding.shard_batch(local_batch(run, run.data.train, no_examples, width), run.mesh)
      jobs[width] = pool.submit(step.lower(state, batch).compile, compiler_options=options)
    bar = bars.bar(jobs.items(), desc='compiling', unit='width', leave=False)
    run.programs.update({width: job.result() for width, job in bar})
  if jobs:
    telemetry.bar.set_postfix_str('')
    telemetry.log(f'compiled the step for {plural(len(jobs), "width")} in {time.monotonic() - start:.1f} s')
  return run.programs


def local_batch(run, encoded, examples, width):
  """This host's rows of a batch of the given examples."""
  size = run.config.train.batch_size
  return batches.make_batch(encoded, examples, width, size, sharding.local_rows(size, run.mesh))


def train_batch(run, step):
  """This host's rows of batch `step`."""
  return local_batch(run, run.data.train, *run.schedule(step))


def evaluation_due(run, step):
  """Whether to evaluate after a step: after each epoch, each eval.every_steps, and after the last step."""
  epochs, every = run.schedule.per_epoch, run.config.eval.every_steps
  return step == run.steps or in_period(step, epochs) or in_period(step, every)


def checkpoint_due(run, step):
  """Whether a checkpoint is due after a step, whatever the time; one is after each evaluation."""
  fields = run.config.checkpoint
  return (evaluation_due(run, step) or in_period(step, fields.every_steps)
          or in_period(step, fields.keep_period))


def evaluate_and_checkpoint(run, state, step, telemetry, saves, timed=False):
  """Evaluate and save a checkpoint if due after `step` (or `timed`) and not done yet."""
  run.watchdog.progress(slow=True)
  if evaluation_due(run, step) and _metric(telemetry, step) is None:
    outputs = predict_splits(run, state, run.data.validation)
    if outputs is None:
      return
    scores = results.compute_scores(run.data, outputs, run.data.validation)
    score = results.main_score(run.data, scores)
    telemetry.write(step, {'eval/score': score, **{f'eval/{name}': value for name, value in scores.items()}})
    telemetry.log(f'step {step}  {_format_metrics(scores)}')
  if timed or checkpoint_due(run, step):
    saves.wait()
    saves.save(state, step, _metric(telemetry, step))


def _format_metrics(metrics):
  """The metrics as one line of text."""
  return '  '.join(f'{name} {results.format_metric(name, value, 2)}' for name, value in metrics.items())


def _metric(telemetry, step):
  """The metric that `Checkpoints` minimizes; None if there was no evaluation."""
  score = processes.on_process_0(lambda: telemetry.value(step, 'eval/score'))
  return None if score is None else -score


def score_history(run, telemetry):
  """[[score, step], ...] of all evaluations so far, the same on all hosts.

  Evaluations that a damaged metrics.jsonl has lost are read from the remaining checkpoints.
  """
  def read():
    logged = {record['step']: record['eval/score'] for record in telemetry.records if 'eval/score' in record}
    folder = run.folder / 'checkpoints'
    manifests = map(checkpoints.read_manifest, (folder / str(step) for step in checkpoints.steps(folder)))
    saved = {manifest['step']: -manifest['metric'] for manifest in manifests
             if manifest and manifest['metric'] is not None}
    return sorted(([score, step] for step, score in {**saved, **logged}.items()), key=lambda pair: pair[1])
  return processes.on_process_0(read)


def best_saved_step(run, telemetry):
  """The step with the best score, the first of equal ones, among those whose checkpoint was saved.

  A save to a bucket may have failed: then a line says which step is used instead.
  """
  history = sorted(score_history(run, telemetry), key=lambda pair: (-pair[0], pair[1]))
  def choose():
    folder = run.folder / 'checkpoints'
    saved = {*checkpoints.steps(folder)}
    return next((step for _, step in history
                 if step in saved and checkpoints.read_manifest(folder / str(step))), None)
  step = processes.on_process_0(choose)
  if step is None:
    raise InputError(f'{run.folder / "checkpoints"} has no checkpoint of a step that was evaluated: restore '
                     'one from a copy, or start in another workdir')
  if step != history[0][1]:
    telemetry.log(f'the checkpoint of the best step, {history[0][1]}, was not saved or is gone: step {step} '
                  'is the best of the others')
  return step


def patience_exhausted(run, telemetry):
  """Whether the last `finetune.patience` evaluations have brought no improvement."""
  patience = run.config.finetune.patience
  scores = [score for score, _ in score_history(run, telemetry)] if patience else []
  return len(scores) > patience > 0 and max(scores[-patience:]) <= max(scores[:-patience])


def predict_splits(run, state, splits):
  """The head's outputs for all examples of several batches.Encoded.

  Returns:
    {name: float[n, c]}, or None if a signal has stopped the run.
  """
  predict = functools.partial(predict_step, config=run.config, graphdef=run.graphdef)
  step, outputs = run.programs.setdefault('predict', jax.jit(predict)), {}
  for name, encoded in splits.items():
    values, rows = [], []
    # The widths do not depend on test sets: otherwise requesting predictions would change the training.
    widths = sorted({*run.data.widths, run.config.data.seq_len})
    pending = batches.evaluation_batches(encoded.max_lengths, widths, run.config.train.batch_size)
    for examples, width in bars.bar(pending, desc=f'evaluating {name}'.strip(), unit='batch', leave=False):
      if run.stop.requested():
        return None
      batch = sharding.shard_batch(local_batch(run, encoded, examples, width), run.mesh)
      values.append(step(state, batch)[:len(examples)])
      rows.append(examples)
      jax.block_until_ready(values[-2:-1])  # bounds pending work, so that the watchdog sees progress
      run.watchdog.progress(slow=len(values) == 1)
    outputs[name] = np.concatenate(jax.device_get(values))[np.argsort(np.concatenate(rows))]
  return outputs


def finish_run(run, state, shapes, telemetry):
  """Evaluate and record the best checkpoint of a run, write predictions, and export a language model.

  Returns:
    The content of result.json; None if a signal has stopped the run.
  """
  config, data = run.config, run.data
  step = best_saved_step(run, telemetry)
  logged = processes.on_process_0(lambda: next((record for record in reversed(telemetry.records)
                                                if record['step'] == step and 'eval/score' in record), None))
  exporting, splits = _can_export(run, telemetry), _final_splits(run, logged)
  if (splits or exporting) and step != int(state.step):
    path = run.folder / 'checkpoints' / str(step)
    state = checkpoints.load(path, checkpoints.read_manifest(path), shapes)
  outputs = predict_splits(run, state, splits)
  if outputs is None:
    return None
  outputs_of = lambda split, names: {name: outputs[f'{split} {name}'] for name in names}
  metrics = (results.metrics_of_record(data, logged) if logged else
             results.compute_scores(data, outputs_of('validation', data.validation), data.validation))
  result = {'version': results.VERSION, 'seed': config.train.seed, 'step': step, 'steps': run.steps,
            'cut': data.train.n_truncated, 'empty': data.train.n_empty,
            'metrics': metrics | results.test_scores(data, outputs_of('test', data.test))}
  if 'train' in splits:
    result['train_metrics'] = results.compute_scores(data, {'': outputs['train']}, {'': splits['train']})
  if config.finetune.predict:
    processes.on_process_0(lambda: [str(results.write_predictions(run.folder, data, file, values))
                                    for file, values in outputs_of('test', data.test).items()])
  if exporting:
    save_pretrained(weights.export_language_model(state, config), run.tokenizer, run.folder / 'export')
    telemetry.log(f'export        {run.folder / "export"}')
  processes.on_process_0(lambda: access.write(run.folder / results.RESULT, records.text(result)))
  telemetry.log(f'best at step {step}: {_format_metrics(result["metrics"])}')
  return result


def _can_export(run, telemetry):
  """Whether the run exports a language model; logs why not if the export is not possible."""
  is_transformer = run.config.model.architecture == 'transformer'
  if run.data.task.kind != LANGUAGE_MODEL or not is_transformer or processes.is_multiprocess():
    return False
  if reason := export_unsupported_reason(run.config):
    telemetry.log(f'not exported: {reason}')
  return not reason


def _final_splits(run, logged):
  """{name: batches.Encoded} to predict with the best checkpoint, whose evaluation is the record `logged`."""
  data, n_train = run.data, run.config.finetune.train_examples
  splits = {}
  if not logged:  # a damaged metrics.jsonl has lost the evaluation
    splits |= {f'validation {name}': encoded for name, encoded in data.validation.items()}
  splits |= {f'test {file}': encoded for file, encoded in data.test.items()}
  if n_train:
    splits['train'] = batches.select(data.train, slice(n_train))
  return splits
