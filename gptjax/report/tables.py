"""The tables of a report: our numbers with the paper's, the protocols, the overlap."""

import math

from gptjax.evaluate import paper, percent, table
from gptjax.evaluate.overlap import lookup
from gptjax.evaluate.overlap import table as overlap_table
from gptjax.evaluate.tasks import suite
from gptjax.report import core, published, runs
from gptjax.report.document import Prose, Strong, Table

NOT_RUN = 'not run'


def models(all_runs):
  """Return the table of models."""
  rows = []
  for run in all_runs:
    size = paper.released_size(run.model)
    rows.append([run.name, f'{run.model["parameters"]:,}',
                 f'{run.model["n_layer"]} x {run.model["n_embd"]} x {run.model["n_head"]}',
                 f'{run.model["n_ctx"]:,}', f'{size} (the paper\'s {paper.PAPER_SIZES[size]})' if size
                 else None,
                 run.model.get('name') or 'trained here', (run.results.get('weights') or '')[:12] or None])
  return Table(['workdir', 'parameters', 'layers x width x heads', 'context', 'released size of this shape',
                'weights', 'digest'], rows, 'The models of this report.', prose=True)


def training(all_runs):
  """Return the table of training lengths and final losses; '-' if metrics.jsonl has no such number."""
  rows = []
  for run in runs.trained(all_runs):
    steps, losses = runs.curve(run, 'train/loss')
    fields = ('train', 'batch_size'), ('data', 'seq_len')
    sizes = [run.trained.get(part, {}).get(name) for part, name in fields]
    last = next((record for record in reversed(run.records) if record.get('eval/loss') is not None), {})
    loss, bits = last.get('eval/loss'), last.get('eval/bits_per_byte')
    perplexity = None if loss is None else math.exp(min(loss, 700))
    values = (('d', steps[-1]), ('d', steps[-1] * math.prod(sizes) if all(sizes) else None),
              ('.4f', losses[-1]), ('.4f', loss), ('.2f', perplexity), ('.3f', bits))
    rows.append([run.name, *('-' if value is None else f'{value:,{form}}' for form, value in values)])
  return Table(['run', 'steps', 'tokens seen', 'training loss', 'held-out loss', 'held-out perplexity',
                'held-out bits per byte'], rows,
               'The end of training: the training loss is that of the last logged batch, the held-out '
               'numbers are those of the last evaluation. Losses are in nats per token. Only '
               'bits per byte can be compared between tokenizers.')


def with_tasks_of_paper(all_runs):
  """Return the evaluations that were to run a task with a number in the GPT-2 paper."""
  return [run for run in all_runs if run.results and table.has_tasks_of_paper(run.results)]


def results(all_runs):
  """Return the table of all numbers of the paper with ours, then of tasks that the paper does not have."""
  ran = [run for run in all_runs if run.results]
  head = ['', *(run.name for run in ran), *(f'GPT-2 {name}' for name in paper.PAPER_SIZES.values()),
          'state of the art (2019)']
  rows = []
  for result in paper.PAPER_RESULTS:
    if result.task not in suite.TASKS:
      continue
    theirs = (*(result.sizes.get(size) for size in paper.SIZES), result.sota)
    rows.append([result.title, *(_ours(run, result) for run in ran), *map(printed, theirs)])
  rows += [[*row, *[None] * 5] for row in _rows_of_other_tasks(ran)]
  return Table(head, rows, 'Zero-shot results, of test sets unless a row says otherwise. '
               f'{percent.PERCENT_NOTE}. The paper prints only its largest size for some tasks. What was not '
               'run has no number.')


def other_results(all_runs):
  """Yield the table of tasks that are not in the paper, without its columns; nothing without such tasks."""
  ran = [run for run in all_runs if run.results]
  if rows := _rows_of_other_tasks(ran):
    yield Table(['', *(run.name for run in ran)], rows, f'Zero-shot results. {percent.PERCENT_NOTE}.')


def _rows_of_other_tasks(ran):
  """[[title, number of each run]] of tasks without a number in the paper; CORE has a table of its own."""
  rows, in_paper = [], {result.task for result in paper.PAPER_RESULTS}
  for task in dict.fromkeys(task for run in ran for task in run.results['tasks'] if task not in in_paper
                            and not core.is_of_core(task)):
    for metric in next(run.results['tasks'][task] for run in ran if task in run.results['tasks']):
      values = (_value(run, task, metric) for run in ran)
      rows.append([f'{_title(task)}, {_words(metric)}', *values])
  return rows


def _ours(run, result):
  value = _value(run, result.task, result.metric)
  return NOT_RUN if value is None else Strong(value)


def _value(run, task, metric):
  """One of our numbers, with a star if it is of the first examples only; None if there is none."""
  value = runs.value(run, task, metric)
  return None if value is None else format_number(percent.to_display(metric, value)) + _star(run, task)


def _star(run, task):
  return '*' * bool(table.limit_of(run.results, task))


def limits(all_runs):
  """Return a paragraph about runs with incomplete data sets."""
  cut = '; '.join(f'{run.name}: {first}' for run in all_runs
                  if run.results and (first := table.describe_limit(run.results)))
  return [Prose(f'* Not of all examples, so not to be compared with the paper ({cut}).')] if cut else []


