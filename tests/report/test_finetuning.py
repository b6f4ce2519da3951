"""Fine-tuning results beside the GPT-1 paper: its tables, GLUE's average, and the section of a report."""

import json
import statistics

import pytest
from conftest import ROOT, tiny_config
from hypothesis import given
from hypothesis import strategies as st

from gptjax.evaluate import paper_gpt1
from gptjax.finetune import results
from gptjax.finetune.tasks import published
from gptjax.report import page

BEHIND = {'RTE', 'MRPC, F1', 'SST-2, accuracy'}  # where GPT-1 was not the best (section 4.2)


def test_the_tables_are_whole_and_gpt1_is_the_best_where_the_paper_says_so():
  assert [table.number for table in paper_gpt1.TABLES] == [2, 3, 4]
  for table in paper_gpt1.TABLES:
    assert all(len(figures) == len(table.columns) for figures in table.rows.values())
    for i, column in enumerate(table.columns):
      best = max((figures[i], system) for system, figures in table.rows.items() if figures[i] is not None)[1]
      assert (best == paper_gpt1.GPT1) == (column.head not in BEHIND), column
  assert [len(table.rows) for table in paper_gpt1.TABLES] == [7, 6, 6], "Table 3 with the README's median"


def test_columns_and_data_sets_are_those_of_the_tasks():
  twelve = [task for sets in paper_gpt1.DATA_SETS.values() for task in sets.values()]
  assert len(twelve) == 12 and set(twelve) == published.TASKS.keys() - {'wnli', 'text', 'reviews'}
  columns = [column for table in paper_gpt1.TABLES for column in table.columns]
  assert {column.task for column in columns} == {*twelve, 'glue'}
  for column in columns:
    if column.task != 'glue':
      task = published.find(column.task)
      assert column.metric.partition('/')[0] == task.metrics[0]
      assert column.metric.partition('/')[2] in ('all', *task.validation)
  for name in twelve:
    assert published.find(name).paper == ({} if name == 'qnli' else paper_gpt1.figures(name))


def test_gpt1s_average_is_that_of_its_scores():
  average = paper_gpt1.glue_average(paper_gpt1.GLUE_GPT1)
  assert round(average, 1) == paper_gpt1.figures('glue')['average'] == 72.8
  for task, metrics in paper_gpt1.GLUE_GPT1.items():
    assert metrics.keys() == set(paper_gpt1.GLUE[task])
    assert paper_gpt1.figures(task).items() <= metrics.items()
  of_table_5 = paper_gpt1.TABLE_5['aux LM']
  assert of_table_5['mnli'] == pytest.approx((82.1 + 81.4) / 2, abs=0.051)
  first = {task: next(iter(metrics.values())) for task, metrics in paper_gpt1.GLUE_GPT1.items()}
  assert {**first, 'mnli': 81.8, 'wnli': None} == {**of_table_5, 'wnli': None}


def test_the_page_of_results_has_the_tables():
  text = (ROOT / 'docs' / 'results.md').read_text()
  for table in paper_gpt1.TABLES:
    for system, figures in table.rows.items():
      cells = ['' if figure is None else f'{figure:.1f}' for figure in figures]
      assert f'| {system} | {" | ".join(cells)} |' in text


@given(st.lists(st.floats(0, 1), min_size=13, max_size=13), st.sampled_from(list(paper_gpt1.GLUE)))
def test_the_average_is_over_tasks_and_not_over_metrics(values, missing):
  values = iter(values)
  scores = {task: {metric: next(values) for metric in metrics} for task, metrics in paper_gpt1.GLUE.items()}
  one = lambda task: statistics.fmean(scores[task].values())
  assert paper_gpt1.glue_average(scores) == pytest.approx(statistics.fmean(map(one, scores)))
  rest = [task for task in scores if task != missing]
  without = {task: scores[task] for task in rest}
  assert paper_gpt1.glue_average(without) is None
  assert paper_gpt1.glue_average(without, (missing,)) == pytest.approx(statistics.fmean(map(one, rest)))


