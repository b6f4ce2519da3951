"""The evaluation job: its output files, its messages about missing data, and resuming after a kill."""

import json
import re
import signal
import socket
import subprocess
import sys

import jax
import killing
import pytest
from conftest import ENVIRONMENT, ROOT, SHARED, mesh_of
from task_judge import Judge, make

import gptjax
from configs import gpt2_zero_shot
from gptjax.evaluate.run import TASK_FIELDS, Results, evaluate, weights_digest
from gptjax.evaluate.scoring import scores
from gptjax.evaluate.scoring.evaluated_model import TaskResult
from gptjax.evaluate.tasks import suite
from gptjax.evaluate.tasks.lambada import split_last_word
from gptjax.storage import ownership


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  if not SHARED.is_dir():
    pytest.skip(f'needs the data folder {SHARED}')
  with mesh_of():
    return make(tmp_path_factory.mktemp('model'), SHARED)


def config_of(folder, **changes):
  config = gpt2_zero_shot.get_config()
  config.init_from = str(folder)
  config.data.tfds_dir = str(SHARED / 'tfds')
  config.eval.update(dict(tasks='winograd,ptb,lambada', data_dir=str(SHARED), limit=12, batch_size=4))
  config.eval.update(changes)
  return config


def read(workdir):
  return json.loads((workdir / 'results.json').read_text())


@pytest.fixture(scope='module')
def done(folder, tmp_path_factory):
  """A workdir after three tasks, one of which cannot run; on all eight devices."""
  workdir = tmp_path_factory.mktemp('run')
  assert evaluate(config_of(folder), workdir) == 0
  return workdir


def test_results_examples_and_table_are_written_to_the_workdir(done):
  found = read(done)
  assert found['tasks'].keys() == {'winograd', 'lambada'}
  values = [value for metrics in found['tasks'].values() for value in metrics.values()]
  assert values and all(isinstance(value, int | float) for value in values)
  assert len(found['grids']['lambada']) == 12 and found['limit'] == 12
  lines = (done / 'examples' / 'lambada.jsonl').read_text().splitlines()
  assert len(lines) == 12 and json.loads(lines[0]).keys() >= {'text', 'nats', 'correct'}
  answers = (done / 'answers' / 'lambada.jsonl').read_text().splitlines()
  assert len(answers) >= 12 and found['limits'] == {'winograd': 12, 'lambada': 12}
  stored = json.loads((done / 'config.json').read_text())['config']
  assert stored['model']['n_layer'] == 2 and stored['model']['compute_dtype'] == 'float32'


def test_a_task_without_data_has_no_metric_and_says_where_to_get_the_data(done):
  found, table = read(done), (done / 'results.md').read_text()
  assert re.fullmatch(r'Penn Treebank is missing: put ptb.test.txt from https://\S+ into the folder '
                      '--config.eval.data_dir', found['not_run']['ptb'])
  row = next(line for line in table.splitlines() if line.startswith('| Penn Treebank'))
  assert row == '| Penn Treebank, perplexity | not run | 65.85 | 47.33 | 40.31 | 35.76 | 46.54 |'
  assert 'Only the first 12 examples' in table and '| LAMBADA, perplexity |' in table


@pytest.mark.ci
def test_results_do_not_depend_on_the_mesh(folder, done, tmp_path):
  config = config_of(folder, tasks='winograd,lambada')
  config.mesh.update(dict(data=2, fsdp=2, tensor=2))
  assert evaluate(config, tmp_path) == 0
  ours, theirs = (read(one)['tasks'] for one in (tmp_path, done))
  for task, metrics in theirs.items():
    for name, value in metrics.items():
      exact = isinstance(value, int) or 'accuracy' in name
      assert ours[task][name] == (value if exact else pytest.approx(value, rel=1e-5)), (task, name)


@pytest.mark.ci
def test_additional_tasks_are_run_and_finished_ones_are_not(folder, done, capfd):
  before = read(done)
  assert evaluate(config_of(folder, tasks='lambada,natural_questions', limit=12), done) == 0
  said, warned = capfd.readouterr()
  assert 'restored' not in warned  # the shape, which is that of the weights
  kept = next(line for line in said.splitlines() if line.startswith('lambada '))
  assert re.match(r'lambada +kept  perplexity [\d.e+]+  accuracy_last_word_filtered [\d.]+ %', kept)
  assert kept.endswith('  examples 12')
  assert 'correct_' not in kept and re.search(r'natural_questions +\d+\.\d s  exact_match ', said)
  after = read(done)
  assert after['tasks'].keys() == {'winograd', 'lambada', 'natural_questions'}
  assert after['tasks']['lambada'] == before['tasks']['lambada']
  assert '| question | answer | correct | probability |' in (done / 'results.md').read_text()


@pytest.mark.parametrize('changes, says', [
  ({'tasks': 'lambda'}, "has 'lambda', which is not a task: did you mean lambada"),
  ({'tasks': ''}, 'eval.tasks is empty'), ({'limit': -1}, 'limit = -1')])
