"""What fine-tuning gives: scores, results.json, a table beside the paper's figures, predictions.

Files have fractions (accuracy 0.913), tables per cent (91.3); a perplexity is a perplexity in both. Version
0.1.0 and earlier wrote per cent into files; `as_fractions` and `read` take both.
"""

import math
import statistics
from pathlib import Path

import numpy as np

from gptjax.errors import InputError
from gptjax.evaluate import percent
from gptjax.files import atomic, json_files, records
from gptjax.finetune import batches
from gptjax.finetune import data as datas
from gptjax.finetune.tasks.metrics import METRICS
from gptjax.finetune.tasks.transforms import TEXT
from gptjax.text import markdown

VERSION = 2  # of results.json and result.json: fractions; files without a version have per cent
METRICS_LAYOUT = {str: json_files.NUMBER}
RESULT_LAYOUT = {'seed': int, 'step': int, 'steps': int, 'cut': object, 'metrics': METRICS_LAYOUT,
                 '?version': int, '?train_metrics': METRICS_LAYOUT}
TEST, PERPLEXITY = 'test/', 'perplexity'  # in names of metrics
RESULT, RESULTS, TABLE, PREDICTIONS = 'result.json', 'results.json', 'results.md', 'predictions'


def scores(data, outputs, encoded):
  """{metric, or metric/name: value} of sources; of several, metric/all is of them together.

  Args:
    data: datas.Data.
    outputs: {name: float[n, c]} of the head.
    encoded: {name: batches.Encoded}, all labelled.
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


def test_scores(data, outputs):
  """{test/metric, or test/metric/name: value} of the test sets that have labels; {}: none has.

  Args:
    data: datas.Data.
    outputs: {name of a predictions file: float[n, c]} of the head.
  """
  names = data.task.test_names()
  kept = {names[file]: outputs[file][there] for file, there in data.scored.items()}
  encoded = {names[file]: batches.chosen(data.test[file], there) for file, there in data.scored.items()}
  found = scores(data, kept, encoded) if kept else {}
  return {f'{TEST}{name}': value for name, value in found.items()}


def main_score(data, found):
  """The score by which the best checkpoint is chosen, the greater the better.

  It is 100 times the first metric, or minus the perplexity, in metrics.jsonl and manifests of all versions.
  """
  metric = main_metric(data.task)
  return -found[metric] if metric == PERPLEXITY else percent.to_display(metric, found[metric])


def main_metric(task):
  """The name of the validation metric that a task is judged by."""
  name = 'all' if len(task.validation) > 1 else next(iter(task.validation))
  return '/'.join(filter(None, (task.metrics[0], name)))


def as_fractions(metrics):
  """Metrics that version 0.1.0 or earlier wrote, as this one writes them."""
  return {name: value / percent.display_scale(name) for name, value in metrics.items()}


def evaluated(data, record):
  """{metric: value} of a line of metrics.jsonl, whatever version wrote it."""
  score, found = record['eval/score'], {name.removeprefix('eval/'): value for name, value in record.items()
                                        if name.startswith('eval/') and name != 'eval/score'}
  main = found[main_metric(data.task)]
  in_percent = main == score if main else any(abs(value) > 1 for value in found.values())
  return as_fractions(found) if in_percent else found


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
    paper: {task: {metric: figure of the paper, per cent}}.

  Returns:
    {'version', 'tasks': {task: {metric: mean over seeds}}, 'spread': {task: {metric: of `spread`}},
    'paper': {task: {metric: figure}}, 'runs': {task: [...]}}; all metrics as fractions, but perplexity.
    Metrics of labelled test sets are called test/METRIC, others are of validation sets.
  """
  over_seeds = lambda found, metric: spread([run['metrics'][metric] for run in found])
  spreads = {task: {metric: over_seeds(found, metric) for metric in found[0]['metrics']}
             for task, found in runs.items()}
  means = {task: {metric: values['mean'] for metric, values in found.items()}
           for task, found in spreads.items()}
  paper = {task: {metric: round(figure / 100, 6) for metric, figure in figures.items()}
           for task, figures in paper.items()}
  return {'version': VERSION, 'tasks': means, 'spread': spreads, 'paper': paper, 'runs': runs}


def read(path):
  """What `collect` gave, of a results.json of any version.

  Raises:
    InputError: it is damaged, or of a later version.
  """
  found = records.read(path)
  if require_version(path, found) == VERSION:
    return found
  runs = {task: [of_this_version(run) for run in several] for task, several in found['runs'].items()}
  return collect(runs, found['paper'])


def of_this_version(run):
  """A result.json of any version, as this one writes it."""
  if run.get('version') == VERSION:
    return run
  scaled = {name: as_fractions(run[name]) for name in ('metrics', 'train_metrics') if name in run}
  return {**run, **scaled, 'version': VERSION}


def require_version(path, found):
  """The version of a record; InputError if it is a later one than this one's."""
  version = found.get('version', 1)
  if version not in (1, VERSION):
    raise InputError(f'{path} is of version {version}, and this gptjax reads versions up to {VERSION}: use a '
                     'later gptjax')
  return version


def printed(metric, value, digits=1):
  """A value as it is printed: per cent, but a perplexity as it is."""
  return f'{percent.to_display(metric, value):.{digits}f}'


def table(found, notes=None):
  """A Markdown table of what `collect` gives, per cent, beside the paper's figures.

  Args:
    found: of `collect`.
    notes: {task: what to know when comparing with the paper}.
  """
  head = ('task', 'metric', 'seeds', 'validation, mean', 'median', 'min to max', 'std', 'test, mean',
          'median', 'paper (test)')
  rows = []
  for task, metrics in found['spread'].items():
    test = {name.removeprefix(TEST): s for name, s in metrics.items() if name.startswith(TEST)}
    validation = {name: s for name, s in metrics.items() if not name.startswith(TEST)}
    for metric in dict.fromkeys((*validation, *test)):  # a test set may have no validation set of its name
      rows.append([task, metric, len(found['runs'][task]),
                   *_cells(metric, validation.get(metric), ('mean', 'median', 'range', 'std')),
                   *_cells(metric, test.get(metric), ('mean', 'median')),
                   _figure(metric, found['paper'][task].get(metric), (notes or {}).get(task))])
  remarks = [f'\n{markdown.line(f"* {task}: {note}.")}' for task, note in (notes or {}).items() if note]
  return '\n'.join([markdown.table(head, rows), *remarks])


def _cells(metric, values, which):
  """Cells of a table for what `spread` gives; '-' where there is nothing."""
  if not values:
    return ['-'] * len(which)
  shown = {name: printed(metric, value) for name, value in values.items()}
  return [f'{shown["min"]} to {shown["max"]}' if name == 'range' else shown[name] for name in which]


def _figure(metric, figure, note):
  return ('-' if figure is None else printed(metric, figure)) + '*' * bool(note)


def write(workdir, found, notes=None):
  """Writes results.json and results.md."""
  atomic.write(Path(workdir) / RESULTS, records.text(found))
  atomic.write(Path(workdir) / TABLE, table(found, notes) + '\n')
