"""Zero-shot tasks in the course of pretraining."""

import json

import core_bundle
import pytest
from conftest import SHARED, train

from gptjax.evaluate.core.tasks import TABLE
from gptjax.evaluate.tasks import suite


@pytest.mark.ci
def test_chosen_tasks_run_every_so_many_steps_and_what_cannot_is_said(corpus_folder, tmp_path, shared_data):
  done = train(corpus_folder, tmp_path, '--config.eval.tasks=wikitext2,ptb,winograd', '--config.eval.limit=4',
               f'--config.eval.data_dir={SHARED}', '--config.train.steps=20')
  assert done.returncode == 0, done.stderr
  assert 'ptb is not run: Penn Treebank is missing' in done.stderr
  assert done.stderr.count('winograd is not run') == 1 and 'longer context' in done.stderr
  records = [json.loads(line) for line in (tmp_path / 'metrics.jsonl').read_text().splitlines()]
  found = {record['step']: record for record in records if 'eval/tasks' in record}
  assert found.keys() == {10, 20}
  for record in found.values():
    assert record['eval/wikitext2/perplexity'] > 1
    assert not any(name.startswith(('eval/ptb', 'eval/winograd')) for name in record)
  assert found[10]['eval/wikitext2/perplexity'] != found[20]['eval/wikitext2/perplexity']
  assert found[10]['eval/wikitext2/words'] == found[20]['eval/wikitext2/words']


def test_the_suite_of_the_config_is_the_whole_suite():
  from configs import gpt2_zero_shot
  names = gpt2_zero_shot.get_config().eval.tasks
  assert [task.name for task in suite.parse_tasks(names)] == list(suite.TASKS) == names.split(',')


@pytest.mark.slow
def test_core_is_logged_beside_the_loss_in_bits_per_byte(corpus_folder, tmp_path):
  data = core_bundle.write(tmp_path / 'data', [task for task in TABLE if task.label in ('copa', 'winograd')])
  done = train(corpus_folder, tmp_path / 'run', '--config.eval.tasks=core', '--config.eval.limit=4',
               f'--config.eval.data_dir={data}', '--config.train.steps=10', '--config.eval.every_steps=5',
               '--config.model.n_ctx=64', timeout=250)
  assert done.returncode == 0, done.stderr
  assert 'bits/byte' in done.stderr and 'of 2 of the 22 tasks of CORE' in done.stderr
  assert 'squad is not run: squad of CORE is missing' in done.stderr
  records = [json.loads(line) for line in (tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines()]
  found = {record['step']: record for record in records if 'eval/tasks' in record}
  assert found.keys() == {5, 10}
  for record in found.values():
    centred = record['eval/copa/centered'], record['eval/core_winograd/centered']
    assert record['eval/core/mean_of_tasks_run'] == pytest.approx(sum(centred) / 2)
    assert record['eval/copa/examples'] == 4 and record['eval/core/tasks_run'] == 2
    assert 'eval/core/core' not in record
  held_out = [record for record in records if 'eval/loss' in record]
  assert held_out and all(record['eval/bits_per_byte'] > 0 for record in held_out)
