"""Workdirs of older versions go on as they began, whatever has become of the defaults since."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import ENVIRONMENT, ROOT

from gptjax import defaults
from gptjax.config import resolve as configs
from gptjax.config import resume
from gptjax.domains import Field, integer
from gptjax.errors import InputError
from gptjax.storage.files import run_config

V0_1 = ROOT / 'tests' / 'pretrain' / 'workdirs' / 'v0_1'

# Today's command, after defaults have changed and a field has come that was 3 before it existed.
CHANGED = '''
import sys
from gptjax import defaults, domains
changes = {'optimizer': dict(b2=0.5, learning_rate=1e-5, schedule='constant'), 'train': dict(seed=7),
           'model': dict(dropout=0.0, init_std=0.5, n_layer=3), 'eval': dict(every_steps=1),
           'log': dict(every_steps=2)}
for section, fields in changes.items():
  for name, value in fields.items():
    defaults.FIELDS[section][name] = defaults.FIELDS[section][name]._replace(default=value)
defaults.FIELDS['train']['newer'] = domains.Field(1, domains.integer(0), 'not in v0_1', legacy_default=3)
from gptjax import main
sys.exit(main.main(sys.argv))
'''


@pytest.fixture
def workdir(tmp_path):
  folder = shutil.copytree(V0_1, tmp_path / 'v0_1')
  (folder / 'expected.jsonl').unlink()
  return folder


def records(path):
  """{step: {metric: value}} of what the numbers of a run depend on."""
  found = {}
  for line in path.read_text().splitlines():
    record = json.loads(line)
    found.setdefault(record['step'], {}).update(
      {name: value for name, value in record.items() if name in (
        'train/loss', 'train/usual_loss', 'train/grad_norm', 'train/learning_rate', 'eval/loss')})
  return found


@pytest.mark.ci
@pytest.mark.parametrize('start', [pytest.param(['-m', 'gptjax.main'], id='as is', marks=pytest.mark.slow),
                                   pytest.param(['-c', CHANGED], id='defaults changed')])
def test_a_run_of_an_older_version_goes_on_to_the_same_figures(workdir, start):
  done = subprocess.run([sys.executable, *start, '--config=configs/default.py', f'--workdir={workdir}'],
                        cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=200)
  assert done.returncode == 0, done.stderr
  assert 'resuming after step 4' in done.stderr and 'restored from' in done.stderr
  made, want = records(workdir / 'metrics.jsonl'), records(V0_1 / 'expected.jsonl')
  assert made.keys() == {1, 2, 3, 4, 5, 6, 7, 8} and want.keys() == {5, 6, 7, 8}
  for step, metrics in want.items():
    for name, value in metrics.items():
      np.testing.assert_allclose(made[step][name], value, rtol=1e-4, err_msg=f'{step} {name}')
  if start[0] == '-c':
    assert 'config.train.newer = 3' in done.stderr


def test_a_field_that_is_given_and_differs_is_refused_by_name(workdir):
  config = defaults.get_config()
  config.data.corpus = 'elsewhere'
  resume.restore_stored_fields(config, workdir, {'train.seed', 'optimizer.b2'})
  config.optimizer.b2 = 0.9
  configs.resolve(config, workdir)
  digest = json.loads((workdir / 'config.json').read_text())['corpus_digest']
  with pytest.raises(InputError, match=r'config\.optimizer\.b2 = 0\.95, not 0\.9'):
    configs.write_or_check_config(config, workdir, digest)
  config.optimizer.b2 = 0.95
  configs.write_or_check_config(config, workdir, digest)


def test_a_given_default_is_not_replaced_by_what_is_stored(workdir):
  config = defaults.get_config()
  resume.restore_stored_fields(config, workdir, {'model.n_layer'})
  assert config.model.n_layer == 12 and config.model.n_embd == 16


def test_what_a_config_file_sets_is_compared_and_what_it_leaves_is_kept(workdir):
  config = defaults.get_config()
  config.optimizer.weight_decay = 0.3
  resume.restore_stored_fields(config, workdir)
  assert config.optimizer.weight_decay == 0.3 and config.optimizer.learning_rate == 0.01
  configs.resolve(config, workdir)
  with pytest.raises(InputError, match=r'config\.optimizer\.weight_decay = 0\.1, not 0\.3'):
    configs.write_or_check_config(config, workdir, '')


def test_devices_and_places_are_those_of_the_start(workdir):
  path = workdir / 'config.json'
  stored = json.loads(path.read_text())
  stored['config']['mesh']['fsdp'], stored['config']['attention']['kernel'] = 8, 'cudnn'
  stored['config']['data']['corpus'] = 'where/it/once/was'
  path.write_text(json.dumps(stored))
  config = defaults.get_config()
  resume.restore_stored_fields(config, workdir)
  assert (config.mesh.fsdp, config.attention.kernel, config.data.corpus) == (1, 'auto', '')


def test_fields_of_later_versions_are_as_before_them(workdir, monkeypatch):
  newer = Field(1, integer(0), 'was always 3', legacy_default=3)
  monkeypatch.setitem(defaults.FIELDS['train'], 'newer', newer)
  monkeypatch.setitem(defaults.FIELDS['train'], 'newest', Field(5, integer(0), 'no version did otherwise'))
  values, _ = run_config.read(workdir / 'config.json')
  assert (values['train.newer'], values['train.newest']) == (3, 5)
  config = defaults.get_config()
  resume.restore_stored_fields(config, workdir)
  assert (config.train.newer, config.train.newest) == (3, 5)
  config.train.newest = 6
  configs.resolve(config, workdir)
  with pytest.raises(InputError, match=r'config\.train\.newest = 5, not 6'):
    configs.write_or_check_config(config, workdir, '')


@pytest.mark.parametrize('damage', ['[]', '{', '{"config": 3}',
                                    '{"config": {"train": 3}, "corpus_digest": 2}',
                                    '{"config": {"train": {"seed": [1]}}, "corpus_digest": ""}'])
def test_a_damaged_config_is_refused_in_one_line(workdir, damage):
  (workdir / 'config.json').write_text(damage)
  with pytest.raises(InputError, match=r'^[^\n]*config\.json[^\n]*$'):
    resume.restore_stored_fields(defaults.get_config(), workdir)


def test_a_workdir_of_another_job_is_refused(workdir):
  config = defaults.get_config()
  config.job = 'evaluate'
  with pytest.raises(InputError, match=r"config\.job = 'pretrain', not 'evaluate'"):
    resume.restore_stored_fields(config, workdir)


def test_no_flipped_bit_of_a_stored_config_becomes_a_field_of_the_run(tmp_path):
  config = defaults.get_config()
  config.optimizer.learning_rate = 0.01
  configs.resolve(config, tmp_path)
  configs.write_or_check_config(config, tmp_path, 'digest')
  path = tmp_path / 'config.json'
  content, whole = path.read_bytes(), run_config.read(path)
  found = 0
  for at in range(len(content)):
    path.write_bytes(content[:at] + bytes([content[at] ^ 1 << at % 8]) + content[at + 1:])
    try:
      assert run_config.read(path) == whole
    except InputError as error:
      found += 1
      assert str(path) in str(error)
  assert found > 0.4 * len(content), 'spaces between values may change, values may not'


def test_a_new_workdir_changes_nothing(tmp_path):
  config = defaults.get_config()
  resume.restore_stored_fields(config, tmp_path)
  assert config.to_dict() == defaults.fields()
