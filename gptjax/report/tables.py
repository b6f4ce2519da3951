"""The tables of a report: our numbers beside the paper's, the protocols, the overlap."""

from gptjax.evaluate import overlap, paper, suite, table
from gptjax.report import published, runs
from gptjax.report.document import Prose, Strong, Table

NOT_RUN = 'not run'


def models(found):
  """What was evaluated."""
  rows = []
  for run in found:
    size = paper.size_of(run.model)
    rows.append([run.name, f'{run.model["parameters"]:,}',
                 f'{run.model["n_layer"]} x {run.model["n_embd"]} x {run.model["n_head"]}', f'{run.model["n_ctx"]:,}',
                 f'{size} (the paper\'s {paper.IN_PAPER[size]})' if size else None,
                 run.model.get('name') or 'trained here', (run.results.get('weights') or '')[:12] or None])
  return Table(['workdir', 'parameters', 'layers x width x heads', 'context', 'released size of this shape',
                'weights', 'digest'], rows, '', prose=True)


def results(found):
  """Every number of the paper with ours, then what the tasks found for which the paper has none."""
  ran = [run for run in found if run.results]
  head = ['', *(run.name for run in ran), *(f'GPT-2 {name}' for name in paper.IN_PAPER.values()),
          'state of the art then']
  rows = []
  for one in paper.FIGURES:
    if one.task not in suite.TASKS:
      continue
    ours = [_ours(run, one) for run in ran]
    rows.append([one.title, *ours, *(number(one.sizes.get(size)) for size in paper.SIZES), number(one.sota)])
  in_paper = {one.task for one in paper.FIGURES}
  for task in dict.fromkeys(task for run in ran for task in run.results['tasks'] if task not in in_paper):
    for metric in next(run.results['tasks'][task] for run in ran if task in run.results['tasks']):
      rows.append([f'{suite.TASKS[task].title}, {metric}', *(number(runs.value(run, task, metric)) for run in ran),
                   *[None] * 5])
  return Table(head, rows, 'Zero-shot results. Accuracies, F1 and exact match in per cent. The paper prints only '
               'its largest size for some tasks. What was not run has no number.')


def _ours(run, one):
  value = runs.value(run, one.task, one.metric)
  if value is None:
    return NOT_RUN
  limit = run.results.get('limit')
  return Strong(number(value * one.scale) + ('*' if limit else ''))


def limits(found):
  """A paragraph on runs that did not take whole data sets."""
  cut = [f'{run.name}: the first {run.results["limit"]:,}' for run in found if run.results.get('limit')]
  return [Prose('* Of the first examples of each task only, so not to be compared with the paper ('
                + '; '.join(cut) + ').')] if cut else []


def expected(found):
  """What others have measured with the released weights."""
  ran = [run for run in found if run.results]
  rows = []
  for one in paper.REPRODUCED:
    ours = [table.nearest(run.results, one.task, one.cell) for run in ran]
    rows.append([f'{suite.TASKS[one.task].title}: {one.protocol}',
                 *(NOT_RUN if value is None else Strong(number(value * one.scale)) for value in ours),
                 *(number(one.sizes.get(size)) for size in paper.SIZES), one.source])
  return Table(['', *(run.name for run in ran), *paper.SIZES, 'measured by'], rows,
               'What others have measured with the released weights, where the paper cannot be reproduced: with '
               'these weights, ours should be near.')


def grids(run):
  """A Table for each task that was measured by several protocols."""
  for task, cells in run.results.get('grids', {}).items():
    units = list(dict.fromkeys(cell['unit'] for cell in cells))
    places = list(dict.fromkeys((cell['text'], cell['stride']) for cell in cells))
    at = {(cell['text'], cell['stride'], cell['unit']): cell for cell in cells}
    rows = [[text if stride is None else f'{text}, stride {stride}', *(_cell(at.get((text, stride, unit)))
                                                                      for unit in units)]
            for text, stride in places]
    yield Table(['text and stride', *units], rows, f'{suite.TASKS[task].title}, {run.name}. Marked: the protocol of '
                'the paper, as far as it is known. Bits for bytes and characters, else perplexity or a share.')


def _cell(cell):
  if cell is None:
    return None
  return Strong(number(cell['value'])) if cell['paper'] else number(cell['value'])


def details(run):
  """A Table for each task that keeps rows of its own."""
  for task, (head, *rows) in run.results.get('rows', {}).items():
    shown = [[_shown(value) for value in row] for row in rows]
    yield Table(list(map(str, head)), shown, f'{suite.TASKS[task].title}, {run.name}.', prose=True)


def _shown(value):
  if isinstance(value, bool):
    return 'yes' if value else 'no'
  return number(value) if isinstance(value, int | float) else str(value)


def overlaps(run):
  """The paper's Table 6 with ours, what was measured of the filters, and scores by overlap."""
  found = run.overlap
  rows = [[_title(name), f'{row["documents"]:,}', f'{row["eightgrams"]:,}', _percent(row['own']), _percent(row['train']),
           f'{row["documents_with_any"]:,}', f'{row["documents_with_much"]:,}',
           *map(number, published.OVERLAP.get(name, (None, None)))] for name, row in found['tests'].items()]
  yield Table(['test set', 'documents', '8-grams', 'in own train, %', 'in training corpus, %', 'documents with any',
               f'with over {overlap.MUCH:.0%}', 'paper: own train', 'paper: WebText'], rows,
              f'8-grams of test sets that are also in training text, {run.name}.')
  for name, row in found['filters'].items():
    yield Prose(f'Filter {name}: {row["eightgrams"]:,} 8-grams of {", ".join(row["sources"])}, '
                f'{row["distinct"]:,} different ones, {row["bytes"] / 1e6:,.1f} MB; '
                + overlap.false_positives(row) + '.')
  for task, scores in found['by_overlap'].items():
    metrics = [name for name in scores[0] if name not in ('bucket', 'examples')]
    yield Table([f'8-grams in the {"training corpus" if overlap.TRAIN in found["filters"] else "own train split"}',
                 'examples', *metrics],
                [[row['bucket'], f'{row["examples"]:,}', *(number(row[metric]) for metric in metrics)]
                 for row in scores], f'{_title(task)} by how much of an example was seen in training.')


def _title(name):
  return suite.TASKS[name].title if name in suite.TASKS else name


def _percent(share):
  return None if share is None else f'{100 * share:.2f}'


def number(value):
  """A number as tables show it; None for None."""
  if value is None:
    return None
  if isinstance(value, int):
    return f'{value:,}'
  return f'{value:.4g}' if abs(value) < 1000 else f'{value:,.0f}' if abs(value) < 1e9 else f'{value:.3g}'


