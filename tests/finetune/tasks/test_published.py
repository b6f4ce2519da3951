"""Every fine-tuning task on small copies of its published data set, with irregular rows."""

import json
import shutil

import numpy as np
import pytest
from conftest import tiny_config
from finetune import published

from configs import gpt1_finetune
from gptjax.data.tokenizers import loading
from gptjax.finetune import data, glue, job, results, studies
from gptjax.finetune.tasks import examples
from gptjax.finetune.tasks import published as tasks
from gptjax.storage.files import records

TASKS = [name for name, task in tasks.TASKS.items() if isinstance(task.train[0], examples.PUBLISHED)]
LABELLED = {'snli', 'scitail', 'race', 'story_cloze'}


@pytest.fixture(scope='module')
def sets(tmp_path_factory):
  return published.write(tmp_path_factory.mktemp('published'))


def config_of(names, sets, corpus, **changes):
  """GPT-1's own config for these tasks, with a tiny model."""
  config = gpt1_finetune.get_config(','.join(names))
  tiny = {'model.n_layer': 1, 'model.n_head': 2, 'model.n_embd': 16, 'model.n_ctx': 64, 'train.epochs': 1.0,
          'train.batch_size': 8, 'finetune.buckets': 1, 'finetune.pretrained': False,
          'log.tensorboard': False, 'data.tokenizer': f'{corpus}/tokenizer', 'data.tfds_dir': sets,
          'checkpoint.every_steps': 0, 'finetune.story_cloze_split': 'tfds'}
  return studies.with_changes(config, {**tiny, **changes})


@pytest.mark.first_cases(3)
@pytest.mark.parametrize('name', TASKS)
def test_a_published_set_is_read_as_published(name, sets, corpus_folder):
  config = tiny_config(**{'data.tfds_dir': sets, 'finetune.predict': True, 'model.n_ctx': 64,
                          'finetune.story_cloze_split': 'tfds'})
  tokenizer = loading.load(f'{corpus_folder}/tokenizer')
  found = data.load(name, tasks.find(name), tokenizer, config)
  odd = {'qqp': (2, 0), 'race': (6, 0), 'snli': (0, 1)}.get(name, (0, 0))
  assert (found.train.n_empty, found.train.n_unlabelled) == odd
  n = sum(len(part) for source in found.task.train for part in rows(name, source))
  assert len(found.train.index) + found.train.n_unlabelled == n
  assert set(found.test) == set(found.task.test), 'all of them are predicted'
  assert bool(found.label_masks) == (name in LABELLED)
  if name == 'snli':
    n_labelled = found.label_masks['SNLI'].sum()
    assert (len(found.test['SNLI'].index), n_labelled) == (4, 3), 'but scored where labelled'
  every = [found.train, *found.validation.values(), *found.test.values()]
  assert all((one.lengths >= 2).all() for one in every), 'marks, even around an empty text'


