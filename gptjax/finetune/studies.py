"""The paper's studies of fine-tuning, Table 5 and Figure 2: each consists of several runs of the job."""

import copy
import statistics
import sys

import jax

from gptjax.command import figures, streams
from gptjax.config import resolve as configs
from gptjax.errors import InputError
from gptjax.evaluate import percent
from gptjax.evaluate.paper_gpt1 import TABLE_5
from gptjax.finetune import job, results, weights, zero_shot
from gptjax.pretrain.loop import DONE
from gptjax.storage import ownership
from gptjax.storage.files import access, paths, records
from gptjax.text import markdown


def run_job(config, workdir, overrides=()):
  """The job `finetune`: the study of the config, or plain fine-tuning; returns its exit code."""
  studies = {'ablations': ablations, 'transfer': transfer, 'zero_shot': zero_shot.study}
  configs.check_fields(config)
  if not config.finetune.study:
    return job.finetune(config, workdir, overrides)
  with ownership.own_workdir(workdir):
    return studies[config.finetune.study](config, workdir, overrides)


def with_changes(config, changes):
  """A copy of a config with {'section.field': value} set, and with no study."""
  config = copy.deepcopy(config)
  for name, value in {**changes, 'finetune.study': ''}.items():
    section, _, field = name.rpartition('.')
    (config[section] if section else config)[field] = value
  return config


def ablations(config, workdir, overrides=()):
  """Table 5: with and without the auxiliary loss, without pretraining, and the LSTM.

  Each variant has a workdir of its own, WORKDIR/VARIANT.

  Returns:
    Exit code: 0 or 75.
  """
  if not config.init_from:
    raise InputError('config.init_from is missing: set it to a folder of pretrained weights')
  variants = {'aux LM': {}, 'no pretraining': {'finetune.pretrained': False},
              'no aux LM': {'finetune.lm_coef': 0.0}}
  if config.finetune.lstm_from:
    variants['LSTM'] = {'init_from': config.finetune.lstm_from}
  else:
    print('the LSTM is skipped: config.finetune.lstm_from is empty', file=sys.stderr)
  scores_of = {}
  for name, changes in variants.items():
    folder = paths.location(workdir) / name.replace(' ', '-')
    print(f'\n{name}: {folder}', file=sys.stderr)
    code = job.finetune(with_changes(config, changes), folder, overrides)
    if code != DONE:
      return code
    scores_of[name] = results.read(folder / results.RESULTS)['tasks']
  if jax.process_index() == 0:
    write_study(workdir, scores_of, ablation_table(scores_of, job.selected_tasks(config)))
  return DONE


def ablation_table(scores_of, tasks):
  """Table 5 in Markdown, per cent, with our figures and the paper's.

  In both rows, Avg is over the tasks without a `note`: those comparable with the paper's.

  Args:
    scores_of: {variant: {task: {metric: value}}}.
    tasks: {name: published.Task}.
  """
  metric = {name: results.main_metric(task) for name, task in tasks.items()}
  rows = []
  all_in_paper = all(name in TABLE_5['aux LM'] for name in tasks)
  comparable = [name for name, task in tasks.items() if not task.note]
  show = lambda value: '-' if value is None else f'{value:.1f}'
  for variant, metrics_by_task in scores_of.items():
    scores = {name: percent.to_display(metric[name], metrics_by_task[name][metric[name]]) for name in tasks}
    paper = {name: TABLE_5[variant][name] for name in comparable} if all_in_paper else None
    for label, values in ((f'{variant}, validation', scores), (f'{variant}, the paper (test)', paper)):
      if values is not None:
        mean = statistics.fmean(values[name] for name in comparable) if comparable else None
        rows.append([label, show(mean), *(show(values.get(name)) for name in tasks)])
  notes = [f'\n{markdown.line(f"{name}: {task.note}; Avg excludes it.")}' for name, task in tasks.items()
           if task.note]
  return '\n'.join([markdown.table(['', 'Avg', *(f'{name} {metric[name]}' for name in tasks)], rows), *notes])


