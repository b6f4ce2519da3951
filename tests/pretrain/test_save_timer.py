"""Real runs with checkpoint.every_minutes: saved because of the time, and otherwise the same run."""

import pytest
from conftest import train
from hosts import run
from runs import after, arrays, assert_same_run, run_and_kill

from gptjax.storage import checkpoint

# Each save is due when the one before has started; only time, no step, asks for any.
FLAGS = ('--config.checkpoint.every_minutes=1e-6', '--config.checkpoint.every_steps=0',
         '--config.checkpoint.keep=99', '--config.eval.every_steps=10')


@pytest.fixture(scope='module')
def undisturbed(corpus_folder, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('undisturbed')
  assert train(corpus_folder, workdir).returncode == 0
  return workdir


@pytest.mark.slow
def test_it_is_saved_when_it_is_time_and_killed_it_loses_no_more(undisturbed, corpus_folder, tmp_path):
  run_and_kill(corpus_folder, tmp_path, after(tmp_path, 17), *FLAGS)
  newest = checkpoint.steps(tmp_path / 'checkpoints')[-1]
  done = train(corpus_folder, tmp_path, *FLAGS)
  assert done.returncode == 0 and newest >= 15, done.stderr
  steps = checkpoint.steps(tmp_path / 'checkpoints')
  assert set(range(1, 15)) <= set(steps) and steps[-1] == 30
  metrics = {step: checkpoint.read_manifest(tmp_path / 'checkpoints' / str(step))['metric'] for step in steps}
  assert [step for step in steps if metrics[step] is not None] == [10, 20, 30], 'as without it'
  assert_same_run(tmp_path, undisturbed)


@pytest.mark.slow
def test_two_processes_save_the_same_steps(undisturbed, corpus_folder, tmp_path):
  run(corpus_folder, tmp_path / 'plain', 2)
  run(corpus_folder, tmp_path / 'timed', 2, *FLAGS)
  steps = checkpoint.steps(tmp_path / 'timed' / 'checkpoints')
  assert len(steps) > 1 and steps[-1] == 30
  for step in steps:
    folder = tmp_path / 'timed' / 'checkpoints' / str(step)
    assert checkpoint.find_fault(folder, checkpoint.read_manifest(folder)) is None
  assert arrays(tmp_path / 'timed', 30) == arrays(tmp_path / 'plain', 30)
