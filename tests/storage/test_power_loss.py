"""The law: nothing older is deleted before all that replaces it is on disk.

At each rename and deletion the power fails; the run must go on from what is left then.
"""

import contextlib
import functools
import hashlib
import json
import random

import jax
import numpy as np
import pytest
from conftest import mesh_of, tiny_config
from flax import nnx
from power_loss import Disk
from safetensors.numpy import load_file
from storage import test_checkpoint

from gptjax.data.clean.webtext import RECIPES
from gptjax.data.prepare import prepare
from gptjax.data.stages import parts
from gptjax.data.tokenizers import training
from gptjax.evaluate.overlap.build import build_filter
from gptjax.model.gpt import GPT
from gptjax.pretrain import rewind
from gptjax.pretrained.export import folder_files, write_folder
from gptjax.pretrained.run_weights import save_corpus_tokenizer
from gptjax.storage import checkpoint, rewind_log
from gptjax.storage.files import atomic
from gptjax.storage.retention import Rules


def content(folder, without=()):
  """{path: digest} of the files and folders below a folder."""
  digest = lambda path: hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ''
  return {str(path.relative_to(folder)): digest(path) for path in sorted(folder.rglob('*'))
          if not any(part in str(path) for part in without)}


def losses(folder, into, monkeypatch, work, progress=None, without=()):
  """Runs work; gives [(what a power loss leaves of a folder, len(progress) then)], those that differ.

  Args:
    folder: that work writes to.
    into: folder for what is left.
    work: function without arguments.
    progress: list that work appends to.
    without: parts of paths that make no difference.
  """
  left, seen = [], set()
  into.mkdir()
  def before(disk, path):
    del path
    image = disk.after_loss(into / str(len(list(into.iterdir()))))
    key = json.dumps([content(image, without), len(progress or ())])
    if key not in seen:
      left.append((image, len(progress or ())))
    seen.add(key)
  with monkeypatch.context() as patch, contextlib.closing(Disk(folder, patch, before)) as disk:
    work()
    before(disk, folder)
  return left


@pytest.mark.ci
def test_a_checkpoint_can_be_restored_at_every_moment_after_the_first(tmp_path, monkeypatch):
  folder = tmp_path / 'run'
  folder.mkdir()
  completed = []  # steps whose save had ended when the power failed
  def work():
    saves = checkpoint.Checkpoints(folder / 'checkpoints', Rules(1, 0), {})
    for step in (1, 2, 3):
      saves.save(test_checkpoint.state_on({}, seed=step), step)
      saves.wait()
      completed.append(step)
    saves.close()
  with mesh_of():
    left = losses(folder, tmp_path / 'left', monkeypatch, work, completed, without=('.deleting',))
  assert len(left) > 10
  for image, had in left:
    step, state, _ = test_checkpoint.restored(image / 'checkpoints')
    assert had == 0 or step >= had, (image.name, had, step)
    if step:
      test_checkpoint.assert_same(state, test_checkpoint.state_on({}, seed=step))
  assert step == 3


def test_a_checkpoint_that_is_gone_back_from_goes_after_the_rewind_is_on_disk(tmp_path, monkeypatch):
  workdir = tmp_path / 'run'
  for step in (5, 10):
    (workdir / 'checkpoints' / str(step)).mkdir(parents=True)
    checkpoint.write_manifest(workdir / 'checkpoints' / str(step), {
      'step': step, 'metric': None, 'arrays': {}, 'files': {}, 'facts': {'rewinds': 0}})
  def killed_before_the_sync():
    with monkeypatch.context() as patch:
      patch.setattr(atomic, 'sync', lambda path: None)
      written = {'step': 11, 'loss': 9.0, 'usual_loss': 5.0, 'to': 5, 'passed': 6}
      atomic.write(workdir / rewind_log.FILE, json.dumps([written]))
    rewind.apply_rewinds(workdir)
  left = losses(workdir, tmp_path / 'left', monkeypatch, killed_before_the_sync)
  gone = [image for image, _ in left if checkpoint.steps(image / 'checkpoints') == [5]]
  assert gone and all((image / rewind_log.FILE).exists() for image in gone)
  assert checkpoint.steps(workdir / 'checkpoints') == [5]


