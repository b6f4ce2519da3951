"""The command and what a user can get wrong: exit code 2, one line, nothing half-made."""

import json
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from conftest import ENVIRONMENT, ROOT, tiny_config, train

from gptjax.config import resolve as configs
from gptjax.pretrain.loop import pretrain


def refused(done):
  """The one line on stderr of a refusal."""
  assert done.returncode == 2, (done.returncode, done.stderr)
  lines = [line for line in done.stderr.splitlines() if line.strip()]
  assert len(lines) == 1 and lines[0].startswith('gptjax: '), done.stderr
  return lines[0]


@pytest.mark.first_cases(2)
@pytest.mark.parametrize('flags, says', [
  (['--config.model.n_leyer=3'], 'n_layer'),
  (['--config.modle.n_layer=3'], 'config.model.n_layer?'),
  (['--config.checkpoint.every=3'], 'config.checkpoint.every_steps?'),
  (['--config.train.steps=many'], 'steps'),
  (['--confg=x.py'], 'confg'),
  (['stray'], 'stray'),
  (['--config=configs/absent.py'], 'absent.py'),
  (['--config.eval.tasks=lambda'], 'did you mean lambada?'),
  (['--config.attention.kernel=cudnn'], 'cudnn')])
def test_a_wrong_flag_is_refused_in_one_line(corpus_folder, tmp_path, flags, says):
  assert says in refused(train(corpus_folder, tmp_path / 'run', *flags))
  assert not (tmp_path / 'run').exists()


@pytest.mark.first_cases(1)
@pytest.mark.parametrize('given', [[], ['--workdir=x']])
def test_missing_flags_are_named(given):
  done = subprocess.run([sys.executable, '-m', 'gptjax.main', *given], cwd=ROOT, env=ENVIRONMENT,
                        capture_output=True, text=True)
  assert 'is missing' in refused(done)


