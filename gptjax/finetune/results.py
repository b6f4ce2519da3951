"""Results of fine-tuning: scores, results.json, a table with the paper's figures, predictions.

Files contain fractions (accuracy 0.913), tables per cent (91.3); perplexity is the same in both. Version
0.1.0 and earlier wrote per cent into files; `as_fractions` and `read` convert them.
"""

import math
import statistics

import numpy as np

from gptjax.errors import InputError
from gptjax.evaluate import percent
from gptjax.finetune import batches
from gptjax.finetune import data as datas
from gptjax.finetune.tasks.metrics import METRICS
from gptjax.finetune.tasks.transforms import LANGUAGE_MODEL
from gptjax.report import finetuning
from gptjax.report import markdown as report_markdown
from gptjax.report.finetuning import TEST
from gptjax.storage.files import access, json_files, paths, records
from gptjax.text import markdown

VERSION = 2  # of results.json and result.json, which have fractions; files without a version have per cent
METRICS_LAYOUT = {str: json_files.NUMBER}
RESULT_LAYOUT = {'seed': int, 'step': int, 'steps': int, 'cut': object, 'metrics': METRICS_LAYOUT,
                 '?version': int, '?train_metrics': METRICS_LAYOUT}
PERPLEXITY = 'perplexity'
RESULT, RESULTS, TABLE, PREDICTIONS = 'result.json', 'results.json', 'results.md', 'predictions'


def compute_scores(data, outputs, encoded):
  """{metric, or metric/name: value} of sources; for several sources, metric/all is over all of them together.

  Args:
    data: datas.TaskData.
    outputs: {name: float[n, c]} of the head.
    encoded: {name: batches.Encoded}, all labelled.
  """
  if data.task.kind == LANGUAGE_MODEL:
    return {'perplexity': math.exp(np.divide(*outputs[''].sum(0, dtype=np.float64)))}
  predicted = {name: predictions(data, values) for name, values in outputs.items()}
  true = {name: true_labels(data, encoded[name]) for name in outputs}
  if len(outputs) > 1:
    for values_of in (predicted, true):
      values_of['all'] = np.concatenate(list(values_of.values()))
  return {'/'.join(filter(None, (metric, name))): METRICS[metric](predicted[name], true[name])
          for metric in data.task.metrics for name in predicted}


def test_scores(data, outputs):
  """{test/metric, or test/metric/name: value} of labelled test sets; {} if none is labelled.

  Args:
    data: datas.TaskData.
    outputs: {name of a predictions file: float[n, c]} of the head.
  """
  names = data.task.test_metric_names()
  labelled_outputs = {names[file]: outputs[file][mask] for file, mask in data.label_masks.items()}
  encoded = {names[file]: batches.select(data.test[file], mask) for file, mask in data.label_masks.items()}
  scores = compute_scores(data, labelled_outputs, encoded) if labelled_outputs else {}
  return {f'{TEST}{name}': value for name, value in scores.items()}


def main_score(data, metrics):
  """The score by which the best checkpoint is chosen; greater is better.

  It is 100 times the first metric, or minus the perplexity, in metrics.jsonl and manifests of all versions.
  """
  metric = main_metric(data.task)
  return -metrics[metric] if metric == PERPLEXITY else percent.to_display(metric, metrics[metric])


def main_metric(task):
  """The name of the validation metric that selects the best checkpoint of a task."""
  name = 'all' if len(task.validation) > 1 else next(iter(task.validation))
  return '/'.join(filter(None, (task.metrics[0], name)))


def as_fractions(metrics):
  """Metrics written by version 0.1.0 or earlier, converted to fractions."""
  return {name: value / percent.display_scale(name) for name, value in metrics.items()}


def metrics_of_record(data, record):
  """{metric: value} of a line of metrics.jsonl, written by any version."""
  score, metrics = record['eval/score'], {name.removeprefix('eval/'): value for name, value in record.items()
                                          if name.startswith('eval/') and name != 'eval/score'}
  main = metrics[main_metric(data.task)]
  in_percent = main == score if main else any(abs(value) > 1 for value in metrics.values())
  return as_fractions(metrics) if in_percent else metrics


def predictions(data, outputs):
  """The predicted class or number of each example: [n]."""
  return datas.predicted_numbers(data, outputs) if data.is_numeric else outputs.argmax(1)


def true_labels(data, encoded):
  """The true labels in the form of `predictions`: [n]."""
  if data.is_numeric:
    return datas.true_numbers(data, encoded.labels)
  return encoded.labels.astype(np.int64)


