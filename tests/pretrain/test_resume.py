"""Real processes: killed at any moment, told to stop, run twice; the run that results is one run."""

import shutil
import signal

import jax
import numpy as np
import pytest
from conftest import train
from runs import LONG, after, arrays, assert_same_run, in_save, losses, run_and_kill, start, storm

import gptjax
from gptjax.storage import checkpoint


@pytest.fixture(scope='module')
def undisturbed(corpus_folder, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('undisturbed')
  done = train(corpus_folder, workdir)
  assert done.returncode == 0, done.stderr
  return workdir


@pytest.mark.slow
def test_two_runs_of_a_config_are_identical(undisturbed, corpus_folder, tmp_path):
  assert train(corpus_folder, tmp_path).returncode == 0
  assert_same_run(tmp_path, undisturbed)


def test_killed_again_and_again_it_is_still_the_same_run(undisturbed, corpus_folder, tmp_path):
  for when in (in_save(tmp_path, 10), in_save(tmp_path, 15, 9), after(tmp_path, 19)):
    run_and_kill(corpus_folder, tmp_path, when)
  done = train(corpus_folder, tmp_path)
  assert done.returncode == 0, done.stderr
  assert_same_run(tmp_path, undisturbed)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_storm_of_kills(corpus_folder, tmp_path):
  assert train(corpus_folder, tmp_path / 'whole', *LONG).returncode == 0
  workdir = tmp_path / 'run'
  for when in storm(workdir, 25):
    run_and_kill(corpus_folder, workdir, when, *LONG)
  assert train(corpus_folder, workdir, *LONG).returncode == 0
  assert losses(workdir) == losses(tmp_path / 'whole')
  assert arrays(workdir, 500) == arrays(tmp_path / 'whole', 500)


@pytest.mark.ci
@pytest.mark.parametrize('number', [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_told_to_stop_it_saves_and_asks_to_be_started_again(undisturbed, corpus_folder, tmp_path, number):
  process = start(corpus_folder, tmp_path, after(tmp_path, 7), number)
  said = process.communicate(timeout=300)[1]
  assert process.returncode == 75, said
  assert 'Traceback' not in said and 'run the same command again to resume' in said
  step = checkpoint.steps(tmp_path / 'checkpoints')[-1]
  assert 7 <= step < 30
  done = train(corpus_folder, tmp_path)
  assert done.returncode == 0 and f'resuming after step {step}' in done.stderr
  assert_same_run(tmp_path, undisturbed)


@pytest.mark.ci
def test_started_again_after_its_end_it_changes_nothing(undisturbed, corpus_folder):
  before = losses(undisturbed), arrays(undisturbed, 30)
  done = train(corpus_folder, undisturbed)
  assert done.returncode == 0 and 'held-out text' in done.stderr
  assert (losses(undisturbed), arrays(undisturbed, 30)) == before


@pytest.mark.slow
def test_the_newest_good_checkpoint_is_used_and_said(undisturbed, corpus_folder, tmp_path):
  shutil.copytree(undisturbed, tmp_path, dirs_exist_ok=True)
  newest = max((tmp_path / 'checkpoints' / '30' / 'state').rglob('*'),
               key=lambda path: path.stat().st_size)
  data = bytearray(newest.read_bytes())
  data[len(data) // 2] ^= 4
  newest.write_bytes(data)
  done = train(corpus_folder, tmp_path)
  assert done.returncode == 0, done.stderr
  assert 'checkpoint 30 is damaged' in done.stderr and 'resuming after step 25' in done.stderr
  assert_same_run(tmp_path, undisturbed)


@pytest.mark.slow
def test_eight_devices_resume_bit_for_bit_and_on_one_within_rounding(undisturbed, corpus_folder, tmp_path):
  eight = {'JAX_NUM_CPU_DEVICES': '8'}
  mesh = '--config.mesh.data=2', '--config.mesh.fsdp=4', '--config.train.microbatch_size=8'
  assert train(corpus_folder, tmp_path / 'whole', *mesh, env=eight).returncode == 0
  run_and_kill(corpus_folder, tmp_path / 'parts', after(tmp_path / 'parts', 13), *mesh, env=eight)
  assert train(corpus_folder, tmp_path / 'parts', *mesh, env=eight).returncode == 0
  assert_same_run(tmp_path / 'parts', tmp_path / 'whole')
  one, many = losses(undisturbed), losses(tmp_path / 'whole')
  for key in one:
    np.testing.assert_allclose(float.fromhex(one[key]), float.fromhex(many[key]), rtol=1e-4)


@pytest.mark.ci
def test_steps_that_are_never_finite_stop_the_run_with_a_clear_error(undisturbed, corpus_folder, tmp_path):
  model, tokenizer = gptjax.load(undisturbed)
  model.ln_f.g.set_value(model.ln_f.g[...] * 3e38)  # the logits overflow
  gptjax.save_pretrained(model, tokenizer, tmp_path / 'huge')
  done = train(corpus_folder, tmp_path / 'run', f'--config.init_from={tmp_path}/huge',
               '--config.train.max_skipped=3')
  assert done.returncode == 2
  last = done.stderr.strip().splitlines()[-1]
  assert '3 steps in a row' in last and 'learning_rate' in last and 'Traceback' not in done.stderr


def test_this_process_sees_the_devices_it_asked_for():
  assert jax.device_count() == 8
