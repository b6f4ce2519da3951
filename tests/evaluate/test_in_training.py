"""Zero-shot tasks in the course of pretraining."""

import json

from conftest import SHARED, train

from gptjax.evaluate.tasks import suite


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
