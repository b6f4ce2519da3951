"""Log lines of a fine-tuning run: at its start, and at its steps."""

import jax

from gptjax.errors import InputError
from gptjax.parallel import processes
from gptjax.report.telemetry import duration
from gptjax.text.words import plural


def log_start(run, telemetry, state):
  """Log the setup of the run: weights, devices, examples, widths, length."""
  config, data, n_weights = run.config, run.data, lambda tree: sum(x.size for x in jax.tree.leaves(tree))
  devices = jax.devices()
  telemetry.log(f'task {data.name}, seed {config.train.seed}: {n_weights(state.params):,} weights trained'
                + (f', {n_weights(state.frozen):,} frozen' if state.frozen else ''))
  telemetry.log(f'{len(devices)} x {devices[0].device_kind}{processes.summary()}, '
                f'mesh {dict(run.mesh.shape)}, {config.model.compute_dtype}')
  validation = {f'validation {name}'.strip(): encoded for name, encoded in data.validation.items()}
  tests = {f'test {name}': encoded for name, encoded in data.test.items()}
  splits = {'training': data.train, **validation, **tests}
  label_masks = {f'test {name}': mask for name, mask in data.label_masks.items()}
  for name, encoded in splits.items():
    truncated = (f', {encoded.n_truncated:,} of them truncated to {config.data.seq_len} tokens'
                 if encoded.n_truncated else ', none truncated')
    skipped = f', {encoded.n_unlabelled:,} more without a label skipped' if encoded.n_unlabelled else ''
    empty = f', {encoded.n_empty:,} with an empty text' if encoded.n_empty else ''
    labelled = f', {label_masks[name].sum():,} of them with a label' if name in label_masks else ''
    telemetry.log(f'{name}: {plural(len(encoded.index), "example")}{truncated}{empty}{skipped}{labelled}')
  longest = data.train.max_lengths
  epoch_batches = [run.schedule(step) for step in range(run.schedule.per_epoch)]
  padded = sum(len(examples) * width for examples, width in epoch_batches)
  kind = 'bucketed by length' if run.schedule.by_length else 'random'
  widths = ', '.join(map(str, sorted({width for _, width in epoch_batches})))
  telemetry.log(f'batches {kind}, widths {widths}: {padded / len(longest):.1f} tokens per sequence padded '
                f'({longest.mean():.1f} without, {config.data.seq_len} if padded to data.seq_len)')
  telemetry.log(f'{plural(run.steps, "step")} of {plural(config.train.batch_size, "example")}, '
                f'{run.schedule.per_epoch:,} per epoch')


def log_step(run, telemetry, watch, number, metrics):
  """Check the metrics of an earlier dispatched step, and log them if due."""
  config = run.config
  metrics = {name: float(value) for name, value in jax.device_get(metrics).items()}
  watch.steps += 1
  if metrics['skipped'] >= config.train.max_skipped:
    raise InputError(f'{int(metrics["skipped"])} consecutive steps up to step {number} of task '
                     f'{run.data.name} had a non-finite loss or gradient: lower '
                     'config.optimizer.learning_rate')
  if number % config.log.every_steps and number != run.steps:
    return
  steps = watch.steps
  seconds, input_wait = watch.report()
  speed = config.train.batch_size / seconds
  telemetry.write(number, {**{f'train/{name}': value for name, value in metrics.items()},
                           'train/examples_per_second': speed, 'train/input_wait_fraction': input_wait,
                           **telemetry.goodput(steps * seconds)})
  telemetry.progress(number, f'loss {metrics["loss"]:.4f}  task {metrics["task_loss"]:.4f}  '
                     f'{speed:,.0f} examples/s  {duration((run.steps - number) * seconds)} left')
