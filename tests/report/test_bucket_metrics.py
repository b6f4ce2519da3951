"""Metrics of a run in a bucket: those of a run on this machine, after kills and under faults too."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import object_storage
import pytest
from conftest import ENVIRONMENT, ROOT, tiny_config
from report.bucket_run import metrics, write_steps
from report.test_wandb import Fake

from gptjax.errors import InputError
from gptjax.evaluate.journal import Journal
from gptjax.report import page, samples, telemetry, tensorboard, wandb_process
from gptjax.storage.files import access, buckets, cache, parts, paths, records, spool

served = object_storage.served(object_storage.GS_AND_SLOWLY_S3)


@pytest.fixture
def workdir(served, monkeypatch, request, tmp_path):
  """The Url of a folder of its own; no faults yet."""
  monkeypatch.setattr(buckets, 'FIRST_PAUSE', 0.01)
  monkeypatch.setattr(cache._Settings, 'folder', tmp_path / 'cache')
  served[1].fail, served[1].path, served[1].mutations_per_second, served[1].requests[:] = 0.0, '', 0.0, []
  return paths.location(f'{served[0]}://buck/{request.node.name.partition("[")[0]}')


def write_run(workdir, resumes=((0, 20),)):
  for start, steps in resumes:
    log = telemetry.Telemetry(workdir, 30, tensorboard=False)
    log.begin(start)
    write_steps(log, start, steps)
    log.close()


def copied(url, folder):
  """A copy of a folder in a bucket on this machine."""
  for name in buckets.find(url):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(access.read(url / name))
  return folder


def objects_changed(faults):
  """{name of an object: number of requests that have changed it}, and the bytes that these have sent."""
  changed, sent = {}, 0
  for method, path, size in faults.requests:
    if method in ('POST', 'PUT') and 'metrics' in path:
      changed[path] = changed.get(path, 0) + 1
    sent += size if method in ('POST', 'PUT') else 0
  return changed, sent


def test_a_run_in_a_bucket_reads_like_one_on_this_machine_over_resumes(workdir, served, tmp_path, capsys):
  resumes = (0, 20), (15, 22), (10, 30)
  (tmp_path / 'here').mkdir()
  write_run(tmp_path / 'here', resumes)
  write_run(workdir, resumes)
  here = telemetry.read_metrics(tmp_path / 'here' / 'metrics.jsonl')
  assert telemetry.read_metrics(workdir / 'metrics.jsonl') == here
  assert [record['step'] for record in here] == list(range(1, 31))
  assert not access.is_file(workdir / 'metrics.jsonl')
  assert len(parts.part_names(workdir / 'metrics.jsonl')) == 10
  assert telemetry.plot_curves(workdir, {}) == workdir / 'curves.png'
  assert access.read(workdir / 'curves.png') == telemetry.plot_curves(tmp_path / 'here', {}).read_bytes()
  copy = copied(workdir, tmp_path / 'copy')
  assert telemetry.read_metrics(copy / 'metrics.jsonl') == here
  write_run(copy, [(28, 30)])  # the copy goes on here, as one file
  assert telemetry.read_metrics(copy / 'metrics.jsonl') == here and not (copy / 'metrics').exists()
  assert 'omitted' not in capsys.readouterr().err


@pytest.mark.ci
def test_no_kill_loses_a_step_before_a_checkpoint(workdir, served, tmp_path):
  environment = {**os.environ, **ENVIRONMENT}
  rng, saved = random.Random(served[0]), 0
  for attempt in range(4):
    line = [sys.executable, 'tests/report/bucket_run.py', str(workdir), str(saved), '300']
    process = subprocess.Popen(line, cwd=ROOT, env={**environment, 'PYTHONPATH': str(ROOT)}, text=True,
                               stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout.readline() == 'started\n'
    if attempt < 3:
      time.sleep(rng.uniform(0.1, 1.0))
      process.send_signal(signal.SIGKILL)
    steps = [int(line.removeprefix('saved ')) for line in process.stdout]
    assert process.wait() == (-signal.SIGKILL if attempt < 3 else 0)
    saved = max([saved, *steps])
    found = telemetry.read_metrics(workdir / 'metrics.jsonl')
    assert [record['step'] for record in found] == list(range(1, len(found) + 1)) and len(found) >= saved
    assert all(record == {'step': record['step'], **metrics(record['step'])} for record in found)
  assert len(found) == saved == 300


@pytest.mark.parametrize('fault', [{'fail': 0.1}, {'mutations_per_second': 1.0}])
def test_each_record_is_put_once_and_no_object_twice_under_faults(workdir, served, fault, tmp_path):
  vars(served[1]).update(fault)
  workdir = workdir / next(iter(fault))
  write_run(workdir, [(0, 300), (280, 400)])
  vars(served[1]).update(dict.fromkeys(fault, 0.0))
  found = telemetry.read_metrics(workdir / 'metrics.jsonl')
  assert [record['step'] for record in found] == list(range(1, 401))
  changed, sent = objects_changed(served[1])
  final = sum(entry.size for entry in buckets.find(workdir / 'metrics').values())
  if 'mutations_per_second' in fault and served[0] == 's3':  # which has the name of an object in the path
    assert set(changed.values()) == {1}
  assert sent <= 3 * final + 600 * len(parts.part_names(workdir / 'metrics.jsonl')) * (1 + ('fail' in fault))


def test_damage_is_reported_and_the_rest_is_read(workdir, capsys):
  write_run(workdir)
  name = parts.part_names(workdir / 'metrics.jsonl')[1]
  content = access.read(workdir / 'metrics' / name)
  access.write(workdir / 'metrics' / name, content.replace(b'"step": 7', b'"step": 8', 1))
  found = telemetry.read_metrics(workdir / 'metrics.jsonl')
  assert [record['step'] for record in found] == [step for step in range(1, 21) if step != 7]
  assert capsys.readouterr().err == (f'{workdir}/metrics/{name}: 1 damaged or truncated, omitted: line 2\n')


def test_tensorboard_files_are_put_closed_and_a_failure_ends_nothing(workdir, monkeypatch, tmp_path, capsys):
  monkeypatch.setattr(tensorboard, 'FILE_SECONDS', 0.0)
  log = telemetry.Telemetry(workdir, 9, tensorboard=True)
  log.begin(0)
  for step in (1, 2, 3):
    log.write(step, metrics(step))
  log.flush()
  log.close()
  names = access.names(workdir / 'tensorboard')
  assert len(names) == 3
  from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
  copied(workdir / 'tensorboard', tmp_path / 'copy')
  events = EventAccumulator(str(tmp_path / 'copy')).Reload()
  assert sorted(event.step for event in events.Tensors('train/loss')) == [1, 2, 3]
  def denied(url, path):
    raise InputError(f'{url}: access is denied')
  monkeypatch.setattr(spool, 'put_file', denied)
  log = telemetry.Telemetry(workdir, 9, tensorboard=True)
  log.begin(3)
  for step in (4, 5, 6):
    log.write(step, metrics(step))
  log.close()
  found = telemetry.read_metrics(workdir / 'metrics.jsonl')
  assert [record['step'] for record in found] == [1, 2, 3, 4, 5, 6]
  said = [line for line in capsys.readouterr().err.splitlines() if 'TensorBoard' in line]
  local = spool.folder(workdir) / 'tensorboard'
  first, what = min(path.name for path in local.iterdir()), f'TensorBoard ({workdir}/tensorboard):'
  assert said == [f'{what} files cannot be put there, and wait in {local} ({workdir}/tensorboard/{first}: '
                  'access is denied)', f'{what} 3 files could not be put there: see {local}']
  assert (spool._root() / spool.KEEP).exists()


def test_tensorboard_files_of_an_outage_are_put_when_it_is_over(workdir, monkeypatch):
  monkeypatch.setattr(tensorboard, 'FILE_SECONDS', 0.0)
  put, outage = spool.put_file, [1, 1]
  def failing(url, path):
    if outage:
      outage.pop()
      raise InputError(f'{url}: the storage has not answered')
    put(url, path)
  monkeypatch.setattr(spool, 'put_file', failing)
  log = telemetry.Telemetry(workdir, 9, tensorboard=True)
  log.begin(0)
  for step in (1, 2, 3):
    log.write(step, metrics(step))
  log.close()
  assert len(access.names(workdir / 'tensorboard')) == 3
  assert not (spool._root() / spool.KEEP).exists()


def test_the_folder_of_weights_and_biases_is_here_and_its_id_in_the_bucket(workdir, monkeypatch):
  monkeypatch.setitem(sys.modules, 'wandb', fake := Fake())
  for step in (1, 2):
    run = wandb_process.Run(workdir, 'mine')
    run.write(step, metrics(step))
    run.close()
  first, second = fake.options
  assert first['id'] == second['id'] == access.read(workdir / 'wandb' / 'run_id').decode()
  assert first['dir'].startswith(str(cache.root())) and first['name'] == first['group'] == workdir.name
  assert access.names(workdir / 'wandb') == ['run_id']


class Offline(Fake):
  """Weights & Biases without network."""

  def init(self, **options):
    folder = Path(options['dir']) / 'wandb' / 'offline-run-1'
    folder.mkdir(parents=True)
    (folder / 'run.wandb').write_bytes(b'metrics')
    return super().init(**options)


def test_an_offline_run_of_weights_and_biases_is_put_at_the_end(workdir, monkeypatch, capsys):
  monkeypatch.setitem(sys.modules, 'wandb', Offline())
  run = wandb_process.Run(workdir, 'mine')
  run.write(1, metrics(1))
  kept = spool._root() / spool.KEEP
  assert kept.exists()  # if the process is killed
  assert 'is offline: the metrics are in ' + str(spool.folder(workdir)) in capsys.readouterr().err
  run.close()
  assert access.read(workdir / 'wandb' / 'offline-run-1' / 'run.wandb') == b'metrics' and not kept.exists()


def test_a_report_of_a_bucket_is_that_of_its_copy(workdir, tmp_path):
  config = {'config': tiny_config().to_dict(), 'versions': {'gptjax': '0'}, 'devices': ['cpu', 1]}
  access.write(workdir / 'config.json', records.text(config))
  write_run(workdir)
  samples.save(workdir, {'': ['a text', 'another']}, 0)
  copy = copied(workdir, tmp_path / workdir.name)
  here = page.write([copy], tmp_path / 'out')
  there = page.write([str(workdir)], workdir / 'out')
  assert here[0].read_bytes() == access.read(there[0]) and here[1].read_bytes() == access.read(there[1])
  assert access.names(workdir / 'out' / 'report-figures') == access.names(tmp_path / 'out' / 'report-figures')


def test_answers_of_an_evaluation_are_known_after_a_restart(workdir):
  path = workdir / 'answers' / 'task.jsonl'
  for run in range(2):
    journal = Journal(path, 'model')
    assert journal.size == 2 * run
    journal.begin()
    part = journal.part('one', ['a', 'b', 'c', 'd'])
    assert part.known == ({0: 1.5, 1: 'two'} if run else {})
    for number, answer in enumerate((1.5, 'two', [3], None)[2 * run:][:2], 2 * run):
      part.record(number, answer)
    journal.close()
  assert Journal(path, 'model').part('one', ['d', 'c']).known == {0: None, 1: [3]}
