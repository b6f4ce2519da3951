"""Checkpoints: saved and restored to the bit on any mesh; every damage found, nothing deleted."""

import contextlib
import json
import os
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ENVIRONMENT, ROOT, mesh_of, tiny_config
from hypothesis import given, settings
from hypothesis import strategies as st

from gptjax import errors  # noqa: F401 (errors: of FULL)
from gptjax.errors import InputError
from gptjax.parallel import sharding
from gptjax.pretrain.loop import pretrain
from gptjax.storage import checkpoint, literal_path, orbax_io
from gptjax.storage.digests import digests
from gptjax.storage.retention import Rules
from gptjax.train.step import init_state

FACTS = {'corpus_digest': 'abc'}


def test_a_run_starts_without_orbax_which_takes_time_to_import():
  code = 'import sys, gptjax.pretrain.loop; assert "orbax.checkpoint" not in sys.modules'
  subprocess.run([sys.executable, '-c', code], check=True, cwd=ROOT)


def state_on(sizes, seed=0):
  config = tiny_config(**{'train.seed': seed})
  with mesh_of(**sizes):
    return jax.jit(lambda: init_state(config))()


def target_on(sizes):
  config = tiny_config()
  with mesh_of(**sizes) as mesh:
    return sharding.with_shardings(jax.eval_shape(lambda: init_state(config)), mesh)


def save(folder, *steps, sizes=None, metrics=None, **rules):
  """Saves the state drawn from seed STEP under each step."""
  saves = checkpoint.Checkpoints(folder, Rules(**{'keep': 9, 'keep_best': 0, **rules}), FACTS)
  with mesh_of(**(sizes or {})):
    for step in steps:
      saves.save(state_on(sizes or {}, seed=step), step, (metrics or {}).get(step))
    saves.wait()
  saves.close()


def restored(folder, sizes=None):
  """(step or None, state, what was said)."""
  said = []
  with mesh_of(**(sizes or {})):
    found = checkpoint.restore(folder, target_on(sizes or {}), said.append)
  return (found[1]['step'], found[0], said) if found else (None, None, said)


def assert_same(a, b):
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    assert x.dtype == y.dtype
    np.testing.assert_array_equal(x, y)


@pytest.mark.first_cases(1)
@pytest.mark.parametrize('source, target', [
  (dict(), dict(fsdp=8)), (dict(fsdp=4, tensor=2), dict(data=2)), (dict(data=8), dict(fsdp=2, tensor=4))])
def test_restores_to_the_bit_onto_another_mesh(tmp_path, source, target):
  save(tmp_path, 7, sizes=source)
  step, state, said = restored(tmp_path, target)
  assert step == 7 and not said
  assert_same(jax.device_get(state), jax.device_get(state_on(source, seed=7)))
  spec = jax.typeof(state.params['h']['mlp']['c_fc']['w']).sharding.spec
  assert spec == sharding.storage_spec(None, 'embed', 'mlp')


def test_an_empty_folder_restores_nothing(tmp_path):
  assert restored(tmp_path / 'absent') == (None, None, [])


def flip(path, offset):
  data = bytearray(path.read_bytes())
  data[offset % len(data)] ^= 1
  path.write_bytes(data)


def largest(folder):
  return max((path for path in folder.rglob('*') if path.is_file()), key=lambda p: p.stat().st_size)


DAMAGES = {
  'a flipped bit': lambda folder: flip(largest(folder / 'state'), 12345),
  'a flipped bit in the manifest': lambda folder: flip(folder / 'manifest.json', 777),
  'truncation': lambda folder: largest(folder / 'state').write_bytes(b'short'),
  'a missing file': lambda folder: largest(folder / 'state').unlink(),
  'no manifest': lambda folder: (folder / 'manifest.json').unlink(),
  'no arrays': lambda folder: shutil.rmtree(folder / 'state'),
  'an empty folder': lambda folder: (shutil.rmtree(folder), folder.mkdir()),
}


@pytest.mark.first_cases(2)
@pytest.mark.parametrize('damage', DAMAGES)
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_used(tmp_path, damage):
  save(tmp_path, 5, 10)
  DAMAGES[damage](tmp_path / '10')
  left = sorted(p.name for p in (tmp_path / '10').rglob('*'))
  step, state, said = restored(tmp_path)
  assert step == 5 and len(said) == 1 and '10.damaged' in said[0]
  assert_same(state, state_on({}, seed=5))
  assert sorted(p.name for p in (tmp_path / '10.damaged').rglob('*')) == left, 'nothing is deleted'
  assert not (tmp_path / '10').exists()


