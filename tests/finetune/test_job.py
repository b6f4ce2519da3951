"""The fine-tuning job as a user runs it: real processes and files, stopped and resumed."""

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys

import killing
import numpy as np
import pytest
from conftest import ENVIRONMENT, ROOT

from gptjax.finetune.results import RESULT
from gptjax.storage import checkpoint, ownership

WORDS = ['tree', 'walks', 'under', 'a', 'the', 'blue', 'stone', 'never', 'sings', 'of', 'rain']


@pytest.fixture(scope='module')
def reviews(tmp_path_factory):
  """TSV files of the task `reviews`: good and bad ones share no word."""
  folder = tmp_path_factory.mktemp('reviews')
  rng = random.Random(0)
  for name, n in (('train', 80), ('dev', 24), ('test', 10)):
    lines = ['text\tlabel']
    for _ in range(n):
      good = rng.random() < 0.5
      words = rng.choices(WORDS[:5] if good else WORDS[5:], k=rng.randint(2, 12))
      lines.append(f'{" ".join(words)}\t{("bad", "good")[good]}')
    (folder / f'{name}.tsv').write_text('\n'.join(lines) + '\n')
  return folder


def command(corpus, reviews, workdir, *flags):
  tiny = {'finetune.data_dir': reviews, 'finetune.pretrained': False, 'data.tokenizer': f'{corpus}/tokenizer',
          'model.n_layer': 2, 'model.n_head': 4, 'model.n_embd': 32, 'model.n_ctx': 24, 'train.epochs': 4.0,
          'train.batch_size': 8, 'optimizer.learning_rate': 0.003, 'eval.every_steps': 15, 'loss.chunk': 0,
          'checkpoint.every_steps': 4, 'log.every_steps': 1, 'log.tensorboard': False, 'finetune.buckets': 2,
          'finetune.group_by_length': True}
  return [sys.executable, '-m', 'gptjax.main', '--config=configs/gpt1_finetune.py:reviews',
          f'--workdir={workdir}', *(f'--config.{k}={v}' for k, v in tiny.items()), *flags]


def run(*arguments, timeout=200):
  return subprocess.run(command(*arguments), cwd=ROOT, capture_output=True, text=True, env=ENVIRONMENT,
                        timeout=timeout)


def records(workdir):
  """{(step, metric): value as hex} of metrics.jsonl."""
  found = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
  return {(record['step'], name): float(value).hex() for record in found for name, value in record.items()
          if name.startswith('eval/') or name in ('train/loss', 'train/grad_norm')}


