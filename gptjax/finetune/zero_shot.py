"""Figure 2, right: GPT-1's heuristics on every checkpoint of pretraining runs, with no fine-tuning at all."""

import sys
from pathlib import Path

import jax

import gptjax
from gptjax.command import figures, shutdown, streams
from gptjax.config import resolve as configs
from gptjax.errors import InputError
from gptjax.evaluate.run import data_options
from gptjax.evaluate.scoring.evaluated_model import make_evaluated_model
from gptjax.evaluate.tasks import gpt1, heuristics
from gptjax.evaluate.texts.sources import NotRun
from gptjax.files import atomic, records
from gptjax.finetune import results
from gptjax.parallel import processes, sharding
from gptjax.pretrain.loop import DONE
from gptjax.pretrained.workdir import CHECKPOINTS
from gptjax.storage import checkpoint

# The names in the figure of the tasks in gptjax/evaluate/tasks/gpt1.py.
HEURISTICS = {'cola': 'acceptability', 'sst2': 'sentiment', 'race': 'question answering', 'dprd': 'winograd'}

LAYOUT = {'study': {str: {str: results.METRICS_LAYOUT}}, '?version': int}  # of results.json


def study(config, workdir, overrides=()):
  """Scores every checkpoint of `init_from` and of `finetune.lstm_from`, both workdirs, and plots them.

  What is scored once is on record in WORKDIR/results.json, and not done again.

  Returns:
    Exit code: 0. A signal ends the process at once, with 75: the same command then continues.
  """
  del overrides  # no config is stored
  runs = {name: Path(folder) for name, folder in (('Transformer', config.init_from),
                                                  ('LSTM', config.finetune.lstm_from)) if folder}
  if not runs:
    raise InputError('config.init_from and config.finetune.lstm_from are empty: name workdirs of '
                     'pretraining, --config.init_from=runs/gpt1 --config.finetune.lstm_from=runs/gpt1_lstm')
  for folder in runs.values():
    if not checkpoint.steps(folder / CHECKPOINTS):
      raise InputError(f'{folder} is no workdir with checkpoints (keep them: --config.checkpoint.keep=1000)')
  configs.make_workdir(workdir)
  path, data = Path(workdir) / results.RESULTS, suites(config)
  before = processes.on_process_0(lambda: records.read_or_discard(path, layout=LAYOUT))
  if before and results.require_version(path, before) < results.VERSION:
    print(f'{path} is of a version with other heuristics: all checkpoints are scored again', file=sys.stderr)
    before = None
  found = before['study'] if before else {}
  shutdown.exit_on_signal('stopped, and the checkpoints scored so far are kept: the same command continues '
                          'there')
  with jax.set_mesh(sharding.make_mesh(config.mesh)):
    for name, folder in runs.items():
      of_run = found.setdefault(name, {})
      for step in checkpoint.steps(folder / CHECKPOINTS):
        if str(step) not in of_run:
          of_run[str(step)] = measured(folder / CHECKPOINTS / str(step), data, config)
          if jax.process_index() == 0:
            atomic.write(path, records.text({'version': results.VERSION, 'study': found}))
            shown = '  '.join(f'{task} {100 * value:.2f}' for task, value in of_run[str(step)].items())
            print(f'{name}, step {step}: {shown}', file=sys.stderr)
  if jax.process_index() == 0:
    print(f'results       {path}', file=sys.stderr)
    with streams.optional('the plot'):
      print(f'plot          {plot(workdir, found)}', file=sys.stderr)
  return DONE


def suites(config):
  """{heuristic: (evaluated_model.Task, its examples)}; a set that is not there is left out, and reported.

  Raises:
    InputError: a set is damaged, or there is none.
  """
  data, found = data_options(config)._replace(limit=config.finetune.limit), {}
  for task in gpt1.TASKS:
    name = HEURISTICS[task.name]
    note = lambda line, name=name: print(f'{name}: note: {line}', file=sys.stderr)
    try:
      found[name] = task, task.read(data._replace(note=note))
    except NotRun as why:
      print(f'{name} is left out: {why}', file=sys.stderr)
  if not found:
    raise InputError('none of the four sets is there: see the lines above, and config.data.tfds_dir')
  return found


def measured(folder, data, config):
  """{heuristic: accuracy, or Matthews correlation, as a fraction} of one checkpoint."""
  model, tokenizer = gptjax.load(folder)
  tested = make_evaluated_model(model, tokenizer, config.eval.batch_size or config.train.batch_size,
                                show_progress=True)
  found = {}
  for name, (task, examples) in data.items():
    try:
      metrics = task.evaluate(tested, examples).metrics
    except NotRun as why:
      print(f'{name} is left out of {folder}: {why}', file=sys.stderr)
      continue
    found[name] = metrics['matthews' if name == 'acceptability' else 'accuracy']
  return found


def plot(workdir, found):
  """Relative performance against updates: the Transformer solid, the LSTM dashed, as in the figure."""
  figure, axes = figures.figure(1, 1, (6, 4))
  for name, style in (('Transformer', '-'), ('LSTM', '--')):
    steps = sorted(map(int, found.get(name, {})))
    for i, task in enumerate(heuristics.SCALES):
      points = [(step, heuristics.relative_performance(task, 100 * found[name][str(step)][task]))
                for step in steps
                if task in found[name][str(step)]]
      if points:
        axes.plot(*zip(*points), style, color=f'C{i}', marker='.', label=figures.literal(f'{task}, {name}'))
  axes.set(xscale='log', xlabel='pretraining updates', ylabel='relative performance (0 chance, 1 then best)')
  axes.axhline(0, color='gray', linewidth=0.5)
  axes.legend(fontsize=7, handlelength=4)
  path = Path(workdir) / 'zero_shot.png'
  figures.save(figure, path)
  return path
