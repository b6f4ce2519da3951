"""Results of fine-tuning beside the GPT-1 paper's Tables 2 to 4 and GLUE's average.

`contents` is {name of a run: content of its results.json, of version 2}, see `gptjax.finetune.results`.
"""

from gptjax.evaluate import paper_gpt1, percent
from gptjax.report.document import Prose, Strong, Table

TEST = 'test/'  # prefix of metrics of labelled test sets
SCORES_HEAD = ['task', 'metric', 'seeds', 'validation, mean', 'median', 'min to max', 'std', 'test, mean',
               'median', 'paper (test)']


def blocks(contents):
  """Yield the blocks of the section of a report."""
  for name, content in contents.items():
    if 'spread' not in content:
      yield Prose(f'{name} has results of version 0.1.0, which are not shown: run the same fine-tuning '
                  'command again, it converts them.')
  contents = {name: content for name, content in contents.items() if 'spread' in content}
  yield from beside_paper(contents)
  for name, content in contents.items():
    rows = score_rows(content, {'qnli': paper_gpt1.QNLI_NOTE})
    note = f' * QNLI: {paper_gpt1.QNLI_NOTE}.' if 'qnli' in content['spread'] else ''
    yield Table(SCORES_HEAD, rows, f'All scores of {name} over its seeds, per cent, but perplexity.{note}',
                prose=True)


def row_name(name, limit):
  """The name of a run's rows, with `config.finetune.limit` if it is set."""
  return f'{name} (first {limit:,} examples of each split only)' if limit else name


def beside_paper(contents):
  """Yield those of Tables 2 to 4 of which there are results, then GLUE's average.

  Each has all rows of the paper, and ours: medians over seeds.
  """
  for table in paper_gpt1.TABLES:
    ours = [row for name, content in contents.items() for row in _our_rows(name, content, table.columns)]
    if ours:
      theirs = [[system, *map(_printed, figures)] for system, figures in table.rows.items()]
      caption = (f"As Table {table.number} of the GPT-1 paper: {table.title}, per cent, with ours. The "
                 "paper's figures are of test sets; (5x) is an ensemble of five models.")
      if any('qnli' in content['spread'] for content in contents.values()) and table.number == 2:
        caption += f' QNLI: {paper_gpt1.QNLI_NOTE}.'
      yield Table(['', *(column.head for column in table.columns)], theirs + ours, caption)
  if any(paper_gpt1.GLUE.keys() & content['spread'].keys() for content in contents.values()):
    yield glue(contents)


def _our_rows(name, content, columns):
  """The rows of a run: of test sets with public labels, and of validation sets; without a score, no row."""
  tasks = [column.task for column in columns if column.task in content['spread']]
  for split, prefix in (('test', TEST), ('validation', '')):
    medians = _medians(content, prefix)
    values = [_average(medians) if column == paper_gpt1.GLUE_COLUMN
              else medians.get(column.task, {}).get(column.metric) for column in columns]
    if any(value is not None for value in values):
      yield [f'{name}, {split}{_of_seeds(content, tasks)}', *map(_ours, values)]


def glue(contents):
  """Return the table of GLUE's average; ours is of validation sets, as GLUE's test labels are not public."""
  head = ['', *paper_gpt1.GLUE_HEADS.values(), 'average', 'without WNLI']
  def row(name, scores, cell):
    of_tasks = paper_gpt1.glue_scores(scores)
    return [name, *(cell(of_tasks.get(task)) for task in paper_gpt1.GLUE),
            cell(_average(scores)), cell(_average(scores, ('wnli',)))]
  rows = [row(f'{paper_gpt1.GPT1}, test', paper_gpt1.GLUE_GPT1, _printed)]
  rows += [row(f'{name}, validation{_of_seeds(content, content["spread"])}', _medians(content, ''), _ours)
           for name, content in contents.items() if paper_gpt1.GLUE.keys() & content['spread'].keys()]
  return Table(head, rows, "GLUE's average, per cent: the mean over the nine tasks of the mean of a task's "
               'metrics (MRPC and QQP: F1 and accuracy; STS-B: Pearson and Spearman; MNLI: matched and '
               "mismatched). GPT-1's second metrics and WNLI are those of GLUE's leaderboard (Liu et al. "
               '2019, Table 2), its QNLI is of version 1. Test scores come from gluebenchmark.com alone.')


def _average(scores, without=()):
  return paper_gpt1.glue_average(scores, without)


def _medians(content, prefix):
  """{task: {metric: median over seeds, per cent}} of the metrics with this prefix."""
  return {task: {metric.removeprefix(prefix): percent.to_display(metric, summary['median'])
                 for metric, summary in metrics.items() if metric.startswith(TEST) == bool(prefix)}
          for task, metrics in content['spread'].items()}


def _of_seeds(content, tasks):
  """', median of 10 runs' of some tasks; '' if they have one run each."""
  counts = sorted({len(content['runs'][task]) for task in tasks})
  if not counts or counts == [1]:
    return ''
  return f', median of {" to ".join(map(str, dict.fromkeys((counts[0], counts[-1]))))} runs'


def _ours(value):
  return None if value is None else Strong(f'{value:.1f}')


def _printed(value):
  return None if value is None else f'{value:.1f}'


def score_rows(content, notes):
  """The rows of a table of all scores with the head `SCORES_HEAD`.

  Args:
    content: of results.json.
    notes: {task: caveat for the comparison with the paper}; the figure of such a task gets a star.
  """
  rows = []
  for task, metrics in content['spread'].items():
    test = {name.removeprefix(TEST): summary for name, summary in metrics.items() if name.startswith(TEST)}
    validation = {name: summary for name, summary in metrics.items() if not name.startswith(TEST)}
    for metric in dict.fromkeys((*validation, *test)):  # a test set may have no validation set with its name
      figure = content['paper'].get(task, {}).get(metric)
      rows.append([task, metric, str(len(content['runs'][task])),
                   *_cells(metric, validation.get(metric), ('mean', 'median', 'range', 'std')),
                   *_cells(metric, test.get(metric), ('mean', 'median')),
                   ('-' if figure is None else _shown(metric, figure)) + '*' * bool(notes.get(task))])
  return rows


def _cells(metric, values, columns):
  """The table cells of a summary over seeds; '-' if there is none."""
  if not values:
    return ['-'] * len(columns)
  texts = {name: _shown(metric, value) for name, value in values.items()}
  return [f'{texts["min"]} to {texts["max"]}' if name == 'range' else texts[name] for name in columns]


def _shown(metric, value):
  return f'{percent.to_display(metric, value):.1f}'