def rows(name, source):
  """[[record, ...] of each row] that the fixture has in a source."""
  source = getattr(source, 'in_tfds', source)
  split, _, part = source.split.partition('[')
  found = published.SETS[source.name][split]
  found = found[:len(found) * 4 // 5] if part else found
  return [tasks.find(name).unfold(row) if name == 'race' else [row] for row in found]


def test_files_of_ones_own_have_no_empty_text_and_no_missing_label(tmp_path):
  from types import SimpleNamespace
  config = SimpleNamespace(finetune=SimpleNamespace(data_dir=str(tmp_path)))
  task = tasks.find('qqp')._replace(label='is_duplicate')
  for row, says in (('Where?\t\t0', "row 1: the text of 'question2' is empty"),
                    ('a\tb\t-1', 'row 1: no label')):
    (tmp_path / 'q.tsv').write_text(f'question1\tquestion2\tis_duplicate\n{row}\nx\ty\t0\n')
    task = task._replace(classes=('0', '1'))
    with pytest.raises(ValueError, match=says):
      examples.read('qqp', task, examples.Tsv('q.tsv'), config, require_labels=True)


@pytest.mark.slow
def test_test_sets_with_labels_are_scored(sets, corpus_folder, tmp_path, capsys):
  config = config_of(('snli', 'qqp'), sets, corpus_folder)
  assert studies.run_job(config, tmp_path / 'run') == 0
  said = capsys.readouterr().err
  assert 'training: 6 examples, none truncated, 2 with an empty text' in said
  assert 'training: 3 examples, none truncated, 1 more without a label skipped' in said
  assert 'test SNLI: 4 examples, none truncated, 3 of them with a label' in said
  found = json.loads((tmp_path / 'run' / 'results.json').read_text())
  assert found['version'] == results.VERSION and found['paper']['snli'] == {'accuracy': 0.899}
  assert set(found['tasks']['snli']) == {'test/accuracy', 'accuracy'}
  assert set(found['tasks']['qqp']) == {'f1', 'accuracy'}, 'GLUE publishes no labels'
  assert all(0 <= value <= 1 for metrics in found['tasks'].values() for value in metrics.values())
  again(config_of(('snli', 'qqp'), sets, corpus_folder), tmp_path / 'run', found)


def test_scores_of_several_test_sets_are_named_as_those_of_validation(sets, corpus_folder):
  """And the table says what is validation and what is test."""
  config = tiny_config(**{'data.tfds_dir': sets, 'model.n_ctx': 64})
  race = data.load('race', tasks.find('race'), loading.load(f'{corpus_folder}/tokenizer'), config)
  right = {file: np.eye(4)[one.labels.astype(int)] for file, one in race.test.items()}
  tested = results.test_scores(race, right | {'RACE-h': np.eye(4)[[1] * 9]})
  assert tested == {'test/accuracy/m': 1, 'test/accuracy/h': 0, 'test/accuracy/all': 0.5}, 'B is never right'
  run = {'metrics': {'accuracy/m': 0.25, 'accuracy/h': 0.5, 'accuracy/all': 0.375, **tested}}
  table = results.table(results.collect({'race': [run]}, {'race': race.task.paper}))
  head, rule, line, *_ = table.splitlines()
  heads, cells = ([cell.strip() for cell in one.strip('|').split('|')] for one in (head, line))
  assert len(cells) == len(heads) == rule.count('---')
  shown = dict(zip(heads, cells))
  assert shown['metric'] == 'accuracy/m' and shown['validation, mean'] == '25.0'
  assert shown['test, mean'] == '100.0' and shown['paper (test)'] == '62.9'


def shown_in(table):
  """{metric: {head: cell}} of a table of one task."""
  lines = [[cell.strip() for cell in line.strip('|').split('|')] for line in table.splitlines()
           if line.startswith('|')]
  return {line[1]: dict(zip(lines[0], line, strict=True)) for line in lines[2:]}


OWN = dict(name='own', kind='classification', texts=('text',), label='label', classes=('bad', 'good'),
           metrics=('accuracy',), train='train.tsv')
VALIDATION, ANOTHER, ONLY = {'easy': 'a.tsv', 'hard': 'b.tsv'}, {'extra': 'c.tsv'}, 'd.tsv'


@pytest.mark.parametrize('validation, test, names, main', [
  (VALIDATION, {'hard': 'x.tsv', 'easy': 'y.tsv'}, {'hard': 'hard', 'easy': 'easy'}, 'accuracy/all'),
  (VALIDATION, {'hard': 'x.tsv'}, {'hard': 'hard'}, 'accuracy/all'),
  (VALIDATION, ONLY, {'own': ''}, 'accuracy/all'),
  (ONLY, ONLY, {'own': ''}, 'accuracy'), (ONLY, ANOTHER, {'extra': ''}, 'accuracy'),
  (ONLY, VALIDATION, {'easy': 'easy', 'hard': 'hard'}, 'accuracy'),
  ({'easy': 'a.tsv'}, {'easy': 'y.tsv'}, {'easy': 'easy'}, 'accuracy/easy'),
  (VALIDATION, {**ANOTHER, 'easy': 'y.tsv'}, {'extra': 'extra', 'easy': 'easy'}, 'accuracy/all')])
def test_test_sets_belong_to_the_validation_set_of_their_name(validation, test, names, main):
  """Whatever their order and number, every score stands in the table, once."""
  task = tasks.find('own', (dict(OWN, validation=validation, test=test),))
  assert task.test_metric_names() == names and results.main_metric(task) == main
  scored = lambda some: [f'accuracy/{name}'.rstrip('/') for name in (*some, *['all'] * (len(some) > 1))]
  run = {'metrics': {name: 0.5 for name in scored(task.validation)}}
  assert main in run['metrics']
  ours = {name: 0.1 + i / 8 for i, name in enumerate(scored(names.values()))}
  run['metrics'] |= {f'test/{name}': value for name, value in ours.items()}
  shown = shown_in(results.table(results.collect({'own': [run]}, {'own': {}})))
  assert {name: row['test, mean'] for name, row in shown.items() if row['test, mean'] != '-'} == {
    name: f'{100 * value:.1f}' for name, value in ours.items()}
  assert [name for name, row in shown.items() if row['validation, mean'] == '50.0'] == scored(task.validation)


def test_test_sets_of_the_papers_tasks_belong_to_a_validation_set():
  for name, task in tasks.TASKS.items():
    named = [name for file, name in task.test_metric_names().items() if file != 'AX']
    assert named == list(task.validation) or not task.test, name


def test_only_labelled_rows_of_a_test_set_are_scored(sets, corpus_folder):
  config = tiny_config(**{'data.tfds_dir': sets, 'model.n_ctx': 64})
  snli = data.load('snli', tasks.find('snli'), loading.load(f'{corpus_folder}/tokenizer'), config)
  labels = snli.test['SNLI'].labels
  outputs = np.eye(3)[np.nan_to_num(labels).astype(int)]
  assert np.isnan(labels).sum() == 1 and results.test_scores(snli, {'SNLI': outputs}) == {'test/accuracy': 1}


def test_the_padded_widths_are_those_that_the_config_asks_for(sets, corpus_folder):
  tokenizer = loading.load(f'{corpus_folder}/tokenizer')

  def widths(buckets, multiple, saving):
    config = tiny_config(**{'data.tfds_dir': sets, 'model.n_ctx': 64, 'finetune.buckets': buckets,
                            'finetune.width_multiple': multiple, 'finetune.width_saving': saving})
    return data.load('snli', tasks.find('snli'), tokenizer, config).widths

  all_widths = widths(16, 1, 0.0)
  assert len(all_widths) > 2 and any(width % 8 for width in all_widths)
  assert widths(16, 1, 1.0) == all_widths[-1:] and len(widths(2, 1, 0.0)) == 2
  assert all(width % 8 == 0 for width in widths(16, 8, 0.0))


def again(config, workdir, found):
  """A finished workdir of version 0.1.0: per cent in result.json, no test figures. It gets today's."""
  path = workdir / 'snli' / 'result.json'
  old = json.loads(path.read_text())
  del old['version'], old['crc32'], old['empty']
  old['metrics'] = {name: 100 * value for name, value in old['metrics'].items() if 'test' not in name}
  path.write_text(json.dumps(old))
  lines = (workdir / 'snli' / 'metrics.jsonl').read_text().splitlines()
  for number, line in enumerate(lines):
    record = json.loads(line)
    record.pop('crc32', None)
    lines[number] = json.dumps({name: value * 100 if name.startswith('eval/acc') else value
                                for name, value in record.items()})
  (workdir / 'snli' / 'metrics.jsonl').write_text('\n'.join(lines) + '\n')
  assert studies.run_job(config, workdir) == 0
  now = json.loads((workdir / 'results.json').read_text())
  assert now['tasks']['snli'] == pytest.approx(found['tasks']['snli'])
  assert now['tasks']['qqp'] == found['tasks']['qqp']


@pytest.mark.ci
def test_the_diagnostic_set_of_glue_is_predicted_by_the_model_of_mnli(sets, corpus_folder, tmp_path):
  config = config_of(('mnli',), sets, corpus_folder, **{'finetune.predict': True})
  assert studies.run_job(config, tmp_path / 'run') == 0
  files = {path.stem: path.read_text() for path in (tmp_path / 'run' / 'predictions').iterdir()}
  assert files.keys() == {'MNLI-m', 'MNLI-mm', 'AX'}
  assert glue.fault('AX', files['AX']) == f'it has {len(published.HIDDEN)} rows, not 1,104', 'else valid'
  assert set(json.loads((tmp_path / 'run' / 'results.json').read_text())['tasks']['mnli']) == {
    'accuracy/m', 'accuracy/mm', 'accuracy/all'}


@pytest.mark.slow
def test_all_tasks_are_fine_tuned(sets, corpus_folder, tmp_path):
  config = config_of(TASKS, sets, corpus_folder)
  config.finetune.predict = True
  assert studies.run_job(config, tmp_path / 'run') == 0
  found = results.read(tmp_path / 'run' / 'results.json')
  assert set(found['tasks']) == set(TASKS)
  for name, metrics in found['tasks'].items():
    assert any(metric.startswith('test/') for metric in metrics) == (name in LABELLED)
  files = {path.stem for path in (tmp_path / 'run' / 'predictions').iterdir()}
  assert files == {file for name in TASKS for file in tasks.find(name).test}


def test_a_results_file_of_an_older_version_is_read(tmp_path):
  old = {'tasks': {'rte': {'accuracy': 56.0}}, 'paper': {'rte': {'accuracy': 56.0}},
         'runs': {'rte': [{'seed': 0, 'metrics': {'accuracy': 56.0}, 'train_metrics': {'accuracy': 60.0}}]}}
  (tmp_path / 'old.json').write_text(json.dumps(old))
  found = results.read(tmp_path / 'old.json')
  assert found['tasks'] == {'rte': {'accuracy': 0.56}} and found['paper'] == {'rte': {'accuracy': 0.56}}
  assert found['runs']['rte'][0]['train_metrics'] == {'accuracy': 0.6}
  (tmp_path / 'new.json').write_text(json.dumps({**found, 'version': 9}))
  with pytest.raises(ValueError, match=r'new\.json is of version 9'):
    results.read(tmp_path / 'new.json')


def test_an_evaluation_of_any_version_is_read_as_fractions():
  of_cola = data.TaskData('cola', tasks.find('cola'), None, {}, {}, [])
  wanted = {'matthews': 0.25, 'accuracy': 0.7}
  for record in ({'eval/score': 25.0, 'eval/matthews': 0.25, 'eval/accuracy': 0.7, 'step': 1},
                 {'eval/score': 25.0, 'eval/matthews': 25.0, 'eval/accuracy': 70.0, 'step': 1}):
    assert results.metrics_of_record(of_cola, record) == pytest.approx(wanted)
  for accuracy in (0.7, 70.0):
    record = {'eval/score': 0.0, 'eval/matthews': 0.0, 'eval/accuracy': accuracy}
    assert results.metrics_of_record(of_cola, record) == pytest.approx({'matthews': 0, 'accuracy': 0.7})
  text = data.TaskData('text', tasks.find('text'), None, {}, {}, [])
  record = {'eval/score': -31.0, 'eval/perplexity': 31.0}
  assert results.metrics_of_record(text, record) == {'perplexity': 31.0}


def test_a_figure_of_another_version_of_a_set_is_not_printed():
  found = results.collect({'qnli': [{'metrics': {'accuracy': 0.5}}]}, {'qnli': tasks.find('qnli').paper})
  table = results.table(found, {'qnli': tasks.find('qnli').note})
  assert '| 50.0 |' in table and r'| -\* |' in table and 'QNLI v1' in table.splitlines()[-1]
  of = {name: tasks.find(name) for name in ('rte', 'qnli')}
  table = studies.ablation_table({'aux LM': {name: {'accuracy': 0.5} for name in of}}, of)
  assert '| aux LM, the paper (test) | 56.0 | 56.0 | - |' in table and 'QNLI v1' in table.splitlines()[-1]
  assert '| aux LM, validation | 50.0 | 50.0 | 50.0 |' in table


@pytest.mark.ci
def test_the_papers_order_is_random_and_an_old_workdir_keeps_its_own(sets, corpus_folder, tmp_path, capsys):
  config = config_of(('rte',), sets, corpus_folder)
  assert not config.finetune.group_by_length
  assert studies.run_job(config, tmp_path / 'run') == 0
  assert 'batches random' in capsys.readouterr().err
  stored = records.read(tmp_path / 'run' / 'config.json')
  del stored['config']['finetune']['group_by_length']
  shutil.rmtree(tmp_path / 'run')
  (tmp_path / 'run').mkdir()
  (tmp_path / 'run' / 'config.json').write_text(records.text(stored))
  assert job.finetune(config_of(('rte',), sets, corpus_folder), tmp_path / 'run') == 0
  said = capsys.readouterr().err
  assert 'config.finetune.group_by_length = True' in said and 'batches bucketed by length' in said
