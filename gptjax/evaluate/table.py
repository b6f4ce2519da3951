"""Evaluation results as Markdown tables; beside the paper's, a task without a result shows 'not run'."""

from gptjax.evaluate import paper, percent
from gptjax.evaluate.core import summary
from gptjax.evaluate.core import tasks as core
from gptjax.evaluate.tasks.suite import TASKS, TITLES
from gptjax.text.markdown import bold, escape, line, table
from gptjax.text.words import plural


def markdown(results):
  """Return the Markdown report of one run.

  Args:
    results: content of `results.json`.
  """
  size = paper.released_size(results['model'])
  parts = [f'# Zero-shot evaluation of {line(results["model"]["name"])}', _model_line(results, size),
           _table(results, size) if has_tasks_of_paper(results) else '', _more_tasks(results)]
  if results['not_run']:
    parts.append('## Not run\n\n' + '\n'.join(
      f'- {line(f"{name}: {why}")}' for name, why in results['not_run'].items()))
  notes = [f'- {line(f"{name}: {note}")}' for name, several in results.get('notes', {}).items()
           for note in several]
  if notes:
    parts.append('## Notes on the data\n\n' + '\n'.join(notes))
  parts += [_reproductions(results), *_protocol_tables(results), *_example_tables(results),
            _protocols(results)]
  return '\n\n'.join(part for part in parts if part) + '\n'


def has_tasks_of_paper(results):
  """Whether a task with a number in the GPT-2 paper was to be run: it has a result, or a reason for none."""
  return any(asked_for(results, figure.task) for figure in paper.PAPER_RESULTS)


def asked_for(results, task):
  """Whether a task was to be run."""
  return task in results['tasks'] or task in results.get('not_run', {})


def _model_line(results, size):
  released = (f', the architecture of the released {size} (the paper\'s {paper.PAPER_SIZES[size]})'
              if size else '')
  limit_text = describe_limit(results)
  limited = f' Only {limit_text}: not comparable with the paper.' if limit_text else ''
  return (f'{results["model"]["parameters"]:,} parameters{released}; {results["model"]["compute_dtype"]}.'
          f'{limited} {percent.PERCENT_NOTE}.')


def limit_of(results, task):
  """The number of examples that a task was limited to; 0: all."""
  return results.get('limits', {}).get(task, results.get('limit', 0))


def describe_limit(results):
  """Describe a limit: 'the first 12 examples of each task'; '' if all examples were used."""
  limits = {task: limit_of(results, task) for task in results['tasks']}
  distinct = set(limits.values()) or {results.get('limit', 0)}
  if distinct == {0}:
    return ''
  if len(distinct) > 1:  # the limit was raised, and not every task has been run since
    limited = ', '.join(f'{limit:,} of {task}' for task, limit in limits.items() if limit)
    return f'the first examples of some tasks ({limited})'
  limit, = distinct
  return f'the first {plural(limit, "example")} of each task'


def _table(results, size):
  head = ['', 'ours', *(bold(name) if released == size else name
                        for released, name in paper.PAPER_SIZES.items()), 'state of the art (2019)']
  lines = []
  for name in TASKS:
    figures = [figure for figure in paper.PAPER_RESULTS if figure.task == name]
    for figure in figures:
      lines.append([figure.title, _measured(results, figure),
                    *(_format_number(figure.sizes.get(size_name)) for size_name in paper.SIZES),
                    _format_number(figure.sota)])
    if not figures:
      values = _all_metrics(results['tasks'].get(name, {}))
      lines.append([TASKS[name].title, values or 'not run', *[''] * 5])
  return table(head, lines)


def _more_tasks(results):
  """The results of tasks that are not in `_table`; those of CORE have a table of their own."""
  in_core = {task.name for task in core.TASKS} if summary.NAME in results['rows'] else set()
  shown = TASKS if has_tasks_of_paper(results) else ()
  lines = [[title, _all_metrics(results['tasks'][name])] for name, title in TITLES.items()
           if name in results['tasks'] and name not in (*shown, *in_core)]
  return f'## {"Other tasks" if shown else "Results"}\n\n' + table(['', 'ours'], lines) if lines else ''


