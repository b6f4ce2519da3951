"""A sweep is the ordinary runs of its sizes: the same configs, workdirs and losses, also after kills."""

import json
import signal
import subprocess
import sys

import killing
import pytest
from conftest import ENVIRONMENT, ROOT
from runs import after, losses

from gptjax.config import files
from gptjax.errors import InputError
from gptjax.model.size import n_params
from gptjax.pretrain import sweep as sweeps
from gptjax.report import telemetry
from gptjax.storage import checkpoint

CONFIG = """
from configs import default

SIZES = {{'small': (1, 16), 'large': (2, 32)}}

def get_config(size=''):
  config = default.get_config()
  config.job = 'pretrain' if size else 'sweep'
  n_layer, n_embd = SIZES[size or 'small']
  config.model.update(dict(n_layer=n_layer, n_head=2, n_embd=n_embd, n_ctx=24, n_vocab=290))
  config.data.update(dict(corpus='{corpus}', seq_len=24))
  config.train.update(dict(steps=8, batch_size=8))
  config.optimizer.warmup_steps = 2
  config.eval.every_steps = 4
  config.checkpoint.every_steps = 2
  config.log.update(dict(every_steps=1, tensorboard=False))
  config.sweep.update(dict(sizes=tuple(SIZES), tasks='held_out'))
  return config
"""


@pytest.fixture(scope='module')
def file(corpus_folder, tmp_path_factory):
  path = tmp_path_factory.mktemp('config') / 'family.py'
  path.write_text(CONFIG.format(corpus=corpus_folder))
  return str(path)


def command(file, workdir, *flags):
  return [sys.executable, '-m', 'gptjax.main', f'--config={file}', f'--workdir={workdir}', *flags]


def run(line, **more):
  return subprocess.run(line, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=280, **more)


def planned(file, tmp_path, *, only=(), codes=None, **overrides):
  """What a sweep runs: ([(workdir, config)], its exit code); each run returns its code of `codes`, else 0."""
  config, seen = files.load(file), []
  for name, value in overrides.items():
    section, _, field = name.partition('__')
    config[section][field] = value
  def run_job(one, workdir, given):
    assert 'job' not in given
    seen.append((workdir.relative_to(tmp_path).name, one))
    code = (codes or {}).get(workdir.name, 0)
    if isinstance(code, Exception):
      raise code
    return code
  names = {name.replace('__', '.') for name in overrides} | {'job'}
  return seen, lambda: sweeps.sweep(config, file, tmp_path, names, only, run_job)


@pytest.fixture(autouse=True)
def no_report(monkeypatch, request):
  if 'planned' in request.function.__code__.co_names:
    monkeypatch.setattr(sweeps, 'write_report', lambda sizes, workdir: None)


@pytest.mark.ci
def test_each_size_has_a_workdir_of_its_own_and_its_tasks_come_after_it(file, tmp_path):
  seen, start = planned(file, tmp_path)
  assert start() == 0
  assert [(name, one.job, one.model.n_layer) for name, one in seen] == [
    ('small', 'pretrain', 1), ('small-zero-shot', 'evaluate', 1),
    ('large', 'pretrain', 2), ('large-zero-shot', 'evaluate', 2)]
  assert seen[3][1].init_from == str(tmp_path / 'large') and seen[3][1].eval.tasks == 'held_out'
  assert not seen[2][1].eval.tasks, 'the tasks are not run during the training'


def test_overrides_apply_to_all_sizes(file, tmp_path):
  seen, start = planned(file, tmp_path, train__steps=5, eval__limit=3)
  start()
  assert [(one.train.steps, one.eval.limit) for _, one in seen] == [(5, 3)] * 4
  assert [one.model.n_embd for _, one in seen] == [16, 16, 32, 32], 'the rest is that of the size'


def test_a_single_size_and_no_tasks(file, tmp_path):
  seen, start = planned(file, tmp_path, only=['large'], sweep__tasks='')
  assert start() == 0 and [name for name, _ in seen] == ['large']


def test_what_a_run_returns_or_raises_ends_the_sweep(file, tmp_path, capsys):
  seen, start = planned(file, tmp_path, codes={'large': 75})
  assert start() == 75 and [name for name, _ in seen] == ['small', 'small-zero-shot', 'large']
  assert 'large has stopped with exit code 75, run 3 of 4' in capsys.readouterr().err
  seen, start = planned(file, tmp_path, codes={'small': InputError('no such text')})
  with pytest.raises(InputError, match='no such text'):
    start()
  assert len(seen) == 1 and 'small has failed, run 1 of 4' in capsys.readouterr().err


@pytest.mark.parametrize('only, overrides, why', [
  (['huge'], {}, '--size=huge is not a size of this sweep: the sizes are small, large'),
  ([], {'sweep__sizes': ()}, 'config.sweep.sizes is empty'),
  ([], {'sweep__sizes': ('../x',)}, 'cannot be the name of a workdir'),
  ([], {'sweep__sizes': ('small', 'small')}, 'cannot be the name of a workdir'),
  ([], {'sweep__sizes': ('small', 'huge')}, "does not know the argument 'huge'"),
  ([], {'sweep__tasks': 'lambda'}, "config.sweep.tasks has 'lambda'"),
  ([], {'train__batch_size': 0}, 'config.train.batch_size = 0')])
