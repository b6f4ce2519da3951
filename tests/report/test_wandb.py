"""Weights & Biases: the same metrics, one run over restarts, and a failure that never ends a run."""

import json
import os
import signal
import struct
import sys
import time
import types

import pytest
from conftest import ROOT

from gptjax.report import telemetry, wandb_process, wandb_run


class Fake(types.ModuleType):
  """The part of the package that is used; `fails` names a call that raises."""

  def __init__(self, fails='', why=''):
    super().__init__('wandb')
    self.why = why or f'{fails} went wrong'
    self.fails, self.calls, self.logged, self.options = fails, [], [], []

  def called(self, name):
    self.calls.append(name)
    if name == self.fails:
      raise RuntimeError(self.why)

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
  run = wandb_process.Run(folder, 'my project')
  for step in range(start + 1, start + steps + 1):
    run.write(step, {'train/loss': 1 / step})
  run.close()


def write_metrics(folder):
  """What a training job does, with the package in a process of its own."""
  log = telemetry.Telemetry(folder, 9, tensorboard=False, wandb='my project')
  log.begin(0)
  for step in range(1, 4):
    log.write(step, {'train/loss': 1 / step})
  log.close()
  assert len((folder / 'metrics.jsonl').read_text().splitlines()) == 3


@pytest.fixture
def package(tmp_path, monkeypatch):
  """Function that makes a package `wandb` of some source, which other processes import."""
  def make(source):
    folder = tmp_path / 'packages'
    folder.mkdir()
    (folder / 'wandb.py').write_text(source)
    monkeypatch.setenv('PYTHONPATH', os.pathsep.join([str(folder), str(ROOT)]))
  return make


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
  lines = [line for line in capsys.readouterr().err.splitlines() if 'continuing without' in line]
  assert lines == ['Weights & Biases (project my project) failed, continuing without: '
                   f'RuntimeError: {fails} went wrong']


def test_without_an_account_one_line_says_how_to_go_without(tmp_path, monkeypatch, capsys):
  monkeypatch.setitem(sys.modules, 'wandb', Fake('init', 'No API key configured. Use `wandb login`.'))
  write_run(tmp_path)
  said = capsys.readouterr().err
  assert said.count('\n') == 1
  assert said.endswith('Use `wandb login`. Or set WANDB_MODE=offline, which needs no account\n')


def test_without_the_package_one_line_says_what_to_install(tmp_path, monkeypatch, capsys):
  monkeypatch.setitem(sys.modules, 'wandb', None)
  write_run(tmp_path)
  said = capsys.readouterr().err
  assert said.count('\n') == 1 and "pip install 'gptjax[wandb]' first" in said


def test_without_a_project_nothing_is_written(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'wandb', fake := Fake())
  log = telemetry.Telemetry(tmp_path, 9, tensorboard=False)
  log.begin(0)
  log.write(1, {'train/loss': 1.0})
  log.close()
  assert not fake.calls and not (tmp_path / 'wandb').exists()


FAKE = """
import json
from types import SimpleNamespace
Settings = dict
def init(**options):
  return SimpleNamespace(define_metric=lambda *names, **options: None, log=log, finish=finish)
def log(metrics):
  with open(FILE, 'a') as file:
    file.write(json.dumps(metrics) + '\\n')
def finish():
  import time
  time.sleep(SECONDS)
"""


def test_a_process_of_its_own_gets_all_metrics(package, tmp_path):
  package(f'FILE, SECONDS = {str(tmp_path / "sent")!r}, 0\n{FAKE}')
  write_metrics(tmp_path)
  sent = [json.loads(line) for line in (tmp_path / 'sent').read_text().splitlines()]
  assert sent == [{'step': step, 'train/loss': 1 / step} for step in (1, 2, 3)]


def test_a_server_that_does_not_answer_delays_the_end_by_a_bound(package, tmp_path, monkeypatch, capfd):
  monkeypatch.setattr(wandb_run, 'FINISH_SECONDS', 2)
  package(f'FILE, SECONDS = {str(tmp_path / "sent")!r}, 600\n{FAKE}')
  start = time.monotonic()
  write_metrics(tmp_path)
  assert time.monotonic() - start < 20
  said = capfd.readouterr().err
  assert said.count('\n') == 1 and 'were not sent within 2 s' in said and 'metrics.jsonl has them' in said


def test_a_process_that_dies_is_reported_and_the_run_goes_on(package, tmp_path, capfd):
  package('import os\nos._exit(3)')
  write_metrics(tmp_path)
  said = capfd.readouterr().err
  assert said.count('continuing without') == 1 and 'my project' in said


def test_a_signal_is_for_the_process_that_trains(package, tmp_path):
  package(f'FILE, SECONDS = {str(tmp_path / "sent")!r}, 0\n{FAKE}')
  run = wandb_run.WandB(tmp_path, 'my project')
  run.write(1, {'train/loss': 1.0})
  while not (tmp_path / 'sent').exists():
    time.sleep(0.05)
  for number in signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1:
    run.process.send_signal(number)
  run.write(2, {'train/loss': 0.5})
  run.close()
  assert not run.failed and len((tmp_path / 'sent').read_text().splitlines()) == 2


def test_offline_the_real_package_writes_the_metrics_into_the_workdir(tmp_path, monkeypatch):
  pytest.importorskip('wandb', reason="pip install -e '.[wandb]'")
  monkeypatch.setenv('WANDB_MODE', 'offline')
  config = {'config': {'model': {'n_layer': 2}}, 'corpus_digest': ''}
  (tmp_path / 'config.json').write_text(json.dumps(config))
  write_metrics(tmp_path)
  file, = tmp_path.glob('wandb/offline-run-*/run-*.wandb')
  assert file.stem == f'run-{(tmp_path / "wandb/run_id").read_text()}'
  records = list(read_records(file.read_bytes()))
  run, = [record.run for record in records if record.HasField('run')]
  assert run.project == 'my project' and run.display_name == tmp_path.name
  assert {one.key: json.loads(one.value_json) for one in run.config.update}['model'] == {'n_layer': 2}
  rows = [{one.key or '.'.join(one.nested_key): json.loads(one.value_json) for one in record.history.item}
          for record in records if record.HasField('history')]
  assert [(row['step'], row['train/loss']) for row in rows] == [(1, 1.0), (2, 1 / 2), (3, 1 / 3)]


def read_records(data):
  """The Records of a .wandb file, which has LevelDB's log format after a header of seven bytes."""
  from wandb.proto import wandb_internal_pb2
  at, text = 7, b''
  while at + 7 <= len(data):
    if (1 << 15) - at % (1 << 15) < 7:  # a block's tail is padded
      at += -at % (1 << 15)
      continue
    length, kind = struct.unpack_from('<HB', data, at + 4)
    text += data[at + 7:at + 7 + length]
    at += 7 + length
    if kind in (1, 4):  # a whole record, or the last part of one
      yield wandb_internal_pb2.Record.FromString(text)
      text = b''


def test_a_seed_of_a_fine_tuning_job_is_named_with_its_task_and_has_the_jobs_config(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'wandb', fake := Fake())
  job = tmp_path / 'mine'
  (job / 'sst2' / 'seed-1').mkdir(parents=True)
  (job / 'config.json').write_text(json.dumps({'config': {'init_from': 'https://me:secret@host/a', 'n': 3}}))
  write_run(job / 'sst2' / 'seed-1')
  options, = fake.options
  assert (options['group'], options['name']) == ('mine', 'mine/sst2/seed-1')
  assert options['config'] == {'init_from': 'https://host/a', 'n': 3}