@pytest.mark.slow
def test_a_flipped_bit_anywhere_in_any_file_is_found(tmp_path):
  save(tmp_path / 'good', 5)
  files = [p for p in (tmp_path / 'good' / '5').rglob('*') if p.is_file() and p.stat().st_size]
  rng = np.random.default_rng(0)
  for file in files:
    for offset in rng.integers(0, file.stat().st_size, 4):
      folder = tmp_path / 'copy'
      shutil.rmtree(folder, ignore_errors=True)
      shutil.copytree(tmp_path / 'good', folder)
      flip(folder / file.relative_to(tmp_path / 'good'), int(offset))
      with pytest.raises(ValueError, match='none is valid'):
        restored(folder)


def test_refuses_to_start_over_when_none_is_good_now_and_later(tmp_path):
  save(tmp_path, 5)
  DAMAGES['a flipped bit'](tmp_path / '5')
  for _ in range(2):
    with pytest.raises(ValueError, match='none is valid'):
      restored(tmp_path)


def test_a_save_cut_short_is_set_aside_and_does_not_count(tmp_path):
  (tmp_path / '5').mkdir(parents=True)
  (tmp_path / '5' / 'saving').touch()
  (tmp_path / '5' / 'state.orbax-checkpoint-tmp').mkdir()
  step, _, said = restored(tmp_path)
  assert step is None and 'is incomplete' in said[0] and (tmp_path / '5.partial').is_dir()


def test_keeps_the_newest_and_the_best(tmp_path):
  metrics = {1: 3.0, 2: 1.0, 3: 2.0, 4: 5.0, 5: None, 6: 4.0}
  save(tmp_path, *metrics, keep=2, keep_best=1, metrics=metrics)
  assert checkpoint.steps(tmp_path) == [2, 5, 6]
  assert not list(tmp_path.glob('*.deleting'))


def test_saving_a_step_twice_keeps_the_first(tmp_path):
  save(tmp_path, 5)
  before = (tmp_path / '5' / 'manifest.json').read_text()
  save(tmp_path, 5)
  assert (tmp_path / '5' / 'manifest.json').read_text() == before


def test_another_model_is_refused_with_both_shapes(tmp_path):
  save(tmp_path, 5)
  config = tiny_config(**{'model.n_embd': 64})
  with mesh_of() as mesh:
    target = sharding.with_shardings(jax.eval_shape(lambda: init_state(config)), mesh)
    with pytest.raises(ValueError, match=r'3, 4, 8\].*in the checkpoint and.*3, 4, 16\].*in the config'):
      checkpoint.restore(tmp_path, target, print)


@settings(max_examples=30, deadline=None)
@given(data=st.data(), dtype=st.sampled_from(['float32', 'int32', 'bfloat16', 'bool']))
def test_any_changed_element_changes_the_digest(data, dtype):
  shape = (3, 4)
  x = np.asarray(jax.random.normal(jax.random.key(0), shape) * 10)
  x = x > 0 if dtype == 'bool' else x.astype(jnp.dtype(dtype))
  y = x.copy()
  raw = y.view(np.uint8).reshape(-1)
  if dtype == 'bool':
    raw[data.draw(st.integers(0, raw.size - 1))] ^= 1
  else:
    raw[data.draw(st.integers(0, raw.size - 1))] ^= 1 << data.draw(st.integers(0, 7))
  digest = lambda x: np.asarray(jax.jit(digests)(x))
  with mesh_of():
    assert (digest(jnp.asarray(x)) == digest(jnp.asarray(x))).all()
    assert (digest(jnp.asarray(x)) != digest(jnp.asarray(y))).all()
    assert (digest(jnp.asarray(x)) != digest(jnp.asarray(x.T.reshape(shape)))).any()


def test_digests_do_not_depend_on_the_mesh():
  def of(sizes):
    state = state_on(sizes)
    with mesh_of(**sizes):
      return [np.asarray(d).tolist() for d in jax.tree.leaves(jax.jit(digests)(state))]
  assert of({}) == of(dict(fsdp=4, tensor=2)) == of(dict(data=8))


SPECIAL = ['gpt2 [lr=3e-4]', 'a*b', 'a?b', 'a\\b', '[', 'a b/c*/[d]']