def figure_metric(name, task):
  """The metric of a task in Figure 2, left: MultiNLI's is of the matched set, others are the main one."""
  return 'accuracy/m' if name == 'mnli' else results.main_metric(task)


def transfer(config, workdir, overrides=()):
  """Figure 2, left: the embeddings and the first 0 .. n blocks are transferred; writes scores and a plot.

  Returns:
    Exit code: 0 or 75.
  """
  if not config.finetune.pretrained or config.finetune.train_examples <= 0:
    raise InputError('the transfer study needs config.finetune.pretrained = True and '
                     'config.finetune.train_examples > 0, as configs/gpt1_transfer.py has them')
  resolved = copy.deepcopy(config)
  weights.open_pretrained(resolved)  # sets resolved.model to the shape of the weights
  scores_of = {}
  for n in range(resolved.model.n_layer + 1):
    folder = paths.location(workdir) / f'transfer-{n}'
    print(f'\nembeddings and {n} of {resolved.model.n_layer} layers: {folder}', file=sys.stderr)
    code = job.finetune(with_changes(config, {'finetune.transfer_layers': n}), folder, overrides)
    if code != DONE:
      return code
    runs, tasks = results.read(folder / results.RESULTS)['runs'], job.selected_tasks(config)
    summary_of = lambda name, part, metric: results.summarize([run[part][metric] for run in runs[name]])
    scores_of[n] = {name: {'validation': summary_of(name, 'metrics', figure_metric(name, task)),
                           'train': summary_of(name, 'train_metrics', task.metrics[0])}
                    for name, task in tasks.items()}
  if jax.process_index() == 0:
    metrics = {name: figure_metric(name, task) for name, task in job.selected_tasks(config).items()}
    write_study(workdir, scores_of, transfer_table(scores_of, metrics))
    with streams.optional('the plot'):
      print(f'plot          {plot_transfer(workdir, scores_of, metrics)}', file=sys.stderr)
  return DONE


def transfer_table(scores_of, metrics):
  """The scores in Markdown, per cent.

  Args:
    scores_of: {number of layers: {task: {split: of `results.summarize`}}}.
    metrics: {task: metric}.
  """
  splits = [(name, split) for name in metrics for split in ('validation', 'train')]
  rows = [[n, *(results.format_metric(metrics[name], scores[name][split]['mean']) for name, split in splits)]
          for n, scores in scores_of.items()]
  return markdown.table(['layers transferred', *(f'{name} {split}' for name, split in splits)], rows)


def plot_transfer(workdir, scores_of, metrics):
  """Plot scores against the number of layers: solid for validation, dashed for training examples."""
  figure, axes = figures.figure(1, 1, (5, 4))
  layers = list(scores_of)
  for i, (name, metric) in enumerate(metrics.items()):
    for split, style in (('validation', '-'), ('train', '--')):
      curve = [scores_of[n][name][split] for n in layers]
      mean, minimum, maximum = ([percent.to_display(metric, summary[key]) for summary in curve]
                                for key in ('mean', 'min', 'max'))
      axes.plot(layers, mean, style, color=f'C{i}', marker='o', label=figures.literal(f'{name}, {split}'))
      axes.fill_between(layers, minimum, maximum, color=f'C{i}', alpha=0.1)
  axes.set(xlabel='layers transferred', xticks=layers, ylabel=', '.join(sorted({*metrics.values()})))
  axes.legend()
  path = paths.location(workdir) / 'transfer.png'
  figures.save(figure, path)
  return path


def write_study(workdir, study, table):
  """Write results.json and results.md of a study, and print the table."""
  workdir = paths.location(workdir)
  access.write(workdir / results.RESULTS, records.text({'version': results.VERSION, 'study': study}))
  access.write(workdir / results.TABLE, table + '\n')
  print(f'\n{table}\n\nresults       {workdir / results.RESULTS}', file=sys.stderr)
