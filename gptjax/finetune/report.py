"""What a run of fine-tuning says: when it begins, and at its steps."""

import jax

from gptjax.errors import InputError
from gptjax.report.telemetry import duration
from gptjax.text.words import plural


def log_start(run, telemetry, state):
  """Says what is about to run: weights, devices, examples, widths, length."""
  config, data, n = run.config, run.data, lambda tree: sum(x.size for x in jax.tree.leaves(tree))
  devices = jax.devices()
  telemetry.log(f'task {data.name}, seed {config.train.seed}: {n(state.params):,} weights trained'
                + (f', {n(state.frozen):,} frozen' if state.frozen else ''))
  telemetry.log(f'{len(devices)} x {devices[0].device_kind}, mesh {dict(run.mesh.shape)}, '
                f'{config.model.compute_dtype}')
  validation = {f'validation {name}'.strip(): one for name, one in data.validation.items()}
  splits = {'training': data.train, **validation, **{f'test {name}': one for name, one in data.test.items()}}
  scored = {f'test {name}': there for name, there in data.label_masks.items()}
  for name, one in splits.items():
    cut = (f', {one.n_truncated:,} of them cut to {config.data.seq_len} tokens' if one.n_truncated
           else ', none cut')
    skipped = f', {one.n_unlabelled:,} more without a label left out' if one.n_unlabelled else ''
    empty = f', {one.n_empty:,} with an empty text' if one.n_empty else ''
    known = f', {scored[name].sum():,} of them with a label' if name in scored else ''
    tell.say(f'{name}: {plural(len(one.index), "example")}{cut}{empty}{skipped}{known}')
  longest = data.train.max_lengths
  of_epoch = [(len(examples), width) for examples, width in map(run.schedule, range(run.schedule.per_epoch))]
  padded = sum(n * width for n, width in of_epoch)
  kind = 'of like lengths' if run.schedule.by_length else 'random'
  widths = ', '.join(map(str, sorted({width for _, width in of_epoch})))
  tell.say(f'batches {kind}, widths {widths}: {padded / len(longest):.1f} tokens a sequence, of which '
           f'{longest.mean():.1f} are not padding, in place of {config.data.seq_len}')
  tell.say(f'{plural(run.steps, "step")} of {plural(config.train.batch_size, "example")}, '
           f'{run.schedule.per_epoch:,} an epoch')
  if int(state.step):
    telemetry.log(f'going on after step {int(state.step)}')


def log_step(run, tell, watch, number, metrics):
  """Checks the metrics of a step that has been dispatched earlier, and logs them where due."""
  config = run.config
  metrics = {name: float(value) for name, value in jax.device_get(metrics).items()}
  watch.steps += 1
  if metrics['skipped'] >= config.train.max_skipped:
    raise InputError(f'{int(metrics["skipped"])} steps in a row up to step {number} of task {run.data.name} '
                     'had a loss or gradient that is not finite: lower config.optimizer.learning_rate')
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
