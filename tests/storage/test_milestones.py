"""Milestones: the weights of every Nth checkpoint, copied completely or not at all, before it is deleted."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import mesh_of
from storage import test_checkpoint
from storage.test_checkpoint import FACTS, SPECIAL, assert_same, flip, largest, state_on, target_on
from storage.test_power_loss import losses

from gptjax.errors import InputError
from gptjax.pretrain import rewind
from gptjax.storage import checkpoint, milestones, orbax_io, rewind_log
from gptjax.storage.files import paths
from gptjax.storage.retention import Rules

RULES = dict(keep=1, keep_best=0, keep_period=10, weights_only=True)


def save(workdir, *steps, **changes):
  test_checkpoint.save(workdir / 'checkpoints', *steps, **{**RULES, **changes})


def steps(workdir):
  """(those of the checkpoints, those of the milestones)."""
  return checkpoint.steps(workdir / 'checkpoints'), checkpoint.steps(workdir / 'milestones')


def weights(milestone, sizes=None):
  with mesh_of(**(sizes or {})):
    return checkpoint.load_weights(milestone, checkpoint.read_manifest(milestone),
                                   target_on(sizes or {}).params)


@pytest.mark.first_cases(1)
@pytest.mark.parametrize('source, target', [(dict(), dict(fsdp=8)), (dict(fsdp=4, tensor=2), dict())])
def test_a_milestone_has_the_weights_alone_to_the_bit(tmp_path, source, target):
  save(tmp_path, 5, 10, 15, 20, 25, sizes=source)
  assert steps(tmp_path) == ([25], [10, 20])
  for step in (10, 20):
    folder = tmp_path / 'milestones' / str(step)
    assert_same(jax.device_get(weights(folder, target)), jax.device_get(state_on(source, seed=step).params))
    assert_same(checkpoint.read_weights(folder, target_on({}).params), weights(folder))
    manifest = checkpoint.read_manifest(folder)
    assert {name.split('/')[0] for name in manifest['arrays']} == {'params'}
    assert checkpoint.find_fault(folder, manifest) is None
    assert (manifest['step'], manifest['facts']) == (step, FACTS)
    assert sorted(path.name for path in folder.iterdir()) == ['manifest.json', 'state']


@pytest.mark.first_cases(2)
@pytest.mark.parametrize('name', SPECIAL)
def test_also_under_a_path_that_libraries_read_as_something_else(tmp_path, name):
  save(tmp_path / name, 10, 11)
  assert steps(tmp_path / name) == ([11], [10])
  assert_same(weights(tmp_path / name / 'milestones' / '10'), state_on({}, seed=10).params)


def test_one_bit_of_a_milestone_that_flips_is_found(tmp_path):
  save(tmp_path, 10)
  folder = tmp_path / 'milestones' / '10'
  flip(largest(folder / 'state'), 1234)
  assert 'differs from its checksum' in checkpoint.find_fault(folder, checkpoint.read_manifest(folder))


@pytest.mark.ci
def test_the_newest_and_the_best_stay_whole_besides(tmp_path):
  save(tmp_path, 5, 10, 20, 25, 30, keep=2, keep_best=1, metrics={5: 3.0, 10: 1.0, 20: 2.0})
  assert steps(tmp_path) == ([10, 25, 30], [10, 20, 30])


def test_saved_again_it_copies_what_a_kill_or_another_setting_has_left_uncopied(tmp_path):
  save(tmp_path, 10, 20, 30, weights_only=False)
  assert steps(tmp_path) == ([10, 20, 30], [])
  (tmp_path / 'milestones').mkdir()
  (tmp_path / 'milestones' / '20.new').mkdir()
  save(tmp_path, 30)
  assert steps(tmp_path) == ([30], [10, 20, 30])
  assert sorted(path.name for path in (tmp_path / 'milestones').iterdir()) == ['10', '20', '30']
  before = (tmp_path / 'milestones' / '30' / 'manifest.json').stat().st_mtime_ns
  save(tmp_path, 30)
  assert (tmp_path / 'milestones' / '30' / 'manifest.json').stat().st_mtime_ns == before


def test_of_a_damaged_checkpoint_there_is_no_milestone_and_it_stays(tmp_path, capsys):
  save(tmp_path, 10, 20, weights_only=False)
  flip(largest(tmp_path / 'checkpoints' / '10' / 'state'), 77)
  save(tmp_path, 21)
  assert steps(tmp_path) == ([10, 21], [20])
  assert 'checkpoints/10 is damaged' in capsys.readouterr().err


def test_a_milestone_of_other_weights_is_replaced_and_not_lost(tmp_path):
  save(tmp_path, 10, 11)
  (tmp_path / 'checkpoints' / '11').rename(tmp_path / 'elsewhere')
  saves = checkpoint.Checkpoints(tmp_path / 'checkpoints', Rules(**RULES), FACTS)
  with mesh_of():
    saves.save(state_on({}, seed=99), 10)
    saves.wait()
  saves.close()
  assert_same(weights(tmp_path / 'milestones' / '10'), state_on({}, seed=99).params)
  assert_same(weights(tmp_path / 'milestones' / '10.replaced'), state_on({}, seed=10).params)


def test_what_cannot_be_copied_stays_whole(tmp_path, monkeypatch):
  save(tmp_path, 10)
  def full(path, tree):
    raise OSError(28, 'No space left on device', str(path))
  with monkeypatch.context() as patch:
    patch.setattr(orbax_io, 'write_part', full)
    with pytest.raises(InputError, match=r'cannot save milestone 20: no space left on the disk of .*run'):
      save(tmp_path / 'run', 20)
  assert steps(tmp_path / 'run') == ([20], [])
  assert not list((tmp_path / 'run' / 'milestones').iterdir())
  save(tmp_path / 'run', 20)
  assert steps(tmp_path / 'run') == ([20], [20])


def test_wherever_the_power_fails_the_weights_are_in_one_of_the_two(tmp_path, monkeypatch):
  workdir = tmp_path / 'run'
  workdir.mkdir()
  completed = []
  def work():
    saves = checkpoint.Checkpoints(workdir / 'checkpoints', Rules(1, 0, 2, True), {})
    for step in (2, 3, 4, 5):
      saves.save(state_on({}, seed=step), step)
      saves.wait()
      completed.append(step)
    saves.close()
  with mesh_of():
    left = losses(workdir, tmp_path / 'left', monkeypatch, work, completed, without=('.deleting',))
  expected = {step: np.asarray(jax.tree.leaves(state_on({}, seed=step).params)[0]) for step in (2, 4)}
  assert len(left) > 20
  for image, done in left:
    for step in (2, 4):
      folders = [image / name / str(step) for name in ('milestones', 'checkpoints')]
      folder = next((path for path in folders if (path / 'manifest.json').exists()), None)
      assert folder or step not in completed[:done], (image.name, step)
      if folder:
        assert checkpoint.find_fault(folder, checkpoint.read_manifest(folder)) is None, folder
    for step in checkpoint.steps(image / 'milestones'):
      read = checkpoint.read_weights(image / 'milestones' / str(step), target_on({}).params)
      np.testing.assert_array_equal(jax.tree.leaves(read)[0], expected[step])


def test_a_rewind_discards_the_milestones_after_it_too(tmp_path):
  for folder in ('checkpoints', 'milestones'):
    for step in (10, 20, 30):
      (tmp_path / folder / str(step)).mkdir(parents=True)
      checkpoint.write_manifest(tmp_path / folder / str(step), {
        'step': step, 'metric': None, 'arrays': {}, 'files': {}, 'facts': {'rewinds': 0}})
  rewind_log.write(tmp_path, [{'step': 33, 'loss': 9.0, 'usual_loss': 5.0, 'to': 10, 'passed': 30}])
  rewind.apply_rewinds(tmp_path)
  assert steps(tmp_path) == ([10], [10])
  assert json.loads((tmp_path / 'rewinds.json').read_text())[0]['to'] == 10


def test_the_milestone_of_a_checkpoint_is_beside_it():
  for run in (Path('a/run'), paths.location('gs://bucket/a/run')):
    assert milestones.milestone_of(run / 'checkpoints' / '10') == run / 'milestones' / '10'
