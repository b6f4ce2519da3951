"""What fine-tuning gives: scores, results.json, a table beside the paper's figures, predictions."""

import math
import statistics
from pathlib import Path

import numpy as np

from gptjax import atomic, records
from gptjax.finetune import data as datas
from gptjax.finetune.metrics import METRICS
from gptjax.finetune.transforms import TEXT

FIELDS = 'seed', 'step', 'steps', 'cut', 'metrics'  # of result.json
RESULT, RESULTS, TABLE, PREDICTIONS = 'result.json', 'results.json', 'results.md', 'predictions'


def scores(data, outputs, encoded):
  """{metric, or metric/name: value} of validation sources; of several, metric/all is of them together.

  Args:
    data: datas.Data.
    outputs: {name: float[n, c]} of the head.
    encoded: {name: batches.Encoded}.
  """
  if data.task.kind == TEXT:
    return {'perplexity': math.exp(np.divide(*outputs[''].sum(0, dtype=np.float64)))}
  predicted = {name: decided(data, values) for name, values in outputs.items()}
  true = {name: labels(data, encoded[name]) for name in outputs}
  if len(outputs) > 1:
    for both in (predicted, true):
      both['all'] = np.concatenate(list(both.values()))
  return {'/'.join(filter(None, (metric, name))): METRICS[metric](predicted[name], true[name])
          for metric in data.task.metrics for name in predicted}


def main_score(data, found):
  """The score by which the best checkpoint is chosen, the greater the better."""
  metric = data.task.metrics[0]
  if metric == 'perplexity':
    return -found[metric]
  return found.get(metric, found.get(f'{metric}/all'))


def decided(data, outputs):
  """The class or the number that the head decides on: [n]."""
  return datas.unscaled(data.task, outputs[:, 0]) if data.numeric else outputs.argmax(1)


def labels(data, encoded):
  """The right answers, as `decided` gives them: [n]."""
  return datas.unscaled(data.task, encoded.labels) if data.numeric else encoded.labels.astype(np.int64)


def write_predictions(folder, data, file, outputs):
  """Writes FOLDER/predictions/FILE.tsv: index and prediction, in the order of the index, as GLUE has it."""
  decisions, task, encoded = decided(data, outputs), data.task, data.test[file]
  if data.numeric:
    low, high = task.scale
    shown = [f'{value:.3f}' for value in np.clip(decisions, low, high)]
  else:
    shown = [str(value) if task.glue == 'number' else task.classes[value] for value in decisions]
  lines = [f'{encoded.index[i]}\t{shown[i]}' for i in np.argsort(encoded.index, kind='stable')]
  path = Path(folder) / PREDICTIONS / f'{file}.tsv'
  path.parent.mkdir(exist_ok=True)
  atomic.write(path, '\n'.join(['index\tprediction', *lines]) + '\n')
  return path


def spread(values):
  """{'mean', 'median', 'min', 'max', 'std'} of a metric over seeds; std of the sample, 0 of one."""
  return {'mean': statistics.fmean(values), 'median': statistics.median(values), 'min': min(values),
          'max': max(values), 'std': statistics.stdev(values) if len(values) > 1 else 0.0}


def collect(runs, paper):
  """The content of results.json.

  Args:
    runs: {task: [result of a seed, ...]}.
    paper: {task: {metric: figure}}.

  Returns:
    {'tasks': {task: {metric: mean over seeds}}, 'spread': {task: {metric: of `spread`}},
    'paper': {task: {metric: figure}}, 'runs': {task: [...]}}; all metrics on the paper's scale, 0 to 100.
  """
  over_seeds = lambda found, metric: spread([run['metrics'][metric] for run in found])
  spreads = {task: {metric: over_seeds(found, metric) for metric in found[0]['metrics']}
             for task, found in runs.items()}
  means = {task: {metric: values['mean'] for metric, values in found.items()}
           for task, found in spreads.items()}
  return {'tasks': means, 'spread': spreads, 'paper': paper, 'runs': runs}


def table(found):
  """A Markdown table of what `collect` gives, beside the paper's figures."""
  lines = ['| task | metric | seeds | mean | median | min to max | std | paper (test set) |',
           '|---|---|---|---|---|---|---|---|']
  for task, metrics in found['spread'].items():
    for metric, s in metrics.items():
      figure = found['paper'][task].get(metric, '-')
      lines.append(f'| {task} | {metric} | {len(found["runs"][task])} | {s["mean"]:.1f} | {s["median"]:.1f} '
                   f'| {s["min"]:.1f} to {s["max"]:.1f} | {s["std"]:.1f} | {figure} |')
  return '\n'.join(lines)


def write(workdir, found):
  """Writes results.json and results.md."""
  atomic.write(Path(workdir) / RESULTS, records.text(found))
  atomic.write(Path(workdir) / TABLE, table(found) + '\n')