@pytest.mark.first_cases(2)
@pytest.mark.parametrize('name', SPECIAL)
def test_a_path_that_libraries_read_as_something_else_keeps_its_checkpoints(tmp_path, name):
  folder = tmp_path / name / 'checkpoints'
  save(folder, 5, sizes=dict(fsdp=2))
  step, state, said = restored(folder)
  assert step == 5 and not said
  assert_same(jax.device_get(state), jax.device_get(state_on({}, seed=5)))
  manifest = checkpoint.read_manifest(folder / '5')
  abstract = target_on({}).params
  read = checkpoint.read_weights(folder / '5', abstract)
  with mesh_of():
    assert_same(read, checkpoint.load_weights(folder / '5', manifest, abstract))
  assert [path.name for path in tmp_path.iterdir()] == [name.split('/')[0]], 'nothing lies elsewhere'


def test_where_such_a_path_cannot_be_had_it_is_refused_before_anything_is_written(
    corpus_folder, tmp_path, monkeypatch):
  monkeypatch.setattr(literal_path, 'DESCRIPTORS', tmp_path / 'absent')
  for name in SPECIAL:
    with pytest.raises(InputError, match='cannot be written on this system: choose a path without'):
      pretrain(tiny_config(**{'data.corpus': str(corpus_folder), 'train.steps': 1}), tmp_path / name)
  assert not list(tmp_path.iterdir())
  with literal_path.literal(tmp_path) as path:
    assert path == tmp_path


def test_a_step_that_was_damaged_and_is_saved_again_counts(tmp_path):
  save(tmp_path, 3, 5)
  (tmp_path / '5' / 'manifest.json').write_text('{}')
  assert restored(tmp_path)[0] == 3 and (tmp_path / '5.damaged').is_dir()
  save(tmp_path, 5)
  assert restored(tmp_path)[0] == 5 and checkpoint.steps(tmp_path) == [3, 5]


def spoil(what):
  """Makes each write of Orbax lose something that only opening it would tell."""
  def wait(writer, seconds=None, own=orbax_io.Writer.wait):
    own(writer, seconds)
    what(spoil.path)
  def start(writer, path, state, own=orbax_io.Writer.start):
    spoil.path = path
    own(writer, path, state)
  return {'wait': wait, 'start': start}


LOST = {
  'its database': lambda path: (path / 'manifest.ocdbt').unlink(),
  'a data file': lambda path: largest(path / 'ocdbt.process_0').unlink(),
  'the end of a data file': lambda path: os.truncate(largest(path / 'ocdbt.process_0'), 100),
  'an array of its tree': lambda path: (path / '_METADATA').write_text(
    (path / '_METADATA').read_text().replace('skipped', 'skopped')),
}


@pytest.mark.parametrize('what', LOST)
def test_a_manifest_is_signed_only_for_what_has_been_opened(tmp_path, monkeypatch, what):
  for name, replaced in spoil(LOST[what]).items():
    monkeypatch.setattr(orbax_io.Writer, name, replaced)
  with pytest.raises((ValueError, OSError, RuntimeError)):
    save(tmp_path, 5)
  assert not list(tmp_path.rglob('manifest.json')) and checkpoint.steps(tmp_path) == []


def test_a_checkpoint_that_orbax_only_logged_about_is_not_signed(tmp_path, monkeypatch):
  """As with 89beee7: the path as it is."""
  monkeypatch.setattr(orbax_io, 'literal', lambda folder: contextlib.nullcontext(folder))
  with pytest.raises(ValueError, match='does not exist'):
    save(tmp_path / 'a [b=1]', 5)
  assert not list(tmp_path.rglob('manifest.json'))


def test_chunks_are_counted_in_a_tree_of_any_height(tmp_path):
  import tensorstore
  store = tensorstore.KvStore.open({
    'driver': 'ocdbt', 'base': f'file://{tmp_path}/', 'config': {'max_decoded_node_bytes': 600,
                                                                'max_inline_value_bytes': 10}}).result()
  with tensorstore.Transaction() as transaction:
    for array in range(30):
      for key in ('.zarray', '0.0', '0.1', '1.0'):
        store.with_transaction(transaction)[f'params.part.{array:02}.w/{key}'] = b'x' * 20
  assert orbax_io._chunks(tmp_path, tmp_path) == {f'params.part.{array:02}.w': 3 for array in range(30)}
  root = tensorstore.ocdbt.dump(tensorstore.KvStore.open(f'file://{tmp_path}/').result()).result()
  assert root['versions'][-1]['root_height'] > 1


