"""The table of results over size: one row for each model, of its training and of its zero-shot tasks."""

from gptjax.evaluate import paper, percent
from gptjax.evaluate import table as task_table
from gptjax.report import plots, runs, tables
from gptjax.report.document import Section, Table


def sections(found):
  """Yield the section with the table, if the runs are of several sizes."""
  models = list(group(found))
  if len({one[0].model['parameters'] for one in models}) > 1:
    yield Section('Over size', [table(models)])


def group(found):
  """Yield the runs of each model: a training and evaluations of its weights have the same metrics."""
  by_metrics = {}
  for run in found:
    by_metrics.setdefault(str(run.records) if run.records else str(run.folder), []).append(run)
  yield from by_metrics.values()


def table(models):
  """Return the table: a row for each list of runs, the losses as in Figure 4, and a column for each task."""
  shown = dict.fromkeys((task, metric) for model in models for run in model
                        for task in run.results.get('tasks', {})
                        if (metric := first_metric(task, run.results['tasks'][task])))
  rows = []
  for model in models:
    train, held_out = (runs.curve(model[-1], name)[1] for name in ('train/loss', 'eval/loss'))
    losses = plots.last_mean(train) if train else None, held_out[-1] if held_out else None
    rows.append([model[-1].name, f'{model[0].model["parameters"]:,}',
                 *(None if loss is None else f'{loss:.3f}' for loss in losses),
                 *(_result(model, task, metric) for task, metric in shown)])
  return Table(['', 'parameters', 'training loss', 'held-out loss',
                *(f'{task} {metric}'.replace('_', ' ') for task, metric in shown)], rows,
               'Results over size. Losses in nats per token: training over the last twentieth of what was '
               f'logged, held-out at the end. {percent.PERCENT_NOTE}.'
               + ' * Not of all examples.' * any(str(cell).endswith('*') for row in rows for cell in row))


def first_metric(task, metrics):
  """Return the metric of a task to show: the first that the paper has, else the first of the result."""
  compared = [result.metric for result in paper.PAPER_RESULTS
              if result.task == task and result.metric in metrics]
  return next(iter([*compared, *metrics]), None)


def _result(model, task, metric):
  run = next((run for run in model if runs.value(run, task, metric) is not None), None)
  if run is None:
    return None
  value = tables.format_number(percent.to_display(metric, runs.value(run, task, metric)))
  return value + '*' * bool(task_table.limit_of(run.results, task))
