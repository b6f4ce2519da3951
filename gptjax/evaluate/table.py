"""The results as Markdown, beside the paper's numbers; a task that did not run has no number anywhere."""

from gptjax.evaluate import paper, percent
from gptjax.evaluate.tasks.suite import TASKS
from gptjax.text.markdown import bold, escape, line, table
from gptjax.text.words import plural


def markdown(results):
  """The report of one run.

  Args:
    results: what `results.json` holds.
  """
  size = paper.released_size(results['model'])
  parts = [f'# Zero-shot evaluation of {line(results["model"]["name"])}', _about(results, size),
           _table(results, size)]
  if results['not_run']:
    parts.append('## Not run\n\n' + '\n'.join(f'- {line(f"{name}: {why}")}'
                                               for name, why in results['not_run'].items()))
  notes = [f'- {line(f"{name}: {note}")}' for name, several in results.get('notes', {}).items()
           for note in several]
  if notes:
    parts.append('## Data that is not as published\n\n' + '\n'.join(notes))
  parts += [_others(results), *_grids(results), *_rows(results), _protocols(results)]
  return '\n\n'.join(part for part in parts if part) + '\n'


def _about(results, size):
  named = f', the shape of the released {size} (the paper\'s {paper.PAPER_SIZES[size]})' if size else ''
  only = f' Only {first}: not to be compared with the paper.' if (first := describe_limit(results)) else ''
  return (f'{results["model"]["parameters"]:,} parameters{named}; {results["model"]["compute_dtype"]}.{only} '
          f'{percent.PERCENT_NOTE}.')


def limit_of(results, task):
  """How many examples a task was cut to; 0: it has all of them."""
  return results.get('limits', {}).get(task, results.get('limit', 0))


def describe_limit(results):
  """Which examples were taken, in words: 'the first 12 examples of each task'; '' where all were."""
  limits = {task: limit_of(results, task) for task in results['tasks']}
  some = set(limits.values()) or {results.get('limit', 0)}
  if some == {0}:
    return ''
  if len(some) > 1:  # the limit was raised, and not every task has been run since
    few = ', '.join(f'{limit:,} of {task}' for task, limit in limits.items() if limit)
    return f'the first examples of some tasks ({few})'
  limit, = some
  return f'the first {plural(limit, "example")} of each task'


def _table(results, size):
  head = ['', 'ours', *(bold(name) if released == size else name
                        for released, name in paper.PAPER_SIZES.items()), 'state of the art then']
  lines = []
  for name in TASKS:
    figures = [figure for figure in paper.PAPER_RESULTS if figure.task == name]
    for figure in figures:
      lines.append([figure.title, _ours(results, figure),
                    *(_number(figure.sizes.get(one)) for one in paper.SIZES), _number(figure.sota)])
    if not figures:
      metrics = results['tasks'].get(name, {}).items()
      found = ', '.join(f'{key} {_number(percent.to_display(key, value))}' for key, value in metrics)
      lines.append([TASKS[name].title, found or 'not run', *[''] * 5])
  return table(head, lines)


def _ours(results, figure):
  found = results['tasks'].get(figure.task)
  return 'not run' if found is None else _number(percent.to_display(figure.metric, found[figure.metric]))


def _others(results):
  """What others have measured with the released weights, beside our nearest protocol."""
  lines = []
  for one in paper.REPRODUCTIONS:
    cell = nearest_value(results, one.task, one.cell)
    ours = '-' if one.cell is None else 'not run' if cell is None else _number(cell * one.scale)
    lines.append([TASKS[one.task].title, one.protocol, ours,
                  *(_number(one.sizes.get(released)) for released in paper.SIZES), one.source])
  return ('## What others measured with the released weights\n\nWith these weights ours should be near; '
          'where the paper cannot be reproduced, this is what is to be expected.\n\n'
          + table(['', 'protocol', 'ours', *paper.SIZES, 'source'], lines))


def nearest_value(results, task, cell):
  """The value of a cell of a task's grid, named as in `paper.Reproduction`; None if it was not run."""
  if cell is None:
    return None
  text, stride, unit = cell
  n_ctx = results['model']['n_ctx']
  stride = {'n_ctx': n_ctx, 'n_ctx / 2': n_ctx // 2}.get(stride, stride)
  return next((one['value'] for one in results['grids'].get(task, ())
               if (one['text'], one['stride'], one['unit']) == (text, stride, unit)), None)


def _grids(results):
  for name, cells in results['grids'].items():
    units = list(dict.fromkeys(cell['unit'] for cell in cells))
    lines = []
    for text, stride in dict.fromkeys((cell['text'], cell['stride']) for cell in cells):
      mine = {cell['unit']: cell for cell in cells if (cell['text'], cell['stride']) == (text, stride)}
      lines.append([text, str(stride or ''), *(_marked(mine[unit]) for unit in units)])
    yield (f'## {TASKS[name].title}: the protocols\n\n**Bold**: the protocol of the paper, as far as it is '
           'known. Bits for bytes and characters, per cent for accuracies, else perplexity.\n\n'
           + table(['text', 'stride', *units], lines))


def _marked(cell):
  number = _number(percent.to_display(cell['unit'], cell['value']))
  return bold(number) if cell['paper'] else number


def _rows(results):
  for name, rows in results['rows'].items():
    yield f'## {TASKS[name].title}\n\n' + table(rows[0], [list(map(_shown, row)) for row in rows[1:]])


def _shown(value):
  if isinstance(value, bool):
    return 'yes' if value else 'no'
  return _number(value) if isinstance(value, float) else str(value)


def _protocols(results):
  lines = [f'**{TASKS[name].title}.** ' + escape(text).replace('\n', '\n    ').rstrip()
           for name, text in results['protocols'].items()]
  return '## How it was measured\n\n' + '\n\n'.join(lines) if lines else ''


def _number(value):
  if value is None:
    return ''
  if isinstance(value, int):
    return f'{value:,}'
  return f'{value:.4g}' if abs(value) < 1000 else f'{value:,.0f}' if abs(value) < 1e9 else f'{value:.3g}'