def test_an_invalid_sweep_is_refused_before_anything_runs(file, tmp_path, only, overrides, why):
  seen, start = planned(file, tmp_path, only=only, **overrides)
  with pytest.raises(InputError) as error:
    start()
  assert why in str(error.value) and '\n' not in str(error.value) and not seen


def test_the_workdir_of_a_run_is_refused(file, tmp_path):
  """Its report.html would be replaced by that of the sweep."""
  (tmp_path / 'config.json').write_text('{}')
  seen, start = planned(file, tmp_path)
  with pytest.raises(InputError, match=r'is the workdir of one run.*set --workdir'):
    start()
  assert not seen


@pytest.mark.ci
def test_the_time_of_a_run_does_not_include_the_runs_before_it(file, tmp_path, monkeypatch):
  monkeypatch.setattr(telemetry, 'PROCESS_START', -1.0)
  planned(file, tmp_path)[1]()
  assert telemetry.PROCESS_START > 0


@pytest.mark.parametrize('name', ['gpt2_sweep', 'gpt2_sweep_tiny', 'gpt2_released_sweep'])
def test_the_sizes_of_the_shipped_sweeps_are_those_of_their_names(name, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  config = files.load(name)
  assert config.job == 'sweep' and config.sweep.sizes
  for size in config.sweep.sizes:
    one = files.load(f'{name}:{size}')
    assert one.job == ('evaluate' if one.init_from else 'pretrain') and one.init_from in ('', size)
    if not one.init_from:
      digits = len(size.removesuffix('M').partition('.')[2])
      assert f'{n_params(one.model) / 1e6:.{digits}f}M' == size


def digests(workdir):
  """The digests of the final weights and optimizer state."""
  step = checkpoint.steps(workdir / 'checkpoints')[-1]
  return step, checkpoint.read_manifest(workdir / 'checkpoints' / str(step))['arrays']


@pytest.fixture(scope='module')
def alone(file, tmp_path_factory):
  """The large size by the ordinary command."""
  workdir = tmp_path_factory.mktemp('alone') / 'large'
  done = run(command(f'{file}:large', workdir))
  assert done.returncode == 0, done.stderr
  return workdir


@pytest.mark.slow
def test_after_kills_and_a_stop_it_is_the_same_as_the_ordinary_runs(file, alone, tmp_path):
  killed = run(killing.instead_of_main(command(file, tmp_path), *after(tmp_path / 'large', 3)))
  assert killed.returncode == -signal.SIGKILL, killed.stderr
  small, held_out = digests(tmp_path / 'small'), tmp_path / 'small-zero-shot' / 'results.json'
  before = json.loads(held_out.read_text())
  line = killing.instead_of_main(command(file, tmp_path), *after(tmp_path / 'large', 5), signal.SIGTERM)
  stopped = run(line)
  assert stopped.returncode == 75 and 'large has stopped with exit code 75' in stopped.stderr, stopped.stderr
  done = run(command(file, tmp_path))
  assert done.returncode == 0 and 'report of the sweep' in done.stderr, done.stderr
  assert digests(tmp_path / 'large') == digests(alone) and losses(tmp_path / 'large') == losses(alone)
  assert digests(tmp_path / 'small') == small, 'a finished size is kept'
  assert json.loads(held_out.read_text())['seconds'] == before['seconds'], 'and so are its results'
  report = (tmp_path / 'report.md').read_text()
  assert '| small | ' in report and '| large | ' in report and 'figure-4.svg' in report


@pytest.mark.slow
def test_sizes_that_are_launched_separately_are_in_one_report(file, alone, tmp_path):
  """The one by the ordinary config, the other by --size."""
  alone.rename(tmp_path / 'large')
  try:
    done = run(command(file, tmp_path, '--size=small', '--config.sweep.tasks='))
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {'small', 'large', 'report-figures'}
    assert '| large | ' in (tmp_path / 'report.md').read_text()
  finally:
    (tmp_path / 'large').rename(alone)


def test_a_size_without_a_sweep_is_refused(file, tmp_path):
  done = run(command(file, tmp_path, '--size=large', '--config.job=pretrain'))
  assert done.returncode == 2 and f'for one size use --config={file}:large' in done.stderr


@pytest.mark.ci
def test_a_size_that_fails_ends_the_command_with_its_exit_code(file, tmp_path):
  done = run(command(file, tmp_path, '--config.model.n_head=5', '--config.sweep.tasks='))
  lines = done.stderr.splitlines()
  assert done.returncode == 2 and 'Traceback' not in done.stderr
  assert 'small has failed, run 1 of 2' in lines[-2]
  assert 'config.model.n_embd = 16 cannot be divided' in lines[-1]
