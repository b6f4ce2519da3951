"""Weights & Biases: the same metrics, one run over restarts, and a failure that never ends a run."""

import json
import sys
import types

import pytest

from gptjax.report import telemetry


class Fake(types.ModuleType):
  """The part of the package that is used; `fails` names a call that raises."""

  def __init__(self, fails=''):
    super().__init__('wandb')
    self.fails, self.calls, self.logged, self.options = fails, [], [], []

  def called(self, name):
    self.calls.append(name)
    if name == self.fails:
      raise RuntimeError(f'{name} went wrong')

  def Settings(self, **options):
    return options

  def init(self, **options):
    self.called('init')
    self.options.append(options)
    return self

  def define_metric(self, *arguments, **options):
    self.called('define_metric')

  def log(self, metrics):
    self.called('log')
    self.logged.append(metrics)

  def finish(self):
    self.called('finish')


def write_run(folder, start=0, steps=3):
  log = telemetry.Telemetry(folder, 9, tensorboard=False, wandb='my project')
  log.begin(start)
  for step in range(start + 1, start + steps + 1):
    log.write(step, {'train/loss': 1 / step})
  log.close()


def test_the_metrics_go_to_one_run_over_restarts(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'wandb', fake := Fake())
  write_run(tmp_path)
  write_run(tmp_path, start=2)
  assert [row['step'] for row in fake.logged] == [1, 2, 3, 3, 4, 5]
  assert fake.logged[0] == {'step': 1, 'train/loss': 1.0} and fake.calls.count('finish') == 2
  first, second = fake.options
  assert first == second and first['project'] == 'my project' and first['resume'] == 'allow'
  assert first['id'] == (tmp_path / 'wandb/run_id').read_text() and first['name'] == tmp_path.name


@pytest.mark.parametrize('fails', ['init', 'define_metric', 'log', 'finish'])
def test_a_failure_is_reported_once_and_the_run_goes_on(tmp_path, monkeypatch, capsys, fails):
  monkeypatch.setitem(sys.modules, 'wandb', fake := Fake(fails))
  write_run(tmp_path)
  assert fake.calls.count(fails) == 1
  assert len((tmp_path / 'metrics.jsonl').read_text().splitlines()) == 3
  lines = [line for line in capsys.readouterr().err.splitlines() if 'continuing without' in line]
  assert lines == ['Weights & Biases (project my project) failed, continuing without: '
                   f'RuntimeError: {fails} went wrong']


def test_without_the_package_one_line_says_what_to_install(tmp_path, monkeypatch, capsys):
  monkeypatch.setitem(sys.modules, 'wandb', None)
  write_run(tmp_path)
  said = capsys.readouterr().err
  assert said.count('\n') == 1 and "pip install 'gptjax[wandb]' first" in said
  assert len((tmp_path / 'metrics.jsonl').read_text().splitlines()) == 3


def test_without_a_project_nothing_is_written(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'wandb', fake := Fake())
  log = telemetry.Telemetry(tmp_path, 9, tensorboard=False)
  log.begin(0)
  log.write(1, {'train/loss': 1.0})
  log.close()
  assert not fake.calls and not (tmp_path / 'wandb').exists()


def test_offline_the_real_package_writes_the_metrics_into_the_workdir(tmp_path, monkeypatch):
  pytest.importorskip('wandb')
  monkeypatch.setenv('WANDB_MODE', 'offline')
  config = {'config': {'model': {'n_layer': 2}}, 'corpus_digest': ''}
  (tmp_path / 'config.json').write_text(json.dumps(config))
  write_run(tmp_path)
  write_run(tmp_path, start=2)
  files = sorted(tmp_path.glob('wandb/offline-run-*/run-*.wandb'))
  run_id = (tmp_path / 'wandb/run_id').read_text()
  assert files and all(file.stem == f'run-{run_id}' for file in files)
  written = b''.join(file.read_bytes() for file in files)
  assert b'train/loss' in written and b'my project' in written and b'n_layer' in written


def test_a_seed_of_a_fine_tuning_job_is_named_with_its_task_and_has_the_jobs_config(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'wandb', fake := Fake())
  job = tmp_path / 'mine'
  (job / 'sst2' / 'seed-1').mkdir(parents=True)
  (job / 'config.json').write_text(json.dumps({'config': {'init_from': 'https://me:secret@host/a', 'n': 3}}))
  write_run(job / 'sst2' / 'seed-1')
  options, = fake.options
  assert (options['group'], options['name']) == ('mine', 'mine/sst2/seed-1')
  assert options['config'] == {'init_from': 'https://host/a', 'n': 3}