def expected(all_runs):
  """Return [the table of others' results with the released weights], [] if no run was to run their tasks."""
  ran = [run for run in all_runs if run.results]
  rows = []
  for reproduction in paper.REPRODUCTIONS:
    if not any(table.asked_for(run.results, reproduction.task) for run in ran):
      continue
    ours = [table.comparable_value(run.results, reproduction) for run in ran]
    rows.append([f'{suite.TITLES[reproduction.task]}: {reproduction.protocol} ({reproduction.source})',
                 *(_expected(reproduction, run, value) for run, value in zip(ran, ours, strict=True)),
                 *(printed(reproduction.sizes.get(size)) for size in paper.SIZES)])
  head = ['', *(run.name for run in ran), *(f'released {size}' for size in paper.SIZES)]
  return [Table(head, rows, 'What others have measured with the released weights, where the paper cannot be '
                'reproduced: with these weights, ours should be near.')] if rows else []


def _expected(reproduction, run, value):
  if not reproduction.is_comparable:
    return '-'
  if value is None:
    return NOT_RUN
  return Strong(format_number(value * reproduction.scale) + _star(run, reproduction.task))


def grids(evaluated):
  """Yield a table for each task that was run with several protocols."""
  tasks = dict.fromkeys(task for run in evaluated for task in run.results.get('grids', {}))
  for task in tasks:
    cells = {run.name: run.results['grids'].get(task, ()) for run in evaluated}
    units = list(dict.fromkeys(cell['unit'] for run_cells in cells.values() for cell in run_cells))
    rows = []
    for name, run_cells in cells.items():
      by_key = {(cell['text'], cell['stride'], cell['unit']): cell for cell in run_cells}
      for text, stride in dict.fromkeys((cell['text'], cell['stride']) for cell in run_cells):
        run_name, stride_name = [name] * (len(evaluated) > 1), [f'stride {stride}'] * (stride is not None)
        label = ', '.join([*run_name, text, *stride_name])
        rows.append([label, *(_cell(by_key.get((text, stride, unit))) for unit in units)])
    yield Table(['text and stride', *map(_words, units)], rows, f'{_title(task)}.')


def _cell(cell):
  if cell is None:
    return None
  value = format_number(percent.to_display(cell['unit'], cell['value']))
  return Strong(value) if cell['paper'] else value


def details(run):
  """Yield a table for each task with detailed rows, but that of CORE, which has a section of its own."""
  for task, (head, *rows) in run.results.get('rows', {}).items():
    if core.is_of_core(task):
      continue
    shown = [[_shown(value) for value in row] for row in rows]
    yield Table(list(map(str, head)), shown, f'{_title(task)}, {run.name}.', prose=True)


def _shown(value):
  if isinstance(value, bool):
    return 'yes' if value else 'no'
  return format_number(value) if isinstance(value, int | float) else str(value)


def overlaps(run):
  """Yield the paper's Table 6 with our numbers, statistics of the filters, and scores by overlap."""
  overlap = run.overlap
  rows = [[_title(name), f'{row["documents"]:,}', f'{row["eightgrams"]:,}', _percent(row['own']),
           _percent(row['train']), f'{row["documents_with_any"]:,}', f'{row["documents_with_much"]:,}',
           *map(printed, published.OVERLAP.get(name, (None, None)))]
          for name, row in overlap['tests'].items()]
  yield Table(['test set', 'documents', '8-grams', 'in own train, %', 'in training corpus, %',
               'documents with any', f'with over {overlap_table.HIGH_OVERLAP:.0%}', 'paper: own train',
               'paper: WebText'],
              rows, f'8-grams of test sets that are also in training text, {run.name}; method: '
              f'{overlap.get("method", overlap_table.BLOOM)}.')
  for name, row in overlap['filters'].items():
    yield Prose(f'Filter {name}: {row["eightgrams"]:,} 8-grams of {", ".join(row["sources"])}, '
                f'{row["distinct"]:,} different ones, {row["bytes"] / 1e6:,.1f} MB; '
                + overlap_table.false_positives(row) + '.')
  for name, row in overlap.get('exact', {}).items():
    yield Prose(f'Exact lookup in {name} ({", ".join(row["sources"])}): {overlap_table.exact_lookup(row)}.')
  for task, scores in overlap['by_overlap'].items():
    metrics = [name for name in scores[0] if name not in ('bucket', 'examples')]
    texts = overlap['filters'] | overlap.get('exact', {})
    where = 'training corpus' if lookup.TRAIN in texts else 'own train split'
    yield Table([f'8-grams in the {where}', 'examples', *map(_words, metrics)],
                [[row['bucket'], f'{row["examples"]:,}',
                  *(format_number(percent.to_display(metric, row[metric])) for metric in metrics)]
                 for row in scores],
                f'{_title(task)} by how much of an example was seen in training; accuracies, F1, exact match '
                'and what is correct in per cent.')


def _title(name):
  return suite.TITLES.get(name, name)


def _words(name):
  return name.replace('_', ' ')


def _percent(share):
  return None if share is None else f'{100 * share:.2f}'


def format_number(value):
  """Return one of our numbers as shown in tables; None for None."""
  if value is None:
    return None
  if isinstance(value, int):
    return f'{value:,}'
  if value == 0 or abs(value) >= 1e6:
    return f'{value:.3g}'
  return f'{value:,.{3 if abs(value) < 2 else 2 if abs(value) < 1000 else 0}f}'


def printed(value):
  """Return a number as printed in the paper; None for None."""
  return None if value is None else f'{value:g}'
