"""CORE in a report: a table of its tasks, and the curve over time, FLOPs and tokens."""

import numpy as np

from gptjax.command import figures
from gptjax.evaluate.core import summary
from gptjax.evaluate.core.tasks import TABLE
from gptjax.evaluate.table import limit_of
from gptjax.model.size import flops_per_token
from gptjax.report import plots, runs
from gptjax.report.document import Figure, Section, Table
from gptjax.text.words import plural

AXES = (('hours', 'hours of training'), ('flops', 'FLOPs'), ('tokens', 'tokens'))


def section(all_runs):
  """Yield the Section of CORE, if a run has a score of it or of one of its tasks."""
  blocks = [*_table([run for run in all_runs if run.results]), *_curves(all_runs)]
  if blocks:
    yield Section('CORE', blocks)


def _table(evaluated):
  """The table of accuracies and centred accuracies of all tasks."""
  evaluated = [run for run in evaluated if any(task.name in run.results['tasks'] for task in TABLE)]
  if not evaluated:
    return
  metrics = ('accuracy', 100, 2), ('centered', 1, 4)
  rows = [[task.label, task.type.replace('_', ' '), str(task.n_shots), f'{task.baseline:g}',
           *(_cell(run, task.name, *metric) or 'not run' for run in evaluated for metric in metrics)]
          for task in TABLE]
  for name, title in ((summary.CORE, 'CORE'),
                      (summary.PARTIAL, 'mean of the tasks that were run (not CORE)')):
    values = [_cell(run, summary.NAME, name, 1, 6) for run in evaluated]
    if any(values):
      rows.append([title, '', '', '', *(cell for value in values for cell in ('', value))])
  heads = [cell for run in evaluated for cell in (f'{run.name}, %', f'{run.name}, centred')]
  yield Table(['task', 'type', 'examples in a prompt', 'baseline, %', *heads], rows,
              'CORE (DCLM, arXiv 2406.11794): accuracies, and (accuracy - baseline) / (1 - baseline), of '
              f'which CORE is the mean. GPT-2 XL has {summary.GPT2_XL}, of all examples.'
              + ' * Only of the first examples.' * any(cell.endswith('*') for row in rows for cell in row))


def _cell(run, task, metric, scale, digits):
  """A number, with a star if it is of the first examples only; '' if there is none."""
  value = runs.value(run, task, metric)
  return '' if value is None else f'{scale * value:.{digits}f}' + '*' * (limit_of(run.results, task) > 0)


def points(run):
  """The scores of CORE in the course of a run.

  Returns:
    {'core' or 'mean_of_tasks_run': {'hours', 'flops', 'tokens', 'value': [float of each evaluation]}}.
    Hours are those of productive steps, as `time/steps` of the metrics; FLOPs those of the model with
    attention over the full square (`train/mfu`).
  """
  found = {}
  for name in (summary.CORE, summary.PARTIAL):
    steps, values = runs.curve(run, f'eval/{summary.NAME}/{name}')
    if not steps:
      continue
    train, data, model = (run.trained.get(part, {}) for part in ('train', 'data', 'model'))
    tokens = np.array(steps, float) * train['batch_size'] * data['seq_len']
    flops = tokens * flops_per_token(runs.model_config(model), data['seq_len'])['palm']
    seconds = runs.curve(run, 'time/steps')
    hours = np.interp(steps, [0, *seconds[0]], [0, *seconds[1]]) / 3600 if seconds[0] else np.full(
      len(steps), np.nan)
    found[name] = {'hours': hours, 'flops': flops, 'tokens': tokens, 'value': values}
  return found


def _curves(all_runs):
  """The figure of CORE over time, FLOPs and tokens."""
  found = [(run, name, values) for run in runs.trained(all_runs) for name, values in points(run).items()]
  if not found:
    return
  def draw(figure, axes):
    for panel, (axis, title) in zip(axes.flat, AXES, strict=True):
      for i, (run, name, values) in enumerate(found):
        label = run.name if name == summary.CORE else f'{run.name}: mean of the tasks that were run, not CORE'
        panel.plot(values[axis], values['value'], color=plots.SERIES[i % len(plots.SERIES)],
                   marker=plots.MARKERS[i % len(plots.MARKERS)], label=figures.literal(label),
                   linestyle='-' if name == summary.CORE else '--')
      panel.axhline(summary.GPT2_XL, label=f'CORE of GPT-2 XL, {summary.GPT2_XL}', **plots.DOTTED)
      panel.set(xlabel=title)
      panel.set_xlim(0, None)
    axes.flat[0].set_ylabel('mean centred accuracy')
    figure.legend(*axes.flat[0].get_legend_handles_labels(), loc='outside upper left', ncols=2)
  partial = ('; dashed: without some of its tasks, which cannot be compared with that line'
             if any(name == summary.PARTIAL for _, name, _ in found) else '')
  yield Figure('core', plots.drawn(1, 3, (plots.WIDTH, 3.2), draw), 'CORE in the course of training, over '
               'the hours of productive steps, the FLOPs of the model and the tokens. Dotted: GPT-2 XL'
               f'{partial}.{_limits([run for run, *_ in found])}')


def _limits(shown):
  """' NAME: the first 500 examples of each task.' of the runs that do not use all; ''."""
  limits = {run.name: run.trained.get('eval', {}).get('limit') for run in shown}
  return ''.join(f' {name}: the first {plural(limit, "example")} of each task.'
                 for name, limit in limits.items() if limit)


def is_of_core(task):
  """Whether a task has its results in this section."""
  return task == summary.NAME or task in {one.name for one in TABLE}