def test_an_invalid_config_raises_an_error(folder, tmp_path, changes, says):
  with pytest.raises(ValueError, match=says):
    evaluate(config_of(folder, **changes), tmp_path / 'run')
  assert not (tmp_path / 'run').exists()


def test_results_of_a_changed_protocol_are_measured_again(folder, tmp_path, capfd):
  config = lambda: config_of(folder, tasks='winograd,lambada', limit=3, grid=False)
  assert evaluate(config(), tmp_path) == 0
  new = read(tmp_path)
  assert new['version'] == 2
  old = {name: value for name, value in new.items() if name not in ('crc32', 'version', 'notes')}
  old['tasks'] = {task: {**metrics, 'examples': 99} for task, metrics in new['tasks'].items()}
  (tmp_path / 'results.json').write_text(json.dumps(old))
  assert evaluate(config(), tmp_path) == 0
  assert 'lambada: its protocol has changed since an earlier version measured it' in capfd.readouterr().out
  found = read(tmp_path)
  assert found['tasks'] == {'winograd': old['tasks']['winograd'], 'lambada': new['tasks']['lambada']}
  (tmp_path / 'results.json').write_text(json.dumps({**old, 'version': 3}))
  with pytest.raises(ValueError, match='has version 3'):
    evaluate(config(), tmp_path)


def test_a_smaller_limit_or_other_weights_need_another_workdir(folder, done):
  with pytest.raises(ValueError, match=r'config\.eval\.limit = 12, not 11: it can only grow'):
    evaluate(config_of(folder, limit=11), done)
  stored = read(done)
  del stored['crc32']
  (done / 'results.json').write_text(json.dumps(stored | {'weights': '0' * 64}))
  with pytest.raises(ValueError, match='results of other weights'):
    evaluate(config_of(folder), done)
  (done / 'results.json').write_text(json.dumps(stored))


def test_a_larger_limit_scores_only_the_additional_examples(folder, tmp_path, capfd, monkeypatch):
  few, many = (config_of(folder, tasks='lambada', limit=limit, grid=False) for limit in (5, 9))
  assert evaluate(few, tmp_path / 'grown') == 0
  with pytest.raises(ValueError, match='in use by process'), ownership.own_folder(tmp_path / 'grown'):
    evaluate(config_of(folder, tasks='lambada', limit=9), tmp_path / 'grown')
  asked, score = [], scores.score_requests
  monkeypatch.setattr(scores, 'score_requests', lambda model, requests, *rest, known, **named: asked.append(
    (len(requests), len(known))) or score(model, requests, *rest, known=known, **named))
  assert evaluate(many, tmp_path / 'grown') == 0
  assert asked == [(9, 5)] and 'resuming after 5 answers' in capfd.readouterr().out
  assert evaluate(config_of(folder, tasks='lambada', limit=9, grid=False), tmp_path / 'whole') == 0
  grown, whole = read(tmp_path / 'grown'), read(tmp_path / 'whole')
  assert grown['tasks'] == {'lambada': pytest.approx(whole['tasks']['lambada'], rel=1e-5)}
  assert grown['limits'] == {'lambada': 9}
  stored = json.loads((tmp_path / 'grown' / 'config.json').read_text())
  assert stored['config']['eval']['limit'] == 9
  assert [entry['changed'] for entry in stored['history']] == [{'eval.limit': [5, 9]}]


def test_a_new_result_replaces_all_parts_of_the_earlier_one():
  results = object.__new__(Results)
  results._active = False
  results.content = {part: {} for part in (*TASK_FIELDS, 'limits', 'notes')} | {'limit': 9}
  cell = {'text': 'raw', 'stride': None, 'unit': 'word', 'value': 9.0, 'paper': True}
  found = TaskResult({'perplexity': 9.0}, 'how', (cell,), (('head',), ('row',)))
  results.add(suite.TASKS['ptb'], found, 1.0, ['odd'])
  assert all(results.content[part]['ptb'] for part in ('grids', 'rows', 'protocols', 'notes'))
  results.add(suite.TASKS['ptb'], TaskResult({'perplexity': 8.0}, ''), 1.0)
  assert results.content['tasks'] == {'ptb': {'perplexity': 8.0}}
  assert not any(results.content[part] for part in ('grids', 'rows', 'protocols', 'notes'))


def test_damaged_results_and_answers_are_computed_again(folder, done, tmp_path, capfd):
  config = lambda: config_of(folder, tasks='winograd', limit=4)
  assert evaluate(config(), tmp_path) == 0
  before = read(tmp_path)['tasks']
  answers = tmp_path / 'answers' / 'winograd.jsonl'
  for path in tmp_path / 'results.json', answers:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
  assert evaluate(config(), tmp_path) == 0
  said = capfd.readouterr().out
  assert 'results.json is damaged' in said and f'{answers}: 1 damaged' in said
  assert read(tmp_path)['tasks'] == {'winograd': pytest.approx(before['winograd'], rel=1e-5)}


