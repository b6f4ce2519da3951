"""Checkpoints in a bucket: committed by one put, found after any kill, the same through every fault."""

import errno
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import object_storage
import pytest
from conftest import ROOT, mesh_of
from storage.test_checkpoint import FACTS, restored, state_on

from gptjax.errors import Denied, InputError, LostWorkdir, Unavailable
from gptjax.storage import checkpoint, manifest, ownership, step_folders
from gptjax.storage.files import buckets, cache, paths
from gptjax.storage.retention import Rules

NUMBERS = itertools.count()
NO_FAULTS = dict(fail=0.0, cut=0.0, code=503, method='', path='', fail_first=0, stall_first=0,
                 mutations_per_second=0.0)
SAVING = """
import sys
sys.path[:0] = [sys.argv[2], sys.argv[2] + '/tests']
import conftest
from gptjax.storage.files import paths
from storage.test_bucket_checkpoint import save
for first in range(int(sys.argv[3]), 100, 2):
  print('save', first, flush=True)
  save(paths.location(sys.argv[1]), first, first + 1, keep=2)
"""


@pytest.fixture(scope='module', params=object_storage.GS_AND_SLOWLY_S3)
def scheme_and_faults(request):
  with object_storage.in_process(object_storage.BUCKETS[request.param]('buck')) as faults:
    yield request.param, faults


@pytest.fixture
def served(scheme_and_faults):
  return scheme_and_faults[1]


@pytest.fixture
def folder(scheme_and_faults, monkeypatch):
  """`checkpoints` of a run of its own, without faults."""
  scheme, faults = scheme_and_faults
  monkeypatch.setattr(buckets, 'FIRST_PAUSE', 0.01)
  vars(faults).update(NO_FAULTS)
  yield paths.location(f'{scheme}://buck/run{next(NUMBERS)}/checkpoints')
  vars(faults).update(NO_FAULTS)


def save(folder, *steps, sizes=None, metrics=None, max_failed=1, upload_seconds=None, on_step=None, **rules):
  """Saves the state drawn from seed STEP under each step."""
  saves = checkpoint.Checkpoints(folder, Rules(**{'keep': 9, 'keep_best': 0, **rules}), FACTS,
                                 max_failed=max_failed, upload_seconds=upload_seconds)
  with mesh_of(**(sizes or {})):
    for step in steps:
      if on_step:
        on_step(step)
      saves.save(state_on(sizes or {}, seed=step), step, (metrics or {}).get(step))
      saves.wait(last=step == steps[-1])
  saves.close()


def same(state, step):
  for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(state_on({}, seed=step)), strict=True):
    np.testing.assert_array_equal(jax.device_get(a), jax.device_get(b))


@pytest.mark.parametrize('sizes, other', [
  ({}, {'data': 2, 'fsdp': 2}), pytest.param({'fsdp': 2, 'tensor': 2}, {}, marks=pytest.mark.slow)])
def test_a_state_is_restored_to_the_bit_on_any_mesh(folder, sizes, other):
  save(folder, 3, 5, sizes=sizes)
  step, state, said = restored(folder, other)
  assert step == 5 and not said
  same(state, 5)
  assert step_folders.steps(folder) == [3, 5] and step_folders.any_completed(folder)


def test_no_array_is_read_back_and_the_manifest_is_put_last(folder, served):
  save(folder, 2)
  written = sum(x.nbytes for x in jax.tree.leaves(state_on({}, 2)))
  served.requests.clear()
  served.answered = 0
  save(folder, 5)
  puts = [path for method, path, _ in served.requests if method in ('POST', 'PUT')]
  assert 'manifest.json' in str(puts[-1]) or buckets.entry(folder / '5' / manifest.MANIFEST)
  sent = sum(size for method, _, size in served.requests if method in ('POST', 'PUT'))
  assert sent < 2 * written + 100_000
  assert served.answered < written / 2 + 100_000


@pytest.mark.ci
def test_the_newest_and_the_best_stay_and_interrupted_deletions_are_finished(folder):
  save(folder, 1, 2, 3, 4, 5, keep=2, keep_best=1, metrics={1: 5.0, 2: 1.0, 3: 4.0})
  assert step_folders.steps(folder) == [2, 4, 5]
  buckets.put(folder / '4.deleting', b'')
  buckets.remove(folder / '4' / manifest.MANIFEST)
  assert step_folders.steps(folder) == [2, 5]
  save(folder, 6, keep=2, keep_best=1)
  assert step_folders.steps(folder) == [2, 5, 6]
  assert {name.partition('/')[0] for name in buckets.find(folder)} == {'2', '5', '6'}


@pytest.mark.slow
def test_milestones_keep_the_weights_alone(folder):
  save(folder, 2, 3, 4, 5, keep=1, keep_period=2, weights_only=True)
  milestones = folder.parent / 'milestones'
  assert step_folders.steps(folder) == [5] and step_folders.steps(milestones) == [2, 4]
  found = manifest.read_manifest(milestones / '4')
  assert manifest.find_fault(milestones / '4', found) is None
  assert found['arrays'] and all(name.startswith('params/') for name in found['arrays'])


