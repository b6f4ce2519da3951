"""Figure 2, right: GPT-1's heuristics on every checkpoint of pretraining runs, without fine-tuning."""

import sys

import jax

import gptjax
from gptjax.command import figures, shutdown, streams
from gptjax.config import resolve as configs
from gptjax.errors import InputError
from gptjax.evaluate.run import data_options
from gptjax.evaluate.scoring.evaluated_model import make_evaluated_model
from gptjax.evaluate.tasks import gpt1, heuristics
from gptjax.evaluate.texts.sources import NotRun
from gptjax.finetune import results
from gptjax.parallel import processes, sharding
from gptjax.pretrain.loop import DONE
from gptjax.pretrained.workdir import saved_weights
from gptjax.storage.files import access, paths, records

# {task in gptjax/evaluate/tasks/gpt1.py: its name in the figure}.
HEURISTICS = {'cola': 'acceptability', 'sst2': 'sentiment', 'race': 'question answering', 'dprd': 'winograd'}

LAYOUT = {'study': {str: {str: results.METRICS_LAYOUT}}, '?version': int}  # of results.json


def study(config, workdir, overrides=()):
  """Score every checkpoint and milestone of `init_from` and `finetune.lstm_from`, and plot the scores.

  Both are workdirs of pretraining, of which one may be absent. Scores in WORKDIR/results.json are not
  computed again.

  Returns:
    Exit code: 0. A signal ends the process at once, with 75; the same command then resumes.
  """
  del overrides  # no config is stored
  runs = {name: paths.location(folder) for name, folder in (('Transformer', config.init_from),
                                                  ('LSTM', config.finetune.lstm_from)) if folder}
  if not runs:
    raise InputError('config.init_from and config.finetune.lstm_from are empty: set them to workdirs of '
                     'pretraining, --config.init_from=runs/gpt1 --config.finetune.lstm_from=runs/gpt1_lstm')
  for folder in runs.values():
    if not saved_weights(folder):
      raise InputError(f'{folder} is not a workdir with checkpoints: keep them in pretraining with '
                       '--config.checkpoint.keep_period=1000')
  configs.make_workdir(workdir)
  path, data = paths.location(workdir) / results.RESULTS, read_suites(config)
  earlier = processes.on_process_0(lambda: records.read_or_discard(path, layout=LAYOUT))
  if earlier and results.require_version(path, earlier) < results.VERSION:
    print(f'{path} is of a version with different heuristics: scoring all checkpoints again', file=sys.stderr)
    earlier = None
  scores_of = earlier['study'] if earlier else {}
  shutdown.exit_on_signal('stopped; the scores so far are saved: run the same command again to resume')
  with jax.set_mesh(sharding.make_mesh(config.mesh)):
    for name, folder in runs.items():
      of_run = scores_of.setdefault(name, {})
      for step, saved in saved_weights(folder).items():
        if str(step) not in of_run:
          of_run[str(step)] = evaluate_checkpoint(saved, data, config)
          if jax.process_index() == 0:
            access.write(path, records.text({'version': results.VERSION, 'study': scores_of}))
            texts = '  '.join(f'{task} {100 * value:.2f}' for task, value in of_run[str(step)].items())
            print(f'{name}, step {step}: {texts}', file=sys.stderr)
  if jax.process_index() == 0:
    print(f'results       {path}', file=sys.stderr)
    with streams.optional('the plot'):
      print(f'plot          {plot(workdir, scores_of)}', file=sys.stderr)
  return DONE


def read_suites(config):
  """{heuristic: (evaluated_model.Task, its examples)}; a missing data set is reported and skipped.

  Raises:
    InputError: a data set is damaged, or all are missing.
  """
  data, suites = data_options(config)._replace(limit=config.finetune.limit), {}
  for task in gpt1.TASKS:
    name = HEURISTICS[task.name]
    note = lambda line, name=name: print(f'{name}: note: {line}', file=sys.stderr)
    try:
      suites[name] = task, task.read(data._replace(note=note))
    except NotRun as reason:
      print(f'{name} is skipped: {reason}', file=sys.stderr)
  if not suites:
    raise InputError('all four data sets are missing: see the lines above, and set config.data.tfds_dir')
  return suites


def evaluate_checkpoint(folder, data, config):
  """{heuristic: accuracy or Matthews correlation, as a fraction} of one checkpoint."""
  model, tokenizer = gptjax.load(folder)
  batch_size = config.eval.batch_size or config.train.batch_size
  tested_model = make_evaluated_model(model, tokenizer, batch_size, show_progress=True)
  scores = {}
  for name, (task, examples) in data.items():
    try:
      metrics = task.evaluate(tested_model, examples).metrics
    except NotRun as reason:
      print(f'{name} is skipped for {folder}: {reason}', file=sys.stderr)
      continue
    scores[name] = metrics['matthews' if name == 'acceptability' else 'accuracy']
  return scores


def plot(workdir, scores_of):
  """Plot relative performance against updates: the Transformer solid, the LSTM dashed, as in the figure."""
  figure, axes = figures.figure(1, 1, (6, 4))
  for name, style in (('Transformer', '-'), ('LSTM', '--')):
    steps = sorted(map(int, scores_of.get(name, {})))
    for i, task in enumerate(heuristics.SCALES):
      scores = {step: scores_of[name][str(step)] for step in steps}
      points = [(step, heuristics.relative_performance(task, 100 * scores[step][task])) for step in steps
                if task in scores[step]]
      if points:
        axes.plot(*zip(*points), style, color=f'C{i}', marker='.', label=figures.literal(f'{task}, {name}'))
  axes.set(xscale='log', xlabel='pretraining updates',
           ylabel='relative performance (0: chance, 1: best in 2018)')
  axes.axhline(0, color='gray', linewidth=0.5)
  axes.legend(fontsize=7, handlelength=4)
  path = paths.location(workdir) / 'zero_shot.png'
  figures.save(figure, path)
  return path
