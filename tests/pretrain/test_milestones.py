"""Real runs with checkpoint.keep_period: every Nth step remains, complete or as its weights alone."""

import json
import shutil
import subprocess
import sys

import hosts
import jax
import numpy as np
import pytest
from conftest import ENVIRONMENT, ROOT, command, mesh_of, train
from runs import arrays, assert_same_run, run_and_kill

import gptjax
from gptjax.errors import InputError
from gptjax.storage import checkpoint

# Not a multiple of checkpoint.every_steps, which is 5.
FLAGS = '--config.checkpoint.keep_period=6', '--config.checkpoint.keep=1', '--config.checkpoint.keep_best=0'
WEIGHTS = *FLAGS, '--config.checkpoint.keep_period_weights_only=True'


@pytest.fixture(scope='module')
def whole(corpus_folder, tmp_path_factory):
  """A run that keeps complete checkpoints."""
  workdir = tmp_path_factory.mktemp('whole')
  done = train(corpus_folder, workdir, *FLAGS)
  assert done.returncode == 0, done.stderr
  return workdir


@pytest.fixture(scope='module')
def weights_only(corpus_folder, tmp_path_factory):
  """A run that keeps the weights alone, killed three times while it copied them."""
  workdir = tmp_path_factory.mktemp('weights')
  for step, change in ((6, 1), (12, 9), (18, 30)):
    run_and_kill(corpus_folder, workdir, ('change', f'{workdir}/milestones/{step}*', change), *WEIGHTS)
    assert checkpoint.steps(workdir / 'milestones') == list(range(6, step, 6))
    assert checkpoint.steps(workdir / 'checkpoints')[-1] == step
  done = train(corpus_folder, workdir, *WEIGHTS)
  assert done.returncode == 0 and 'resuming after step 18' in done.stderr, done.stderr
  return workdir


@pytest.mark.ci
def test_every_nth_step_is_saved_and_remains(whole):
  assert checkpoint.steps(whole / 'checkpoints') == [6, 12, 18, 24, 30]
  assert not (whole / 'milestones').exists()
  saved = [json.loads(line)['step'] for line in (whole / 'metrics.jsonl').read_text().splitlines()
           if 'checkpoint/seconds' in line]
  assert {5, 6, 10, 12, 15, 18, 20, 24, 25} <= set(saved), 'a step of either period is saved'


@pytest.mark.slow
def test_a_run_killed_in_its_milestones_has_all_of_them_with_the_same_weights(whole, weights_only):
  assert checkpoint.steps(weights_only / 'checkpoints') == [30]
  names = sorted(path.name for path in (weights_only / 'milestones').iterdir())
  assert names == ['12', '18', '24', '30', '6'], 'nothing half is left'
  for step in (6, 12, 18, 24, 30):
    manifest = checkpoint.read_manifest(weights_only / 'milestones' / str(step))
    assert manifest['arrays'] == {name: entry for name, entry in arrays(whole, step).items()
                                  if name.startswith('params/')}
  assert_same_run(weights_only, whole)


@pytest.mark.ci
def test_started_again_after_its_end_it_reduces_the_checkpoints_to_milestones(
    whole, weights_only, corpus_folder, tmp_path):
  shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
  assert train(corpus_folder, tmp_path, *WEIGHTS).returncode == 0
  assert checkpoint.steps(tmp_path / 'checkpoints') == [30]
  for step in (6, 12, 18, 24, 30):
    copies = [checkpoint.read_manifest(run / 'milestones' / str(step)) for run in (tmp_path, weights_only)]
    assert copies[0]['arrays'] == copies[1]['arrays']


@pytest.mark.ci
def test_a_milestone_is_loaded_like_a_checkpoint(whole, weights_only):
  with mesh_of():
    models = [gptjax.load(path)[0] for path in (weights_only / 'milestones' / '12',
                                                whole / 'checkpoints' / '12')]
  for milestone, full in zip(*map(jax.tree.leaves, models), strict=True):
    np.testing.assert_array_equal(milestone, full)


@pytest.mark.slow
def test_it_is_generated_from_exported_and_the_start_of_another_run(weights_only, corpus_folder, tmp_path):
  milestone = weights_only / 'milestones' / '12'
  run = lambda *line: subprocess.run([sys.executable, '-m', 'gptjax', *line], cwd=ROOT, env=ENVIRONMENT,
                                     capture_output=True, text=True, timeout=200)
  done = run('export', f'--from={milestone}', f'--to={tmp_path}/exported')
  assert done.returncode == 0 and (tmp_path / 'exported' / 'model.safetensors').exists(), done.stderr
  done = run('generate', f'--from={milestone}', '--prompt=tree', '--max_tokens=4')
  assert done.returncode == 0 and done.stdout, done.stderr
  (tmp_path / 'text.txt').write_text('the blue stone never sings')
  done = run('score', f'--from={milestone}', f'{tmp_path}/text.txt')
  assert done.returncode == 0 and done.stdout, done.stderr
  done = subprocess.run(command(corpus_folder, tmp_path / 'run', f'--config.init_from={milestone}',
                                '--config.train.steps=1'), cwd=ROOT, env=ENVIRONMENT, capture_output=True,
                        text=True, timeout=200)
  assert done.returncode == 0 and f'initial weights from {milestone}' in done.stderr, done.stderr


@pytest.mark.slow
def test_of_several_processes_one_copies_what_all_have_written(corpus_folder, tmp_path):
  for name, flags in (('whole', FLAGS), ('weights', WEIGHTS)):
    hosts.run(corpus_folder, tmp_path / name, 2, *flags, '--config.train.steps=12', '--config.mesh.fsdp=2')
  assert checkpoint.steps(tmp_path / 'weights' / 'checkpoints') == [12]
  for step in (6, 12):
    milestone = tmp_path / 'weights' / 'milestones' / str(step)
    manifest = checkpoint.read_manifest(milestone)
    assert checkpoint.find_fault(milestone, manifest) is None
    assert manifest['arrays'] == {name: entry for name, entry in arrays(tmp_path / 'whole', step).items()
                                  if name.startswith('params/')}
    with mesh_of():
      gptjax.load(milestone)  # which compares the digests of what it has read


@pytest.mark.ci
def test_a_damaged_milestone_is_refused_by_name(weights_only, tmp_path):
  shutil.copytree(weights_only, tmp_path, dirs_exist_ok=True)
  file = max((tmp_path / 'milestones' / '12' / 'state').rglob('*'), key=lambda path: path.stat().st_size)
  file.write_bytes(file.read_bytes()[:-1])
  with pytest.raises(InputError, match=r'milestones/12 is damaged \(state/.* differs from its checksum'):
    gptjax.load(tmp_path / 'milestones' / '12')