@pytest.mark.first_cases(1)
@pytest.mark.parametrize('what', [
  'changed', 'no manifest', pytest.param('missing', marks=pytest.mark.slow),
  pytest.param('manifest', marks=pytest.mark.slow)])
def test_a_damaged_checkpoint_is_recorded_and_the_one_before_is_used(folder, what):
  save(folder, 3, 5)
  files = buckets.find(folder / '5' / 'state')
  largest = max(files, key=lambda name: files[name].size)
  if what == 'changed':
    buckets.put(folder / '5' / 'state' / largest, b'x' * files[largest].size)
  elif what == 'missing':
    buckets.remove(folder / '5' / 'state' / largest)
  elif what == 'manifest':
    buckets.put(folder / '5' / manifest.MANIFEST, b'{"step": 5}')
  else:
    buckets.remove(folder / '5' / manifest.MANIFEST)
  step, state, said = restored(folder)
  assert step == 3 and len(said) == 1 and 'checkpoint 5 is damaged' in said[0]
  same(state, 3)
  assert buckets.entry(folder / '5.damaged') and step_folders.steps(folder) == [3]
  save(folder, 5)  # the step is reached and saved again
  step, state, said = restored(folder)
  assert step == 5 and not said and not buckets.entry(folder / '5.damaged')
  same(state, 5)


def test_what_an_interrupted_save_left_is_deleted(folder):
  save(folder, 3, 5)
  buckets.put(folder / '5.saving', b'')
  buckets.remove(folder / '5' / manifest.MANIFEST)
  step, _, said = restored(folder)
  assert step == 3 and said == ['checkpoint 5 is incomplete: deleted']
  assert step_folders.steps(folder) == [3]


def test_a_lost_folder_gets_no_manifest_and_ends_the_run_at_once(folder):
  with ownership.own_folder(folder.parent):
    save(folder, 3)
    lose = lambda step: buckets.put(folder.parent / 'owner' / '000002.json', json.dumps(
      {'machine': [], 'token': 'other', 'host': 'b', 'pid': 1}))
    with pytest.raises(LostWorkdir, match='was taken over by process 1 on b'):
      save(folder, 5, 6, on_step=lose, max_failed=3)
  assert not buckets.entry(folder / '5' / manifest.MANIFEST) and step_folders.steps(folder) == [3]


@pytest.mark.ci
def test_a_deletion_that_was_interrupted_does_not_delete_the_step_when_it_is_saved_again(folder):
  save(folder, 3, 5)
  buckets.put(folder / '5.deleting', b'')
  buckets.remove(folder / '5' / manifest.MANIFEST)
  save(folder, 5)
  assert restored(folder)[0] == 5 and not buckets.entry(folder / '5.deleting')
  buckets.put(folder / '5.deleting', b'')
  assert restored(folder)[0] == 3 and step_folders.steps(folder) == [3]


def test_an_outage_is_not_damage(folder, served, monkeypatch):
  save(folder, 3)
  monkeypatch.setattr(buckets._Settings, 'retry_seconds', 0)
  vars(served).update(fail=1.0, code=403, path='manifest.json')
  with pytest.raises(Denied):
    restored(folder)
  vars(served).update(NO_FAULTS)
  assert restored(folder)[0] == 3 and not buckets.entry(folder / '3.damaged')


@pytest.mark.ci
@pytest.mark.parametrize('fault', [{'fail': 0.1}, *(pytest.param(fault, marks=pytest.mark.slow) for fault in (
  {'fail': 0.1, 'code': 429}, {'mutations_per_second': 1.0},
  {'cut': 0.1, 'path': '^/(download|storage/v1/b/buck/o/|buck/)'}))])
def test_faults_that_pass_change_nothing(folder, served, fault):
  vars(served).update(fault)
  save(folder, 3, 5, keep=1)
  step, state, said = restored(folder)
  assert (step, said) == (5, [])
  same(state, 5)
  assert step_folders.steps(folder) == [5]


@pytest.mark.ci
def test_training_survives_failed_saves_but_not_several_in_a_row(folder, served, monkeypatch):
  monkeypatch.setattr(buckets._Settings, 'retry_seconds', 1)
  def refuse(step):
    denied = {'fail': 1.0, 'code': 403, 'path': 'state'} if step in (4, 5, 7, 8) else {}
    vars(served).update(NO_FAULTS | denied)
  save(folder, 3, 4, 5, 6, on_step=refuse, max_failed=3)
  vars(served).update(NO_FAULTS)
  assert restored(folder)[0] == 6
  assert {name.partition('/')[0] for name in buckets.find(folder)} == {'3', '6'}, 'failed saves leave nothing'
  with pytest.raises(InputError, match='cannot save checkpoint 8') as error:
    save(folder, 7, 8, 9, on_step=refuse, max_failed=2)
  assert 'http_response_body' not in str(error.value) and 'spec=' not in str(error.value)