def write_predictions(folder, data, file, outputs):
  """Write FOLDER/predictions/FILE.tsv: index and prediction, sorted by index, in the format of GLUE."""
  predicted, task, encoded = predictions(data, outputs), data.task, data.test[file]
  if data.is_numeric:
    minimum, maximum = task.scale
    texts = [f'{value:.3f}' for value in np.clip(predicted, minimum, maximum)]
  else:
    texts = [str(value) if task.glue == 'number' else task.classes[value] for value in predicted]
  lines = [f'{encoded.index[i]}\t{texts[i]}' for i in np.argsort(encoded.index, kind='stable')]
  path = paths.location(folder) / PREDICTIONS / f'{file}.tsv'
  access.make_folder(path.parent)
  access.write(path, '\n'.join(['index\tprediction', *lines]) + '\n')
  return path


def summarize(values):
  """{'mean', 'median', 'min', 'max', 'std'} of a metric over seeds; std of the sample, 0 for one seed."""
  return {'mean': statistics.fmean(values), 'median': statistics.median(values), 'min': min(values),
          'max': max(values), 'std': statistics.stdev(values) if len(values) > 1 else 0.0}


def collect(runs, paper):
  """The content of results.json.

  Args:
    runs: {task: [result of a seed, ...]}.
    paper: {task: {metric: the paper's figure, per cent}}.

  Returns:
    {'version', 'tasks': {task: {metric: mean over seeds}}, 'spread': {task: {metric: of `summarize`}},
    'paper': {task: {metric: figure}}, 'runs': {task: [...]}}; all metrics as fractions, except perplexity.
    Metrics of labelled test sets are named test/METRIC, others are of validation sets.
  """
  summary_of = lambda task_runs, metric: summarize([run['metrics'][metric] for run in task_runs])
  summaries = {task: {metric: summary_of(task_runs, metric) for metric in task_runs[0]['metrics']}
               for task, task_runs in runs.items()}
  means = {task: {metric: values['mean'] for metric, values in task_runs.items()}
           for task, task_runs in summaries.items()}
  paper = {task: {metric: round(figure / 100, 6) for metric, figure in figures.items()}
           for task, figures in paper.items()}
  return {'version': VERSION, 'tasks': means, 'spread': summaries, 'paper': paper, 'runs': runs}


def read(path):
  """The content of a results.json of any version, in the form of `collect`.

  Raises:
    InputError: the file is damaged, or of a later version.
  """
  content = records.read(path)
  if require_version(path, content) == VERSION:
    return content
  runs = {task: [upgrade_result(run) for run in seeds] for task, seeds in content['runs'].items()}
  return collect(runs, content['paper'])


def upgrade_result(run):
  """A result.json of any version, converted to this version."""
  if run.get('version') == VERSION:
    return run
  converted = {name: as_fractions(run[name]) for name in ('metrics', 'train_metrics') if name in run}
  return {**run, **converted, 'version': VERSION}


def require_version(path, record):
  """The version of a record; InputError if it is later than this version."""
  version = record.get('version', 1)
  if version not in (1, VERSION):
    raise InputError(f'{path} is of version {version}, but this gptjax reads versions up to {VERSION}: use '
                     'a later gptjax')
  return version


def format_metric(metric, value, digits=1):
  """A metric as text: per cent, but a perplexity unchanged."""
  return f'{percent.to_display(metric, value):.{digits}f}'


def table(collected, notes=None):
  """A Markdown table of the results in `collect`'s form, per cent, with the paper's figures.

  Args:
    collected: of `collect`.
    notes: {task: caveat for the comparison with the paper}.
  """
  footnotes = [f'\n{markdown.line(f"* {task}: {note}.")}' for task, note in (notes or {}).items() if note]
  rows = finetuning.score_rows(collected, notes or {})
  return '\n'.join([markdown.table(finetuning.SCORES_HEAD, rows), *footnotes])


def write(workdir, collected, notes=None, limit=0):
  """Write results.json, and results.md with the paper's Tables 2 to 4 and GLUE's average below the scores.

  Args:
    workdir, collected, notes: see `table`.
    limit: `config.finetune.limit`.
  """
  workdir = paths.location(workdir)
  access.write(workdir / RESULTS, records.text(collected))
  beside = [f'{markdown.line(block.caption)}\n\n{report_markdown.table_of(block)}'
            for block in finetuning.beside_paper({finetuning.row_name('ours', limit): collected})]
  access.write(workdir / TABLE, '\n\n'.join([table(collected, notes), *beside]) + '\n')