def _all_metrics(metrics):
  return ', '.join(f'{name} {_format_number(percent.to_display(name, value))}'
                   for name, value in metrics.items())


def _measured(results, figure):
  metrics = results['tasks'].get(figure.task)
  if metrics is None or figure.metric not in metrics:
    return 'not run'
  return _format_number(percent.to_display(figure.metric, metrics[figure.metric]))


def _reproductions(results):
  """Published measurements of the released weights beside ours with the most similar protocol."""
  lines = []
  for reproduction in paper.REPRODUCTIONS:
    if not asked_for(results, reproduction.task):
      continue
    value = comparable_value(results, reproduction)
    measured = ('-' if not reproduction.is_comparable else 'not run' if value is None
                else _format_number(value * reproduction.scale))
    lines.append([TITLES[reproduction.task], reproduction.protocol, measured,
                  *(_format_number(reproduction.sizes.get(released)) for released in paper.SIZES),
                  reproduction.source])
  if not lines:
    return ''
  return ('## Other measurements of the released weights\n\nWhere the paper cannot be reproduced, expect '
          'these numbers with the released weights.\n\n'
          + table(['', 'protocol', 'ours', *paper.SIZES, 'source'], lines))


def comparable_value(results, reproduction):
  """Return our value that is comparable with a `paper.Reproduction`; None if it was not run."""
  task = reproduction.task
  if reproduction.metric:
    return results['tasks'].get(task, {}).get(reproduction.metric)
  if not reproduction.is_comparable:
    return None
  text, stride, unit = reproduction.grid_key
  n_ctx = results['model']['n_ctx']
  stride = {'n_ctx': n_ctx, 'n_ctx / 2': n_ctx // 2}.get(stride, stride)
  return next((entry['value'] for entry in results['grids'].get(task, ())
               if (entry['text'], entry['stride'], entry['unit']) == (text, stride, unit)), None)


def _protocol_tables(results):
  for name, cells in results['grids'].items():
    units = list(dict.fromkeys(cell['unit'] for cell in cells))
    lines = []
    for text, stride in dict.fromkeys((cell['text'], cell['stride']) for cell in cells):
      by_unit = {cell['unit']: cell for cell in cells if (cell['text'], cell['stride']) == (text, stride)}
      lines.append([text, str(stride or ''), *(_format_cell(by_unit[unit]) for unit in units)])
    yield (f'## {TITLES[name]}: the protocols\n\n**Bold**: the protocol of the paper, as far as it is '
           'known. Bytes and characters in bits, accuracies in per cent, all others are perplexities.\n\n'
           + table(['text', 'stride', *units], lines))


def _format_cell(cell):
  number = _format_number(percent.to_display(cell['unit'], cell['value']))
  return bold(number) if cell['paper'] else number


def _example_tables(results):
  for name, rows in results['rows'].items():
    yield f'## {TITLES[name]}\n\n' + table(rows[0], [list(map(_format_value, row)) for row in rows[1:]])


def _format_value(value):
  if isinstance(value, bool):
    return 'yes' if value else 'no'
  return _format_number(value) if isinstance(value, float) else str(value)


def _protocols(results):
  lines = [f'**{TITLES[name]}.** ' + escape(text).replace('\n', '\n    ').rstrip()
           for name, text in results['protocols'].items()]
  return '## How it was measured\n\n' + '\n\n'.join(lines) if lines else ''


def _format_number(value):
  if value is None:
    return ''
  if isinstance(value, int):
    return f'{value:,}'
  return f'{value:.4g}' if abs(value) < 1000 else f'{value:,.0f}' if abs(value) < 1e9 else f'{value:.3g}'