@pytest.fixture(scope='module')
def undisturbed(corpus_folder, reviews, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('undisturbed')
  done = run(corpus_folder, reviews, workdir, '--predict')
  assert done.returncode == 0, done.stderr
  assert '| reviews | accuracy | 1 |' in done.stderr and 'Traceback' not in done.stderr
  return workdir


@pytest.mark.ci
def test_a_run_gives_results_a_table_and_predictions(undisturbed, reviews):
  found = json.loads((undisturbed / 'results.json').read_text())
  assert found['tasks']['reviews']['accuracy'] >= 0.7, 'it has begun to learn'
  best = found['runs']['reviews'][0]
  scores = {step: float.fromhex(value) for (step, name), value in records(undisturbed).items()
            if name == 'eval/accuracy'}
  assert set(scores) == {10, 15, 20, 30, 40} and best['step'] == max(scores, key=lambda s: (scores[s], -s))
  assert best['metrics']['accuracy'] == scores[best['step']]
  assert checkpoint.steps(undisturbed / 'checkpoints')[-1] == 40
  assert best['step'] in checkpoint.steps(undisturbed / 'checkpoints'), 'the best one is kept'
  lines = (undisturbed / 'predictions' / 'reviews.tsv').read_text().splitlines()
  truth = [line.split('\t')[1] for line in (reviews / 'test.tsv').read_text().splitlines()[1:]]
  assert lines[0] == 'index\tprediction'
  assert [line.split('\t')[0] for line in lines[1:]] == [str(i) for i in range(10)]
  assert np.mean([line.split('\t')[1] == label for line, label in zip(lines[1:], truth, strict=True)]) >= 0.6


@pytest.mark.ci
def test_missing_results_are_written_without_training_again(undisturbed, corpus_folder, reviews, tmp_path):
  workdir = shutil.copytree(undisturbed, tmp_path / 'run')
  for name in ('results.json', RESULT):
    (workdir / name).unlink()
  done = run(corpus_folder, reviews, workdir)
  assert done.returncode == 0 and 'training ended after step 40, which is saved' in done.stderr, done.stderr
  assert 'compiling' not in done.stderr
  found, before = (json.loads((folder / 'results.json').read_text()) for folder in (workdir, undisturbed))
  assert found['tasks'] == before['tasks'] and records(workdir) == records(undisturbed)


@pytest.mark.ci
def test_a_stopped_and_resumed_run_is_bit_identical(undisturbed, corpus_folder, reviews, tmp_path):
  for step, number, code in ((13, signal.SIGTERM, 75), (27, signal.SIGKILL, -signal.SIGKILL)):
    line = killing.instead_of_main(command(corpus_folder, reviews, tmp_path), 'line',
                                   f'{tmp_path}/metrics.jsonl', rf'"step": {step}\b.*"train/loss"', number)
    done = subprocess.run(line, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=200)
    assert done.returncode == code, done.stderr
    assert ('run the same command again to resume' in done.stderr) == (code == 75), done.stderr
  done = run(corpus_folder, reviews, tmp_path)
  assert done.returncode == 0 and 'resuming after step' in done.stderr, done.stderr
  assert records(tmp_path) == records(undisturbed)
  one, other = (checkpoint.read_manifest(folder / 'checkpoints' / '40') for folder in (tmp_path, undisturbed))
  assert one['arrays'] == other['arrays'], 'weights, moments and step, to the bit'


@pytest.mark.slow
def test_every_nth_step_is_kept_and_the_result_the_same(undisturbed, corpus_folder, reviews, tmp_path):
  done = run(corpus_folder, reviews, tmp_path, '--config.checkpoint.keep_period=7',
             '--config.checkpoint.keep=1', '--config.checkpoint.every_minutes=1e-6')
  assert done.returncode == 0, done.stderr
  assert {7, 14, 21, 28, 35, 40} <= set(checkpoint.steps(tmp_path / 'checkpoints'))
  assert len(checkpoint.steps(tmp_path / 'checkpoints')) <= 7, 'and the best'
  one, other = (checkpoint.read_manifest(folder / 'checkpoints' / '40') for folder in (tmp_path, undisturbed))
  assert one['arrays'] == other['arrays']


@pytest.mark.ci
def test_damaged_records_of_a_finished_run_change_no_result(undisturbed, corpus_folder, reviews, tmp_path):
  shutil.copytree(undisturbed, tmp_path, dirs_exist_ok=True)
  best = json.loads((tmp_path / 'result.json').read_text())
  lines = (tmp_path / 'metrics.jsonl').read_text().splitlines()
  number = next(i for i, line in enumerate(lines) if json.loads(line).keys() >= {'eval/score'}
                and json.loads(line)['step'] == best['step'])
  lines[number] = lines[number].replace('eval', 'evil')
  (tmp_path / 'metrics.jsonl').write_text('\n'.join(lines) + '\n')
  (tmp_path / 'result.json').write_text('{"seed": 0, "st')
  with ownership.own_folder(tmp_path):
    refused = run(corpus_folder, reviews, tmp_path)
  assert refused.returncode == 2 and f'in use by process {os.getpid()} on ' in refused.stderr
  done = run(corpus_folder, reviews, tmp_path)
  assert done.returncode == 0, done.stderr
  assert f'omitted: line {number + 1}\n' in done.stderr and 'result.json is damaged' in done.stderr
  assert json.loads((tmp_path / 'result.json').read_text()) == best


@pytest.mark.slow
def test_more_epochs_give_the_bits_of_a_run_long_from_the_start(corpus_folder, reviews, tmp_path):
  constant = '--config.optimizer.schedule=constant', '--config.optimizer.warmup_steps=3'
  for workdir, epochs in (('whole', 2.0), ('grown', 1.0), ('grown', 2.0)):
    done = run(corpus_folder, reviews, tmp_path / workdir, *constant, f'--config.train.epochs={epochs}')
    assert done.returncode == 0, done.stderr
  one, other = (checkpoint.read_manifest(tmp_path / name / 'checkpoints' / '20')
                for name in ('whole', 'grown'))
  assert one['arrays'] == other['arrays'] and records(tmp_path / 'whole') == records(tmp_path / 'grown')


BAD_ROWS = {
  'a label': ('train.tsv', 'blue stone\tugly\n',
              "split train.tsv, row 81: the label 'ugly' is not one of bad, good"),
  'no text': ('train.tsv', ' \tgood\n', "split train.tsv, row 81: the text of 'text' is empty"),
  'no label': ('dev.tsv', 'blue stone\t\n', 'split dev.tsv, row 25: no label'),
  'a short row': ('train.tsv', 'blue stone\n', "line 82 has 1 of 2 columns")}


@pytest.mark.parametrize('what', BAD_ROWS)
def test_bad_rows_are_reported_in_one_line(corpus_folder, reviews, tmp_path, what):
  file, row, says = BAD_ROWS[what]
  refused(corpus_folder, reviews, tmp_path, {file: (reviews / file).read_text() + row}, says)


def refused(corpus_folder, reviews, tmp_path, files, says, **changes):
  """Asserts that the job refuses a folder of TSV files with some replaced, or a config, in one line."""
  from configs import gpt1_finetune
  from gptjax.finetune.studies import run_job, with_changes
  for file in ('train.tsv', 'dev.tsv', 'test.tsv'):
    (tmp_path / file).write_text(files.get(file, (reviews / file).read_text()))
  config = with_changes(gpt1_finetune.get_config('reviews'), {
    'finetune.data_dir': str(tmp_path), 'finetune.pretrained': False, 'data.seq_len': 24,
    'data.tokenizer': f'{corpus_folder}/tokenizer', **changes})
  with pytest.raises(ValueError, match=r'^[^\n]*$') as error:
    run_job(config, tmp_path / 'run')
  assert says in str(error.value)
  assert not (tmp_path / 'run').exists(), 'nothing half-made'


@pytest.mark.parametrize('changes, says', [
  ({'finetune.tasks': ('sst',)}, "'sst' is not a task: did you mean sst2?"),
  ({'finetune.tasks': ()}, 'config.finetune.tasks is empty'),
  ({'finetune.train': 'some'}, "config.finetune.train = 'some' must be one of full, last, lora"),
  ({'finetune.train': 'last', 'finetune.last_layers': 13}, 'last_layers = 13 is more than the 12 layers'),
  ({'finetune.transfer_layers': 13}, 'transfer_layers = 13 must be from -1'),
  ({'finetune.buckets': 17}, 'config.finetune.buckets = 17 must be a whole number from 1 to 16'),
  ({'finetune.pretrained': True}, 'config.init_from is missing'),
  ({'data.tokenizer': ''}, 'the weights have no tokenizer'),
  ({'init_from': 'nowhere'}, 'nowhere is not a folder'),
  ({'finetune.data_dir': 'nowhere'}, "config.finetune.data_dir = 'nowhere' is not a folder"),
  ({'checkpoint.keep_period': 5, 'checkpoint.keep_period_weights_only': True}, 'is for pretraining'),
  ({'model.architecture': 'lstm', 'finetune.train': 'lora'}, 'needs a Transformer')])
def test_a_config_that_cannot_run_is_refused(corpus_folder, reviews, tmp_path, monkeypatch, changes, says):
  monkeypatch.chdir(tmp_path)  # TFDS makes the folder that it is told to look in
  refused(corpus_folder, reviews, tmp_path, {}, says, **changes)


def test_a_missing_data_set_is_reported(corpus_folder, reviews, tmp_path, monkeypatch):
  from tensorflow_datasets.core import dataset_builder
  def offline(*args, **kwargs):
    raise ConnectionError('no network')
  monkeypatch.chdir(tmp_path)  # TFDS makes the folder that it is told to look in
  monkeypatch.setattr(dataset_builder.DatasetBuilder, 'download_and_prepare', offline)
  refused(corpus_folder, reviews, tmp_path, {}, 'data set glue/rte is not in nowhere',
          **{'finetune.tasks': ('rte',), 'data.tfds_dir': 'nowhere'})


@pytest.mark.slow
def test_two_processes_are_one_run(undisturbed, corpus_folder, reviews, tmp_path):
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    port = free.getsockname()[1]
  flags = [f'--coordinator=127.0.0.1:{port}', '--num_processes=2', '--predict']
  both = [subprocess.Popen(command(corpus_folder, reviews, tmp_path, *flags, f'--process_id={i}'), cwd=ROOT,
                           env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) for i in range(2)]
  said = [process.communicate(timeout=250)[1] for process in both]
  assert [process.returncode for process in both] == [0, 0], said
  for key, value in records(undisturbed).items():
    if key[1] == 'train/loss' and key[0] <= 10:
      assert float.fromhex(records(tmp_path)[key]) == pytest.approx(float.fromhex(value), rel=1e-3)
  assert (tmp_path / 'predictions' / 'reviews.tsv').exists()
  assert json.loads((tmp_path / 'results.json').read_text())['tasks']['reviews']['accuracy'] >= 0.7