def collected(n_seeds, *tasks):
  """Results of several seeds: the median over ten is 0.5 + 0.01 * 4.5, the mean another number."""
  runs = {}
  for name in tasks:
    task = published.find(name)
    suffixes = [*task.validation, *['all'] * (len(task.validation) > 1)]
    metrics = ['/'.join(filter(None, (metric, suffix))) for metric in task.metrics for suffix in suffixes]
    metrics += [f'test/{metric}' for metric in metrics] * (not task.glue)
    values = [0.5 + 0.01 * seed + 0.3 * (seed == 9) for seed in range(n_seeds)]
    runs[name] = [{'seed': seed, 'metrics': dict.fromkeys(metrics, value)}
                  for seed, value in enumerate(values)]
  return results.collect(runs, {name: published.find(name).paper for name in tasks})


def test_results_md_has_all_rows_of_the_papers_tables_and_medians(tmp_path):
  results.write(tmp_path, collected(10, 'story_cloze', *paper_gpt1.GLUE), {}, 0)
  text = (tmp_path / 'results.md').read_text()
  for table in paper_gpt1.TABLES:
    assert f'Table {table.number} of the GPT-1 paper' in text
    for system in table.rows:
      assert f'| {system.replace("_", chr(92) + "_")} |' in text, system
  assert '| ours, test, median of 10 runs | **54.5** |  |  |  |' in text
  assert f'| ours, validation, median of 10 runs |{" **54.5** |" * 6}\n' in text, 'with the average of GLUE'
  assert '| GPT-1, test | 45.4 | 91.3 | 79.0 | 81.0 | 79.4 | 81.8 | 88.1 | 56.0 | 53.4 | 72.8 | 75.2 |\n' in (
    text), 'the mean of metrics first; the average, and that without WNLI'
  results.write(tmp_path, collected(1, 'cola'), {}, 100)
  text = (tmp_path / 'results.md').read_text()
  assert 'Table 3' not in text and 'ours (first 100 examples of each split only), validation |' in text


def test_a_report_has_a_section_of_fine_tuning(tmp_path):
  config = tiny_config(**{'finetune.limit': 50})
  config.job = 'finetune'
  contents = {'new': collected(3, 'rte', 'qnli'), 'old': {'tasks': {'rte': {'accuracy': 56.0}}, 'runs': {}}}
  for name, content in contents.items():
    (tmp_path / name).mkdir()
    stored = {'config': config.to_dict(), 'versions': {'gptjax': '0'}, 'devices': ['cpu', 1]}
    (tmp_path / name / 'config.json').write_text(json.dumps(stored))
    (tmp_path / name / 'results.json').write_text(json.dumps(content))
  page.write([tmp_path / name for name in contents], tmp_path / 'out')
  text = (tmp_path / 'out' / 'report.md').read_text()
  first = '(first 50 examples of each split only)'
  assert 'Fine-tuning beside the GPT-1 paper' in text and f'old {first} has results of version 0.1.0' in text
  assert f'| new {first}, validation, median of 3 runs |  |  |  |  | **51.0** | **51.0** |' in text
  assert '| Multi-task BiLSTM + Attn | 72.2 | 72.1 |  |  | 82.1 | 61.7 |' in text and 'QNLI v1' in text
  assert 'Fine-tuning beside the GPT-1 paper' in (tmp_path / 'out' / 'report.html').read_text()
  damaged = {**contents['new'], 'spread': {'rte': {'accuracy': {'median': 0.5}}}}
  (tmp_path / 'new' / 'results.json').write_text(json.dumps(damaged))
  with pytest.raises(ValueError, match=r'results\.json is damaged, or of another version: spread\.rte'):
    page.write([tmp_path / 'new'], tmp_path / 'out')