def test_what_a_save_leaves_after_it_failed_never_counts(tmp_path):
  (tmp_path / '5' / 'state.orbax-checkpoint-tmp').mkdir(parents=True)  # made again by TensorStore's threads
  assert restored(tmp_path)[0] is None and not checkpoint.any_completed(tmp_path)


FULL = '''
import os, resource, subprocess, sys, jax
sys.path.insert(0, 'tests')
from storage import test_checkpoint as t
if sys.argv[3] != 'first':
  t.checkpoint.Checkpoints._check_room = lambda *_: None
if sys.argv[3] == 'ulimit':
  resource.setrlimit(resource.RLIMIT_FSIZE, (8000, 8000))
if sys.argv[3] == 'read-only':
  subprocess.run(['mount', '-o', 'remount,ro', sys.argv[1]], check=True)
if sys.argv[3] == 'nobody':
  jax.config.update('jax_compilation_cache_dir', None)  # root's
  os.mkdir(sys.argv[1] + '.first')
  t.save(sys.argv[1] + '.first', 1)  # imports what a save imports late: the packages may be root's alone
  os.setuid(65534)
try:
  t.save(sys.argv[1], int(sys.argv[2]))
except Exception as error:
  print(t.errors.describe(error, sys.argv[1])[0])
'''


@pytest.mark.first_cases(1)
@pytest.mark.parametrize('look, says', [
  ('first', 'are left'), ('blind', 'no space left on the disk'),  # blind: as where a quota counts, no disk
  ('ulimit', 'File too large: raise the limit of file sizes (ulimit -f)'),
  ('read-only', 'Read-only file system: make it'),
  pytest.param('nobody', 'Permission denied: make it writable', marks=pytest.mark.slow)])
def test_what_the_machine_refuses_is_one_line_and_leaves_the_earlier_checkpoint(tmp_path, look, says):
  disk = tmp_path / 'disk'
  disk.mkdir()
  mount = subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', disk], capture_output=True)
  if mount.returncode:
    pytest.skip('needs the right to mount a small disk')
  try:
    save_in_a_process = lambda step, look: subprocess.run(
      [sys.executable, '-c', FULL, str(disk), step, look], cwd=ROOT, capture_output=True, text=True,
      check=True, env={**ENVIRONMENT, 'JAX_ENABLE_COMPILATION_CACHE': 'false'})  # else JAX warns of it
    save(disk, 5)
    if look in ('first', 'blind'):
      free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_bsize
      (disk / 'ballast').write_bytes(b'x' * (free - 20_000))
    done = save_in_a_process('6', look)
    assert says in done.stdout and str(disk) in done.stdout and done.stdout.count('\n') == 1, done
    # Python may say so at its end of what Orbax had begun when the save failed.
    said = [line for line in done.stderr.splitlines()
            if 'never awaited' not in line and 'tracemalloc' not in line]
    assert 'checkpoint is valid' in done.stdout and not said, done
    subprocess.run(['mount', '-o', 'remount,rw', disk], check=True)
    assert all(checkpoint.is_incomplete(disk / str(step)) for step in checkpoint.steps(disk) if step != 5)
    assert restored(disk)[0] == 5
  finally:
    subprocess.run(['umount', disk], check=True)


def test_a_manifest_names_every_array_and_file(tmp_path):
  save(tmp_path, 5)
  manifest = json.loads((tmp_path / '5' / 'manifest.json').read_text())
  assert manifest['arrays']['params/h/attn/c_attn/w'][:2] == [[2, 32, 3, 4, 8], 'float32']
  files = {str(p.relative_to(tmp_path / '5')) for p in (tmp_path / '5' / 'state').rglob('*')
           if p.is_file()}
  assert set(manifest['files']) == files and manifest['facts'] == FACTS


@pytest.mark.slow
def test_a_save_holds_up_training_for_less_than_a_twentieth_of_its_time(tmp_path):
  """On a quiet machine; with a free core the copy that a save begins with is all that steps wait for."""
  done = subprocess.run(
    [sys.executable, str(ROOT / 'tests' / 'storage' / 'save_process.py'), str(tmp_path / 'saves')], cwd=ROOT,
    env={**ENVIRONMENT, 'PYTHONPATH': str(ROOT), 'JAX_DISABLE_MOST_OPTIMIZATIONS': '0'}, capture_output=True,
    text=True)
  shares = [float(line.split()[0]) for line in done.stdout.splitlines()]
  assert len(shares) == 6 and np.median(shares[1:]) < 0.05, done.stdout + done.stderr
