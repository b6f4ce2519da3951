"""The CORE figure: the mean of the centred accuracies, if all tasks were run."""

import math

from gptjax.evaluate.core.tasks import TABLE
from gptjax.evaluate.scoring.evaluated_model import TaskResult
from gptjax.text.words import plural

NAME, TITLE = 'core', 'CORE'
CORE, PARTIAL = 'core', 'mean_of_tasks_run'  # metrics: of all tasks; of some, which is not CORE
GPT2_XL = 0.256525  # CORE of GPT-2's largest released weights, as nanochat's leaderboard states it


def summarize(results):
  """Return the TaskResult of CORE from those of its tasks; None if none was run.

  metrics: `core`, or without some tasks `mean_of_tasks_run` in its place; `tasks_run` of 22; with the
  counterfactual control, `..._counterfactual`, the mean of the controls.

  Args:
    results: {name of a task: metrics}.
  """
  ran = {task.label: results[task.name] for task in TABLE if task.name in results}
  if not ran:
    return None
  name = CORE if len(ran) == len(TABLE) else PARTIAL
  mean = lambda metric: math.fsum(metrics[metric] for metrics in ran.values()) / len(ran)
  metrics = {name: mean('centered'), 'tasks_run': len(ran)}
  control = 'centered_counterfactual'
  controlled = all(control in metrics for metrics in ran.values())
  if controlled:
    metrics[f'{name}_counterfactual'] = mean(control)
  absent = [task.label for task in TABLE if task.label not in ran]
  protocol = (f'Mean of (accuracy - baseline) / (1 - baseline) over the {len(TABLE)} tasks of CORE (DCLM, '
              f'arXiv 2406.11794). GPT-2 XL: {GPT2_XL}.')
  if absent:
    protocol = (f'This is not CORE: {len(ran)} of {len(TABLE)} tasks were run, without {", ".join(absent)}. '
                'The mean of their centred accuracies cannot be compared with a CORE figure. ') + protocol
  head = ['task', 'type', 'examples in a prompt', 'baseline, %', 'accuracy, %', 'centred']
  columns = ['accuracy', 'centered', *['accuracy_counterfactual', control] * controlled]
  head += ['accuracy of the control, %', 'centred'] * controlled
  rows = [[task.label, task.type, task.n_shots, task.baseline, *(
    _cell(ran.get(task.label), column) for column in columns)] for task in TABLE]
  return TaskResult(metrics, protocol, rows=(head, *rows))


def line(metrics, limit):
  """Return the metrics of `summarize` as a line for the console.

  Args:
    metrics: of `summarize`.
    limit: number of examples that were used of each task; 0: all.
  """
  if CORE in metrics:
    text = f'CORE {metrics[CORE]:.6f} (GPT-2 XL: {GPT2_XL})'
  else:
    text = (f'mean of the centred accuracies of {metrics["tasks_run"]} of the {len(TABLE)} tasks of CORE '
            f'{metrics[PARTIAL]:.6f}: not CORE, which needs all of them')
  control = next((value for name, value in metrics.items() if name.endswith('_counterfactual')), None)
  text += '' if control is None else f'; of the counterfactual control {control:.6f}'
  return text + (f'; only the first {plural(limit, "example")} of each task' if limit else '')


def _cell(metrics, column):
  if metrics is None:
    return 'not run'
  return 100 * metrics[column] if column.startswith('accuracy') else metrics[column]