def test_answers_of_other_weights_are_not_used(folder, tmp_path, capfd):
  """The results are gone, for a user wants the task to run again; the answers are still there."""
  config = lambda weights: config_of(weights, tasks='winograd', limit=4)
  weights = tmp_path / 'other'
  with mesh_of():
    model, tokenizer = gptjax.load(folder)
    model.wte[...] = model.wte[...][::-1]
    gptjax.save_pretrained(model, tokenizer, weights)
  assert evaluate(config(folder), tmp_path / 'run') == 0
  (tmp_path / 'run' / 'results.json').unlink()
  assert evaluate(config(weights), tmp_path / 'run') == 0 and evaluate(config(weights), tmp_path / 'new') == 0
  assert 'resuming' not in capfd.readouterr().out
  assert read(tmp_path / 'run')['tasks'] == read(tmp_path / 'new')['tasks']


def test_the_digest_of_weights_depends_on_values_and_positions_not_on_the_mesh():
  import numpy as np
  values = np.arange(64, dtype=np.float32).reshape(8, 8)
  digests = set()
  for change in (values, values.T.copy(), values + np.eye(8, dtype=np.float32)[::-1]):
    for axes in ({}, {'fsdp': 4}):
      with mesh_of(**axes):
        params = {'a': jax.device_put(change, jax.P(None, 'fsdp'))}
        digests.add(weights_digest(params))
  assert len(digests) == 3


def command(folder, workdir, *flags):
  return [sys.executable, '-m', 'gptjax.main', '--config=configs/gpt2_zero_shot.py', f'--workdir={workdir}',
          f'--config.init_from={folder}', f'--config.eval.data_dir={SHARED}', '--config.eval.tasks=lambada',
          '--config.eval.limit=600', '--config.eval.grid=False', '--config.eval.batch_size=2', *flags]


def start(line):
  return subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          env={**ENVIRONMENT, 'JAX_NUM_CPU_DEVICES': '2'})


def test_a_shorter_context_is_as_if_the_model_had_no_longer_one(folder, tmp_path):
  assert evaluate(config_of(folder, tasks='lambada', n_ctx=24, grid=False), tmp_path / 'run') == 0
  judge = Judge(folder)
  judge.n_ctx = 24
  for line in (tmp_path / 'run' / 'examples' / 'lambada.jsonl').read_text().splitlines():
    one = json.loads(line)
    log_probs, *_ = judge.continuation(*split_last_word(one['text']))
    assert one['nats'] == pytest.approx(-log_probs.sum(), rel=1e-4)
  assert read(tmp_path / 'run')['model']['n_ctx'] == 24
  with pytest.raises(ValueError, match=r'config\.eval\.n_ctx = 257 is longer .* of the model, 256'):
    evaluate(config_of(folder, n_ctx=257), tmp_path / 'longer')


@pytest.mark.ci
@pytest.mark.parametrize('number, code', [
  (signal.SIGTERM, 75), pytest.param(signal.SIGKILL, -9, marks=pytest.mark.slow)])
def test_a_stopped_run_resumes_with_the_same_results(folder, tmp_path, number, code):
  journal, line = tmp_path / 'cut' / 'answers' / 'lambada.jsonl', command(folder, tmp_path / 'cut')
  process = start(killing.instead_of_main(line, 'change', journal, 25, number))  # half an answer is written
  out, err = process.communicate(timeout=200)
  assert process.returncode == code, err
  kept = journal.read_text().count('\n')
  assert 20 < kept < 600
  assert code == -9 or 'run the same command to resume' in err
  out, err = start([*line, '--config.eval.batch_size=16']).communicate(timeout=200)
  assert f'resuming after {kept:,} answers' in out, err
  config = config_of(folder, tasks='lambada', limit=600, grid=False, batch_size=32)
  assert evaluate(config, tmp_path / 'whole') == 0
  cut, whole = (read(tmp_path / name)['tasks']['lambada'] for name in ('cut', 'whole'))
  assert cut == {name: value if isinstance(value, int) else pytest.approx(value, rel=1e-5)
                 for name, value in whole.items()}


@pytest.mark.slow
def test_two_processes_give_the_results_of_one(folder, tmp_path):
  with socket.create_server(('127.0.0.1', 0)) as server:
    port = server.getsockname()[1]
  flags = '--config.eval.tasks=winograd,natural_questions,ptb', '--config.eval.limit=10'
  running = [start(command(folder, tmp_path / 'two', *flags, f'--coordinator=127.0.0.1:{port}',
                           '--num_processes=2', f'--process_id={i}')) for i in range(2)]
  for process in running:
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
  assert evaluate(config_of(folder, tasks='winograd,natural_questions', limit=10), tmp_path / 'one') == 0
  two, one = (read(tmp_path / name)['tasks'] for name in ('two', 'one'))
  assert two == {task: {name: pytest.approx(value, rel=1e-5) for name, value in metrics.items()}
                 for task, metrics in one.items()}
