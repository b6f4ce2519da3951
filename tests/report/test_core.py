"""CORE in a report: the table, and the curve over hours, FLOPs and tokens with GPT-2's line."""

import json
import re

import numpy as np
import pytest
from conftest import tiny_config
from report.test_report import write_run

from gptjax.evaluate import table
from gptjax.evaluate.core import summary
from gptjax.evaluate.core.tasks import TABLE
from gptjax.model.size import flops_per_token, n_params
from gptjax.report import core, page, runs


def training_run(folder, metric):
  """A workdir of pretraining: 4 steps of two evaluations of CORE, a step takes half an hour."""
  config = tiny_config(**{'train.batch_size': 8, 'data.seq_len': 24})
  folder.mkdir(parents=True)
  (folder / 'config.json').write_text(json.dumps({
    'config': config.to_dict(), 'versions': {'gptjax': '0'}, 'devices': ['cpu', 1]}))
  records = [{'step': step, 'train/loss': 4.0, 'time/steps': 1800.0 * step} for step in range(1, 5)]
  records += [{'step': step, f'eval/core/{metric}': value, 'eval/core/tasks_run': 22}
              for step, value in ((2, 0.1), (4, 0.2))]
  (folder / 'metrics.jsonl').write_text(''.join(json.dumps(record) + '\n' for record in records))
  return folder, config


@pytest.mark.parametrize('metric', [summary.CORE, summary.PARTIAL])
def test_points_are_at_the_hours_flops_and_tokens_of_the_run(tmp_path, metric):
  folder, config = training_run(tmp_path / 'run', metric)
  run, = runs.read([folder])
  found = core.points(run)
  assert found.keys() == {metric}
  tokens = np.array([2, 4]) * 8 * 24
  np.testing.assert_allclose(found[metric]['tokens'], tokens)
  np.testing.assert_allclose(found[metric]['hours'], [1, 2])
  np.testing.assert_allclose(found[metric]['flops'], tokens * flops_per_token(config.model, 24)['palm'])
  assert found[metric]['value'] == [0.1, 0.2]


def test_a_run_of_a_version_without_the_options_of_the_model_is_reported(tmp_path):
  folder, config = training_run(tmp_path / 'run', summary.CORE)
  stored = json.loads((folder / 'config.json').read_text())
  for name in ('n_kv_head', 'head_size', 'positions', 'norm_type', 'sliding_window', 'embedding_dropout'):
    del stored['config']['model'][name]
  (folder / 'config.json').write_text(json.dumps(stored))
  run, = runs.read([folder])
  assert run.model['parameters'] == n_params(config.model)
  flops = 2 * 8 * 24 * flops_per_token(config.model, 24)['palm']
  np.testing.assert_allclose(core.points(run)[summary.CORE]['flops'][0], flops)


@pytest.mark.parametrize('metric', [summary.CORE, summary.PARTIAL])
def test_the_figure_has_gpt_2s_line_and_names_what_is_not_core(tmp_path, metric):
  folder, _ = training_run(tmp_path / 'run', metric)
  html, markdown = page.write([folder], tmp_path / 'out')
  text = html.read_text()
  assert 'CORE of GPT-2 XL, 0.256525' in text
  for axis in ('hours of training', 'FLOPs', 'tokens'):
    assert f'>{axis}<' in text
  assert re.search(r'## \d+ CORE\n', markdown.read_text())
  assert ('not CORE' in text) == (metric == summary.PARTIAL)
  assert (tmp_path / 'out' / 'report-figures' / 'core.svg').is_file()


def test_the_table_has_all_tasks_and_the_figure_only_if_all_were_run(tmp_path):
  metrics = {'accuracy': 0.5, 'centered': 0.25, 'correct': 1, 'examples': 2}
  tasks = {task.name: metrics for task in TABLE}
  for name, ran in (('all', tasks), ('some', {'copa': metrics})):
    done = summary.summarize(ran).metrics
    write_run(tmp_path / name, '124M', tasks={**ran, 'core': done}, records=[])
    _, markdown = page.write([tmp_path / name], tmp_path / f'out-{name}')
    text = markdown.read_text()
    assert '| copa | multiple choice | 0 | 50 | 50.00 | 0.2500 |' in text
    assert ('| CORE |' in text) == (name == 'all')
    assert ('| boolq | multiple choice | 10 | 62 | not run | not run |' in text) == (name == 'some')
    assert ('| mean of the tasks that were run (not CORE) |' in text) == (name == 'some')
    assert 'copa, centered' not in text  # in its own table alone
    assert 'Only of the first' not in text


def test_a_score_of_some_examples_has_a_star(tmp_path):
  ran = {task.name: {'accuracy': 0.5, 'centered': 0.25} for task in TABLE}
  write_run(tmp_path / 'run', '124M', tasks={**ran, 'core': summary.summarize(ran).metrics}, records=[],
            limits=dict.fromkeys(('core', *ran), 12))
  _, markdown = page.write([tmp_path / 'run'], tmp_path / 'out')
  text = markdown.read_text().replace('\\*', '*')
  assert '| 50.00* | 0.2500* |' in text and '| 0.250000* |' in text
  assert '* Only of the first examples.' in text


def test_the_figure_says_of_how_many_examples_it_is(tmp_path):
  folder, _ = training_run(tmp_path / 'run', summary.CORE)
  content = json.loads((folder / 'config.json').read_text())
  content['config']['eval']['limit'] = 500
  (folder / 'config.json').write_text(json.dumps(content))
  html, _ = page.write([folder], tmp_path / 'out')
  assert 'run: the first 500 examples of each task.' in html.read_text()


def test_an_evaluation_of_core_alone_has_no_tables_of_the_gpt2_paper(tmp_path):
  """They would have 'not run' in every row."""
  tasks = {'copa': {'accuracy': 0.5, 'centered': 0.25, 'correct': 1, 'examples': 2}}
  found = {}
  for name, not_run in (('core', {'boolq': 'missing'}), ('both', {'ptb': 'missing'})):
    folder = write_run(tmp_path / name, '124M', tasks=tasks, records=[])
    results = json.loads((folder / 'results.json').read_text()) | {
      'not_run': not_run, 'grids': {}}
    (folder / 'results.json').write_text(json.dumps(results))
    found[name] = page.write([folder], tmp_path / f'out-{name}')[1].read_text(), table.markdown(results)
  for text in found['core']:
    assert '1 Billion Words' not in text and 'copa' in text.lower()
    assert 'missing' in text and "GPT-2 paper" not in text
  assert found['core'][0].startswith('# Evaluation of core\n')
  for text in found['both']:
    assert '1 Billion Words' in text and 'missing' in text


BESIDE, ALONE, OTHERS = 'Results beside the paper', 'Results', 'What to expect of the released weights'


@pytest.mark.parametrize('task, expected', [
  ('hellaswag_llmc', {ALONE, OTHERS}), ('winograd', {BESIDE}), ('lambada', {BESIDE, OTHERS}),
  ('copa', set())])
def test_results_have_one_section_beside_the_papers_or_alone(tmp_path, task, expected):
  folder = write_run(tmp_path / 'run', '124M', tasks={task: {'accuracy': 0.5, 'centered': 0.2}}, records=[])
  results = json.loads((folder / 'results.json').read_text()) | {'not_run': {}, 'grids': {}}
  (folder / 'results.json').write_text(json.dumps(results))
  text = page.write([folder], tmp_path / 'out')[1].read_text()
  titles = re.findall(r'^## \d+ (.*)$', text, re.M)
  assert {title for title in (BESIDE, ALONE, OTHERS) if title in titles} == expected