@pytest.mark.ci
def test_a_profile_of_the_steps_asked_for_without_tensorflow(corpus_folder, tmp_path):
  (tmp_path / 'first' / 'tensorflow').mkdir(parents=True)
  (tmp_path / 'first' / 'tensorflow' / '__init__.py').write_text(f"open({str(tmp_path / 'imported')!r}, 'w')")
  done = train(corpus_folder, tmp_path / 'run', '--config.train.steps=7', '--config.log.profile_steps=(1, 3)',
               '--config.log.tensorboard=True', '--config.log.sample_tokens=5',
               env={'PYTHONPATH': os.pathsep.join([str(tmp_path / 'first'), str(ROOT)])})
  assert done.returncode == 0, done.stderr
  assert not (tmp_path / 'imported').exists()
  assert 'sample, the longest of' in done.stderr and 'tensorboard --logdir' in done.stderr
  assert list((tmp_path / 'run' / 'tensorboard').rglob('*.xplane.pb'))
  assert list((tmp_path / 'run' / 'tensorboard').glob('events.out.tfevents.*'))
  lines = [json.loads(line) for line in (tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines()]
  record = next(line for line in lines if 'train/loss' in line)
  assert record.keys() >= {'step', 'train/loss', 'train/grad_norm', 'train/learning_rate',
                           'train/tokens_per_second', 'train/input_wait_fraction'}


def runnable(corpus, **changes):
  return tiny_config(**{'model.n_vocab': 290, 'data.corpus': str(corpus), 'train.steps': 2,
                        'log.tensorboard': False, 'mesh.data': 8, **changes})


@pytest.mark.parametrize('changes, says', [
  ({'train.batch_size': 12}, 'train.batch_size = 12 cannot be divided by'),
  ({'train.batch_size': 8, 'train.microbatch_size': 3}, 'train.microbatch_size = 3'),
  ({'model.n_head': 5}, 'model.n_embd = 32 cannot be divided by config.model.n_head = 5'),
  ({'data.seq_len': 25}, 'data.seq_len = 25 is longer than config.model.n_ctx = 24'),
  ({'train.steps': 0}, 'set config.train.steps or config.train.epochs'),
  ({'train.batch_size': 0}, 'batch_size = 0 must be a whole number from 1 to'),
  ({'model.dropout': 1.0}, 'model.dropout = 1.0 must be a number in [0, 1)'),
  ({'model.remat': 'some'}, "model.remat = 'some' must be one of none, dots, full"),
  ({'optimizer.name': 'sgd'}, "optimizer.name = 'sgd' must be one of adamw, muon"),
  ({'optimizer.schedule': 'step'}, "optimizer.schedule = 'step'"),
  ({'mesh.data': 3}, 'takes 3 devices'),
  ({'eval.batch_size': 3}, 'eval.batch_size = 3 cannot be divided by'),
  ({'data.tokenizer': 'train-bpe:300'}, 'has another vocabulary size than config.model.n_vocab = 290'),
  ({'log.profile_steps': (1, 2, 3)}, 'must be two steps'),
  ({'data.corpus': 'absent/folder'}, 'absent/folder'),
  ({'model.n_vocab': 50257}, 'tokenizer bpe of 290 entries, but config.model.n_vocab = 50257'),
  ({'data.tokenizer': 'gpt2'}, "not with config.data.tokenizer = 'gpt2'")])
def test_a_config_that_cannot_run_is_refused(corpus_folder, tmp_path, changes, says):
  with pytest.raises(ValueError, match=r'^[^\n]*$') as error:
    config = runnable(corpus_folder, **changes)
    pretrain(config, tmp_path / 'run')
  assert says in str(error.value)
  assert not (tmp_path / 'run').exists(), 'nothing half-made'


def flip_token(folder):
  shard = folder / 'train-00000.bin'
  data = bytearray(shard.read_bytes())
  data[100] ^= 1
  shard.write_bytes(data)


def foreign_id(folder):
  """An id outside the vocabulary, under hashes that fit."""
  import hashlib

  from gptjax.data.corpus.corpus_manifest import manifest_digest
  shard, path = folder / 'train-00000.bin', folder / 'manifest.json'
  tokens = np.fromfile(shard, '<u2')
  tokens[7] = 290
  shard.write_bytes(tokens.tobytes())
  manifest = json.loads(path.read_text())
  manifest['splits']['train']['shards'][0]['sha256'] = hashlib.sha256(tokens.tobytes()).hexdigest()
  manifest['digest'] = manifest_digest(manifest)
  path.write_text(json.dumps(manifest))


@pytest.mark.parametrize('damage, says', [
  (lambda f: shutil.rmtree(f), 'made'),
  (lambda f: (f / 'manifest.json').unlink(), 'manifest'),
  (lambda f: (f / 'manifest.json').write_text('{'), 'manifest'),
  (lambda f: (f / 'train-00000.bin').write_bytes(b'ab'), 'train-00000.bin'),
  (lambda f: (f / 'train-00000.bin').unlink(), 'train-00000.bin'),
  (flip_token, 'train-00000.bin'),
  (foreign_id, '290')])
def test_a_corpus_that_is_not_whole_is_refused(corpus_folder, tmp_path, damage, says):
  shutil.copytree(corpus_folder, tmp_path / 'made')
  damage(tmp_path / 'made')
  with pytest.raises(ValueError, match=r'^[^\n]*$') as error:
    pretrain(runnable(tmp_path / 'made'), tmp_path / 'run')
  assert says in str(error.value)
  assert not (tmp_path / 'run').exists()


def test_a_workdir_that_cannot_be_written_is_refused(corpus_folder, tmp_path):
  (tmp_path / 'file').touch()
  with pytest.raises(ValueError, match='is not writable'):
    pretrain(runnable(corpus_folder), tmp_path / 'file' / 'run')


def test_a_workdir_of_another_run_is_refused_by_field(corpus_folder, tmp_path):
  configs.write_or_check_config(runnable(corpus_folder), tmp_path, 'digest')
  changed = runnable(corpus_folder, **{'log.every_steps': 3, 'mesh.fsdp': 2})
  configs.write_or_check_config(changed, tmp_path, 'digest')
  with pytest.raises(ValueError, match=r'config\.train\.seed = 0, not 1'):
    configs.write_or_check_config(runnable(corpus_folder, **{'train.seed': 1}), tmp_path, 'digest')
  with pytest.raises(ValueError, match='another corpus'):
    configs.write_or_check_config(runnable(corpus_folder), tmp_path, 'other')
  (tmp_path / 'config.json').write_text('[]')
  with pytest.raises(ValueError, match=r'not a config\.json'):
    configs.write_or_check_config(runnable(corpus_folder), tmp_path, 'digest')


@pytest.mark.parametrize('path', sorted((ROOT / 'configs').glob('*.py')), ids=lambda p: p.stem)
def test_every_config_is_one_that_can_run(path):
  import importlib
  config = importlib.import_module(f'configs.{path.stem}').get_config()
  if path.stem == 'default':
    config.train.steps = 1
  configs.resolve(config, 'unused')
  configs.check(config)


@pytest.mark.parametrize('platform, remat, given, scan', [
  ('tpu', 'none', None, True), ('gpu', 'none', None, False), ('gpu', 'dots', None, False),
  ('gpu', 'full', None, True), ('cpu', 'none', None, False), ('tpu', 'none', False, False),
  ('gpu', 'none', True, True)])
def test_layers_are_scanned_where_that_costs_nothing_or_as_is_said(platform, remat, given, scan):
  from gptjax import defaults
  config = defaults.get_config()
  config.model.update(dict(remat=remat, scan=given, compute_dtype='float32'))
  configs.resolve(config, '', SimpleNamespace(platform=platform, device_kind='one', compute_capability='9.0'))
  assert config.model.scan is scan
  with pytest.raises(TypeError):
    config.model.scan = 'perhaps'


@pytest.mark.slow
def test_the_largest_model_runs_here_when_overrides_make_it_small(tmp_path):
  from gptjax.data.prepare import prepare
  (tmp_path / 'text.txt').write_text('All the world is a stage, and all the men are players. ' * 400)
  from conftest import SHARED
  if not SHARED.is_dir():
    pytest.skip(f'needs the vocabulary in {SHARED}')
  prepare([f'text:{tmp_path}/text.txt'], f'gpt2:{SHARED}/bpe/gpt2', str(tmp_path / 'corpus'),
          validation_fraction=0.1, clean='', workers=1, tfds_dir='', on_error='stop', seq_len=24)
  done = subprocess.run(
    [sys.executable, '-m', 'gptjax.main', '--config=configs/gpt2_xl.py',
     f'--workdir={tmp_path}/run', f'--config.data.corpus={tmp_path}/corpus', '--config.train.steps=2',
     '--config.model.n_layer=2', '--config.model.n_embd=400', '--config.train.batch_size=2',
     '--config.train.microbatch_size=2',
     '--config.data.seq_len=16',
     '--config.eval.steps=1', '--config.checkpoint.keep=1', '--config.log.tensorboard=False'],
    cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
  assert done.returncode == 0, done.stderr
  assert 'step 2/2' in done.stderr


def test_importing_the_step_needs_neither_tensorflow_nor_clu_nor_ml_collections():
  code = '''
import sys
for name in ("tensorflow", "tensorflow_datasets", "clu", "ml_collections"):
  sys.modules[name] = None
import gptjax.train.step, gptjax.parallel.sharding, gptjax.benchmark.subjects.train
from gptjax import defaults
config = defaults.get_config()
assert config.model.n_layer == 12
'''
  subprocess.run([sys.executable, '-c', code], cwd=ROOT, env=ENVIRONMENT, check=True)


def test_devices_are_those_of_this_process():
  assert jax.default_backend() == 'cpu'