@pytest.mark.ci
@pytest.mark.parametrize('part, code', [
  ('STATE', 503), *(pytest.param(*fault, marks=pytest.mark.slow) for fault in (
    ('commit_success', 503), ('_METADATA', 503), ('_METADATA', 403)))])
def test_an_outage_while_orbax_writes_its_small_files_is_a_failed_save(folder, served, monkeypatch, capfd,
                                                                      caplog, part, code):
  monkeypatch.setattr(buckets._Settings, 'retry_seconds', 1)
  path = f'{folder.key.partition("/")[2]}/4/' + ('state$' if part == 'STATE' else f'state/{part}')
  def refuse(step):
    vars(served).update(NO_FAULTS | ({'fail': 1.0, 'code': code, 'path': path} if step == 4 else {}))
  save(folder, 3, 4, 5, on_step=refuse, max_failed=2)
  vars(served).update(NO_FAULTS)
  assert restored(folder)[0] == 5
  printed = capfd.readouterr().err
  assert 'cannot save checkpoint 4' in printed and 'Traceback' not in printed
  assert not [record for record in caplog.records if record.exc_info]


def test_an_outage_that_passes_while_orbax_writes_its_small_files_fails_no_save(folder, served, capfd):
  vars(served).update(fail_first=8, path=f'{folder.key.partition("/")[2]}/4/(state$|state/_|state/commit)')
  save(folder, 4)
  assert restored(folder)[0] == 4 and not served.fail_first and 'cannot save' not in capfd.readouterr().err


def test_a_full_disk_here_is_not_called_a_fault_of_the_storage(folder, tmp_path, monkeypatch):
  monkeypatch.setattr(cache._Settings, 'folder', tmp_path / 'cache')
  def full():
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
  saves = checkpoint.Checkpoints(folder, Rules(9, 0), FACTS, before_manifest=full)
  with mesh_of(), pytest.raises(InputError, match=f'no space left on the disk of {tmp_path}/cache') as error:
    saves.save(state_on({}, seed=3), 3)
    saves.wait(last=True)
  saves.close()
  assert not isinstance(error.value, Unavailable)


def test_a_run_does_not_end_as_if_its_last_checkpoint_were_saved(folder, served):
  saves = checkpoint.Checkpoints(folder, Rules(9, 0), FACTS, max_failed=3)
  vars(served).update(fail=1.0, code=403)
  with mesh_of():
    saves.save(state_on({}, seed=3), 3)
    assert saves.poll() is None  # reported: training would continue
    with pytest.raises(Denied, match='cannot save checkpoint 3'):
      saves.wait(last=True)
  saves.close()


def test_why_process_0_cannot_begin_a_save_reaches_the_others(folder, monkeypatch):
  saves = checkpoint.Checkpoints(folder.parent.parent.parent / 'no-such-bucket' / 'run', Rules(9, 0), FACTS)
  line = f'{saves.folder}: there is no bucket'
  monkeypatch.setattr(step_folders, 'is_complete', lambda path: False)
  def refuse(path):
    raise InputError(line)
  monkeypatch.setattr(step_folders, 'begin', refuse)
  assert saves._prepare(saves.folder / '3', None, None) == (False, f'cannot save checkpoint 3: {line}', 2)
  saves.close()


@pytest.mark.slow
def test_storage_that_never_answers_fails_the_save_in_a_bounded_time(folder, served, monkeypatch):
  save(folder, 3)
  monkeypatch.setattr(buckets._Settings, 'retry_seconds', 5)
  started = time.monotonic()
  with pytest.raises(InputError, match='cannot save checkpoint 5'):
    save(folder, 5, upload_seconds=5, on_step=lambda step: vars(served).update(fail=1.0, path='ocdbt'))
  assert time.monotonic() - started < 120
  vars(served).update(NO_FAULTS)
  assert restored(folder)[0] == 3


@pytest.mark.slow
def test_killed_at_random_moments_the_newest_complete_checkpoint_is_found(folder, tmp_path):
  seed = random.Random(1)
  for _ in range(50 if folder.scheme == 'gs' else 15):
    before = max((step for step in step_folders.steps(folder)
                  if buckets.entry(folder / str(step) / manifest.MANIFEST)), default=0)
    process = subprocess.Popen([sys.executable, '-c', SAVING, str(folder), str(ROOT), str(before + 1)],
                               cwd=tmp_path, env=os.environ.copy(), stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline().startswith('save'), process.poll()
    time.sleep(seed.uniform(0, 3))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    complete = [step for step in step_folders.steps(folder)
                if buckets.entry(folder / str(step) / manifest.MANIFEST)]
    step, state, said = restored(folder)
    assert step == max(complete, default=None) and (step or 0) >= before
    assert all('incomplete' in line for line in said), said
    if step:
      same(state, step)
