"""Config files: found and run from any folder, and refused in one line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags
from absl.testing import flagsaver
from ml_collections import ConfigDict

from gptjax import defaults
from gptjax.config import command_line, files
from gptjax.errors import InputError
from gptjax.kernels import cpu

START = 'from configs import default\ndef get_config():\n  c = default.get_config()\n'


def written(folder, text, name='mine.py'):
  path = folder / name
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(text)
  return str(path)


@pytest.mark.parametrize('text, why', [
  ('def get_config(:', ':1 is not a config file in Python'),
  ('not Python', ':1: NameError'),
  ('\0', 'not a config file in Python'),
  ('x = 1', 'has no function get_config'),
  ('import no_such_module', ":1: ModuleNotFoundError: No module named 'no_such_module'"),
  (START + '  raise RuntimeError("disk")', ':4: RuntimeError: disk'),
  (START + '  raise SystemExit(3)', ':4: SystemExit: 3'),
  (START + '  raise RuntimeError', ':4: RuntimeError: no message'),
  (START, 'returns NoneType, not a ConfigDict'),
  (START + '  return {"job": "pretrain"}', 'returns dict, not a ConfigDict'),
  (START + '  del c.train.steps\n  return c', 'config.train.steps is missing'),
  (START + '  c.unlock()\n  c.train.stepz = 3\n  return c', 'did you mean config.train.steps?'),
  (START + '  c.unlock()\n  c.train.max_iters = 3\n  return c',
   "nanoGPT's max_iters is config.train.steps"),
  (START + '  c.train.steps = "many"\n  return c', ':4: TypeError'),
])
def test_a_bad_file_is_refused_with_its_name(tmp_path, text, why):
  path = written(tmp_path, text)
  with pytest.raises(InputError) as error:
    files.load(path)
  assert str(error.value).startswith(path) and why in str(error.value) and '\n' not in str(error.value)


def test_an_argument_that_a_config_does_not_know_is_named(tmp_path):
  start = START.replace('def get_config()', 'def get_config(size="")')
  path = written(tmp_path, start + '  {"": 1}[size]\n  return c')
  files.load(path)
  with pytest.raises(InputError, match=r"py:4: get_config does not know the argument '3M' of --config=.*:3M"):
    files.load(f'{path}:3M')
  with pytest.raises(InputError, match=r"the argument '3M' of --config=gpt2_sweep_tiny:3M: use"):
    files.load('gpt2_sweep_tiny:3M')


def test_a_file_that_is_not_there(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'mine.py').write_text(START)
  for path, why in (('absent.py', 'quickstart'), ('configs/gpt2_xxl.py', 'did you mean configs/gpt2_xl.py?'),
                    ('mine', 'did you mean mine.py[?]'), (str(tmp_path), 'cannot be read'),
                    ('/configs/gpt2_xl.py', 'no such file')):
    with pytest.raises(InputError, match=why):
      files.load(path)


def test_an_installed_config_is_found_from_any_folder_and_one_that_is_there_goes_first(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert files.load('configs/gpt2_xl.py').model.n_layer == 48
  assert files.load('gpt1_finetune.py:cola,rte').finetune.tasks == ('cola', 'rte')
  written(tmp_path, START + '  c.model.n_layer = 3\n  return c', 'configs/gpt2_xl.py')
  assert files.load('configs/gpt2_xl.py').model.n_layer == 3


def test_the_defaults_are_those_of_gptjax_whatever_the_current_folder_holds(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  written(tmp_path, 'raise SystemExit("run by mistake")', 'configs/default.py')
  written(tmp_path, START + '  c.train.seed = 5\n  return c', 'configs/base.py')
  written(tmp_path, 'from configs import base\nfrom configs import gpt2_small\n'
          'def get_config():\n  from configs import default\n  assert gpt2_small.get_config()\n'
          '  return base.get_config()', 'configs/mine.py')
  before = {name for name in sys.modules if name.partition('.')[0] == 'configs'}
  config = files.load('configs/mine.py')
  assert config.train.seed == 5 and config.model.to_dict() == defaults.get_config().model.to_dict()
  assert {name for name in sys.modules if name.partition('.')[0] == 'configs'} == before


@pytest.mark.parametrize('text', [
  'quickstart', 'quickstart.py', 'configs/quickstart', 'configs/quickstart.py'])
def test_a_config_of_gptjax_is_found_by_its_name(text, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'quickstart').mkdir()  # a folder is not a config
  assert files.find(text) == files.folder() / 'quickstart.py'
  with pytest.raises(InputError, match='no such file'):
    files.find(f'elsewhere/{text}')


@pytest.mark.parametrize('name', files.names())
def test_every_config_that_comes_with_gptjax_loads(name, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert isinstance(files.load(f'configs/{name}.py'), ConfigDict)
  assert files.shipped(name)


@pytest.mark.parametrize('flags, why', [
  (['--config=configs/quickstart.py', '--workdir=az://bucket/run'], 'az://bucket/run'),
  (['--config=configs/quickstart.py', '--workdir=w', '--config.init_from=az://bucket'], 'az://bucket'),
  (['--config=configs/quickstart.py', '--workdir=w', '--config.train.stps=3'], 'config.train.steps'),
  (['--config', 'configs/absent.py', '--workdir=w'], 'configs/absent.py'),
  (['--config=quickstart', '--batch_size=3'], 'mean --config.train.batch_size or --config.eval.batch_size?'),
  (['--config=quickstart', '--log_di=x'], '--log_di is not a flag: set config fields'),
  (['--config=quickstart', '--config.model.n_layer=3.5'], "n_layer = '3.5' must be a whole number from 1 to"),
  (['--config=quickstart', '--config.optimizer.learning_rate=fast'], "rate = 'fast' must be a number"),
  (['--config=quickstart', '--config.log.tensorboard=maybe'], "tensorboard = 'maybe' must be True or False"),
  (['mine.py', '--config.train.steps=3'], 'write --config=mine.py'), (['mine.py'], 'write --config=mine.py'),
  (['--confg=quickstart', '--config.train.steps=3'], 'did you mean --config?'),
  (['--workdir=w'], '--config is missing'), (['--config=', '--workdir=w'], '--config is missing')])
def test_flags_are_refused_in_one_line_and_nothing_is_left(tmp_path, flags, why, monkeypatch, capfd):
  monkeypatch.setattr(cpu, 'retain_freed_memory', lambda: None)  # it is for the whole process
  from gptjax import main
  monkeypatch.chdir(tmp_path)
  with flagsaver.flagsaver():
    assert main.main(['gptjax', *flags]) == 2
  said = capfd.readouterr().err
  assert why in said and said.count('\n') == 1, said
  assert not list(tmp_path.iterdir())


def test_the_command_refuses_in_one_line_and_leaves_nothing(tmp_path):
  root = str(Path(files.__file__).parents[2])
  flags = ['--config=configs/quickstart.py', '--workdir=w', '--config.init_from=az://bucket']
  ran = subprocess.run([sys.executable, '-m', 'gptjax.main', *flags], cwd=tmp_path, capture_output=True,
                       text=True, env={**os.environ, 'PYTHONPATH': root, 'JAX_PLATFORMS': 'cpu'})
  assert ran.returncode == 2 and 'az://bucket' in ran.stderr, ran.stderr
  assert ran.stderr.count('\n') == 1 and not list(tmp_path.iterdir()), ran.stderr


def test_a_flag_file_that_is_not_utf_8_is_refused_with_the_reason(tmp_path):
  (tmp_path / 'flags').write_bytes(b'--workdir=\xe9')
  flag_values = flags.FlagValues()
  flags.DEFINE_string('flagfile', '', '', flag_values=flag_values)
  with pytest.raises(InputError, match="can't decode byte 0xe9"):
    command_line.parse_flags(flag_values, ['gptjax', f'--flagfile={tmp_path}/flags'], (), '')