def test_an_export_is_absent_or_whole(tmp_path, monkeypatch):
  with mesh_of():
    model = jax.jit(lambda key: GPT(key, tiny_config()))(jax.random.key(0))
  params, files = nnx.to_pure_dict(nnx.state(model)), folder_files(model, None)
  (tmp_path / 'run').mkdir()
  def work():
    for step in (1, 2):
      weights = jax.tree.map(lambda x, step=step: np.full(x.shape, step, np.float32), params)
      write_folder(files, weights, tmp_path / 'run' / 'export', {'step': str(step)})
  left = losses(tmp_path / 'run', tmp_path / 'left', monkeypatch, work)
  found = []
  for image, _ in left:
    if (image / 'export').exists():
      values = load_file(image / 'export' / 'model.safetensors').values()
      found += {float(x) for value in values for x in (value.min(), value.max())}
      assert (image / 'export' / 'config.json').read_bytes() == files['config.json']
  assert found == sorted(found) and set(found) == {1.0, 2.0}


def test_a_tokenizer_in_a_workdir_is_absent_or_whole(tmp_path, monkeypatch):
  training.train('bpe', 260, ['the cat sat'], progress=False).save(tmp_path / 'tokenizer')
  (tmp_path / 'run').mkdir()
  left = losses(tmp_path / 'run', tmp_path / 'left', monkeypatch,
                lambda: save_corpus_tokenizer(tmp_path / 'tokenizer', tmp_path / 'run'))
  found = [{path.name: path.read_bytes() for path in (image / 'tokenizer').iterdir()} for image, _ in left
           if (image / 'tokenizer').exists()]
  assert found == [{path.name: path.read_bytes() for path in (tmp_path / 'tokenizer').iterdir()}]


@pytest.fixture(scope='module')
def texts(tmp_path_factory):
  folder, rng = tmp_path_factory.mktemp('texts'), random.Random(0)
  words = ['tree', 'walks', 'under', 'the', 'blue', 'stone']
  for i in range(6):
    (folder / f'{i}.txt').write_text(' '.join(rng.choices(words, k=150)))
  return folder


def assert_resumes(left, work, want, folder, limit):
  """Goes on from what is left (from `limit` of them), and compares with the undisturbed result."""
  rng = random.Random(0)
  chosen = left if len(left) <= limit else [*rng.sample(left[:-4], limit - 4), *left[-4:]]
  for image, _ in chosen:
    work(image / folder)
    assert content(image / folder, ('.lock',)) == want, image.name


def test_prepare_goes_on_to_the_same_bytes(tmp_path, monkeypatch, texts):
  monkeypatch.setattr(parts, 'MIN_BYTES', 1500)
  made = functools.partial(
    prepare, [f'text:{texts}/*.txt'], 'train-bpe:270', validation_fraction=0.2, seq_len=4, clean='webtext',
    clean_without=set(RECIPES['webtext']) - {'exact_duplicate'}, workers=1, tfds_dir='', on_error='stop',
    shard_tokens=700, progress=False)
  work = lambda folder: made(str(folder))
  (tmp_path / 'run').mkdir()
  left = losses(tmp_path / 'run', tmp_path / 'left', monkeypatch, lambda: work(tmp_path / 'run' / 'corpus'))
  assert len(left) > 20
  assert_resumes(left, work, content(tmp_path / 'run' / 'corpus', ('.lock',)), 'corpus', 30)


def test_a_filter_goes_on_to_the_same_bits(tmp_path, monkeypatch, texts):
  def work(folder):
    build_filter('f', [f'text:{texts}/*.txt'], folder, rate=1e-4, capacity=0, workers=1, tfds_dir='',
                 on_error='stop', separator='', progress=False)
  folder = tmp_path / 'run' / 'filters'
  folder.mkdir(parents=True)
  left = losses(tmp_path / 'run', tmp_path / 'left', monkeypatch, lambda: work(folder))
  assert len(left) > 3
  assert_resumes(left, work, content(folder), 'filters', 20)
