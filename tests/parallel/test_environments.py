"""Environments in which a run must give the same losses, and those that are refused with exit code 2.

Elsewhere: signals, also ignored ones (test_shutdown), proxies and addresses (test_processes), variables of
clusters (test_cluster), errors of the machine by number (test_errors), streams that break or fill a disk
(test_telling), shells and batch systems (test_launch, test_slurm).
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import jax
import killing
import numpy as np
import pytest
from conftest import ENVIRONMENT, ROOT, command
from hosts import last_line, start, wait
from runs import losses

from gptjax import defaults
from gptjax.parallel import jax_settings

SHORT = ('--config.train.steps=4', '--config.checkpoint.every_steps=2', '--config.eval.every_steps=4',
         '--config.eval.steps=1')


DEFAULT_CACHE = defaults.declared()['compilation_cache'].default


class Row(NamedTuple):
  """A change to the environment of a run.

  env: variables; None: unset.
  prefix: what starts the command.
  python: options of Python.
  says: what stderr must hold.
  near: relative tolerance of the losses; 0: equal bit for bit.
  """
  env: Mapping = MappingProxyType({})
  prefix: tuple = ()
  python: tuple = ()
  says: str = ''
  near: float = 0.0


def shell(script):
  """A prefix: shell commands before the command."""
  return 'sh', '-c', f'{script}', 'sh'


# All that must not matter, at once.
ALL = Row({'OMP_NUM_THREADS': '1', 'LC_ALL': 'tr_TR.UTF-8', 'TZ': 'Pacific/Chatham', 'HOME': '/dev/null',
           'PYTHONHASHSEED': '7', 'PYTHONUTF8': '0', 'NO_COLOR': '1', 'TERM': 'dumb', 'COLUMNS': '1',
           'JAX_DEFAULT_PRNG_IMPL': 'rbg', 'JAX_THREEFRY_PARTITIONABLE': '0', 'JAX_RANDOM_SEED_OFFSET': '7'},
          shell('umask 077; exec taskset -c 0 "$@" <&-'), says='JAX_DEFAULT_PRNG_IMPL=rbg has no effect')

SAME = {
  'one thread': Row({'OMP_NUM_THREADS': '1'}),
  'one core': Row(prefix=('taskset', '-c', '0')),
  'Turkish': Row({'LANG': 'tr_TR.UTF-8', 'LC_ALL': 'tr_TR.UTF-8'}),
  'locale C': Row({'LANG': 'C', 'LC_ALL': 'C', 'PYTHONUTF8': '0', 'PYTHONCOERCECLOCALE': '0'}),
  'no such locale': Row({'LANG': 'xx_XX.bad', 'LC_ALL': 'xx_XX.bad'}),
  'no locale': Row({'LANG': None, 'LC_ALL': None}),
  'east of Greenwich': Row({'TZ': 'Pacific/Kiritimati'}),
  'no such time zone': Row({'TZ': ':/nowhere'}),
  'no HOME': Row({'HOME': None}),
  'HOME that cannot be written': Row({'HOME': '/dev/null'}),
  'stdin closed': Row(prefix=shell('exec "$@" <&-')),
  'stdout closed': Row(prefix=shell('exec "$@" >&-')),
  'stdin and stdout closed': Row(prefix=shell('exec "$@" <&- >&-')),
  '-O': Row(python=('-O',)),
  'umask 077': Row(prefix=shell('umask 077; exec "$@"')),
  'umask 000': Row(prefix=shell('umask 000; exec "$@"')),
  'hash seed': Row({'PYTHONHASHSEED': '12345'}),
  'no UTF-8 mode': Row({'PYTHONUTF8': '0'}),
  'no colours': Row({'NO_COLOR': '1'}),
  'dumb terminal': Row({'TERM': 'dumb'}),
  'one column': Row({'COLUMNS': '1', 'LINES': '1'}),
  'another generator': Row({'JAX_DEFAULT_PRNG_IMPL': 'rbg'}, says='JAX_DEFAULT_PRNG_IMPL=rbg has no effect'),
  'threefry of old': Row({'JAX_THREEFRY_PARTITIONABLE': '0'}, says='PARTITIONABLE=0 has no effect'),
  'another seed': Row({'JAX_RANDOM_SEED_OFFSET': '3'}, says='JAX_RANDOM_SEED_OFFSET=3 has no effect'),
  'checks for NaN': Row({'JAX_DEBUG_NANS': '1'}),
  'two devices': Row({'JAX_NUM_CPU_DEVICES': '2'}, near=1e-5),
  'four devices': Row({'JAX_NUM_CPU_DEVICES': '4'}, near=1e-5),
}

REFUSED = {
  'x64': Row({'JAX_ENABLE_X64': '1'}, says='JAX_ENABLE_X64=1 is not supported'),
  'no such platform': Row({'JAX_PLATFORMS': 'cpuu'}, says='JAX_PLATFORMS=cpuu'),
  'no number of devices': Row({'JAX_NUM_CPU_DEVICES': 'two'}, says='JAX_NUM_CPU_DEVICES=two'),
  'no jit': Row({'JAX_DISABLE_JIT': '1'}, says='JAX_DISABLE_JIT=1 is not supported'),
  'strict dtypes': Row({'JAX_NUMPY_DTYPE_PROMOTION': 'strict'}, says='JAX_NUMPY_DTYPE_PROMOTION=strict'),
  'strict ranks': Row({'JAX_NUMPY_RANK_PROMOTION': 'raise'}, says='JAX_NUMPY_RANK_PROMOTION=raise'),
  'absent platform': Row({'JAX_PLATFORMS': 'cuda'}, says='JAX_PLATFORMS=cuda'),
  'two platforms, one absent': Row({'JAX_PLATFORMS': 'cpu,rocm'}, says='JAX_PLATFORMS=cpu,rocm'),
  'no devices': Row({'JAX_NUM_CPU_DEVICES': '0'}, says='JAX_NUM_CPU_DEVICES=0'),
  'no such precision': Row({'JAX_DEFAULT_MATMUL_PRECISION': 'bad'}, says='JAX_DEFAULT_MATMUL_PRECISION=bad'),
  'neither true nor false': Row({'JAX_ENABLE_X64': 'perhaps'}, says='JAX_ENABLE_X64=perhaps'),
  'cache in a file': Row({'JAX_COMPILATION_CACHE_DIR': '/dev/null/cache'}, says='/dev/null/cache'),
  'cache at a URL': Row({'JAX_COMPILATION_CACHE_DIR': 'gs://bucket'}, says='JAX_COMPILATION_CACHE_DIR gs://'),
}
FAST = ('x64', 'no such platform', 'no number of devices', 'absent platform', 'strict dtypes')


def slow_unless(rows, fast):
  several = lambda row: row if type(row) is tuple else (row,)
  return [pytest.param(*several(rows[name]), id=name, marks=() if name in fast else pytest.mark.slow)
          for name in rows]


@pytest.fixture(scope='module')
def cache(tmp_path_factory):
  """Variables of a shared compilation cache."""
  return {'JAX_COMPILATION_CACHE_DIR': str(tmp_path_factory.mktemp('cache') / 'compiled'),
          'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0'}


def environment(changes, cache):
  """All variables of a process; changes to None unset them."""
  merged = {**ENVIRONMENT, **cache, **changes}
  return {name: value for name, value in merged.items() if value is not None}


def train(corpus, workdir, row, cache):
  """The real command under a Row, to its end."""
  python, *rest = command(corpus, workdir, *SHORT)
  return subprocess.run([*row.prefix, python, *row.python, *rest], cwd=ROOT, capture_output=True, text=True,
                        errors='replace', env=environment(row.env, cache), timeout=240)


@pytest.fixture(scope='module')
def reference(corpus_folder, tmp_path_factory, cache):
  """The workdir of a run in a plain environment."""
  workdir = tmp_path_factory.mktemp('reference') / 'run'
  done = train(corpus_folder, workdir, Row(), cache)
  assert done.returncode == 0, done.stderr
  assert len(losses(workdir)) == 9 and list(Path(cache['JAX_COMPILATION_CACHE_DIR']).iterdir())
  return workdir


def assert_same_losses(workdir, reference, near=0.0):
  found, expected = losses(workdir), losses(reference)
  assert found.keys() == expected.keys()
  if not near:
    assert found == expected
  for key in expected:
    np.testing.assert_allclose(float.fromhex(found[key]), float.fromhex(expected[key]), rtol=near)


def half(reference, into):
  """Copies a run without what it did after step 2."""
  shutil.copytree(reference, into)
  shutil.rmtree(into / 'checkpoints' / '4')
  metrics = into / 'metrics.jsonl'
  lines = metrics.read_text().splitlines(keepends=True)
  metrics.write_text(''.join(line for line in lines if '"step": 3' not in line and '"step": 4' not in line))
  assert 0 < len(losses(into)) < len(losses(reference))
  return into


@pytest.mark.ci
@pytest.mark.parametrize('row', [pytest.param(ALL, id='all at once'), *slow_unless(SAME, ())])
def test_losses_do_not_depend_on_the_environment(corpus_folder, tmp_path, reference, cache, row):
  done = train(corpus_folder, tmp_path / 'run', row, cache)
  assert done.returncode == 0, done.stderr
  assert row.says in done.stderr and 'Traceback' not in done.stderr
  assert_same_losses(tmp_path / 'run', reference, row.near)


@pytest.mark.first_cases(1)
@pytest.mark.parametrize('row', slow_unless(REFUSED, FAST))
def test_what_can_never_work_is_refused_in_one_line(corpus_folder, tmp_path, cache, row):
  done = train(corpus_folder, tmp_path / 'run', row, cache)
  assert done.returncode == 2, done.stderr
  # A plugin of JAX may be installed whose device this machine does not have.
  line, = (line for line in done.stderr.splitlines() if not line.startswith("JAX's plugin "))
  assert line.startswith('gptjax: '), done.stderr
  assert row.says in done.stderr
  assert not (tmp_path / 'run').exists(), 'nothing half-made'


COMMANDS = {
  'generate': ('gptjax.generate', '--from=x'), 'plan': ('gptjax.plan', '--topology=v5e:4x4'),
  'export': ('gptjax.pretrained', 'export', '--from=x', '--to=y'),
  'import': ('gptjax.pretrained', 'import', 'x', 'y'),
  'report': ('gptjax.report', '--workdir=x'),
  'overlap': ('gptjax.evaluate.overlap', '--workdir=x'), 'gptjax.benchmark': ('gptjax.benchmark', 'train')}


@pytest.mark.slow
@pytest.mark.parametrize('row', ['x64', 'no number of devices'])
@pytest.mark.parametrize('name', COMMANDS)
def test_each_command_refuses_it(tmp_path, name, row):
  done = subprocess.run([sys.executable, '-m', *COMMANDS[name]], cwd=tmp_path, capture_output=True, text=True,
                        env=environment({**REFUSED[row].env, 'PYTHONPATH': str(ROOT)}, {}), timeout=120)
  assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
  assert done.stderr.startswith(f'{name}: ') and REFUSED[row].says in done.stderr


# Resumes of a run that was stopped after step 2; each changes its workdir and gives the one to resume in.


def moved(workdir):
  return workdir.rename(workdir.parent / 'elsewhere')


def linked(workdir):
  link = workdir.parent / 'link'
  link.symlink_to(moved(workdir), target_is_directory=True)
  return link


def two_slashes(workdir):
  return f'/{workdir}'


def of_year(year):
  def change(workdir):
    seconds = (year - 1970) * 365.25 * 86400
    for path in (workdir, *workdir.rglob('*')):
      os.utime(path, (seconds, seconds))
    return workdir
  return change


def with_debris(workdir):
  """What kills leave at the worst moments."""
  for name in ('config.json.new', 'metrics.jsonl.new', '.probe-1', 'results.json.new', 'report.html.new'):
    (workdir / name).write_text('{"half')
  for name in ('1.deleting', '3.orbax-checkpoint-tmp', '4'):
    (workdir / 'checkpoints' / name).mkdir()
    (workdir / 'checkpoints' / name / 'half').write_text('of a file')
  return workdir




CHANGES = {'as it is': lambda workdir: workdir, 'moved': moved, 'linked': linked, 'two slashes': two_slashes,
           'of 1970': of_year(1970), 'of 2090': of_year(2090), 'with debris': with_debris}


@pytest.mark.ci
@pytest.mark.parametrize('change', slow_unless(CHANGES, ('with debris',)))
def test_a_resume_does_not_depend_on_where_its_workdir_is_or_when_it_was_written(
    corpus_folder, tmp_path, reference, cache, change):
  workdir = change(half(reference, tmp_path / 'run'))
  done = train(corpus_folder, workdir, Row(), cache)
  assert done.returncode == 0 and 'Traceback' not in done.stderr, done.stderr
  assert_same_losses(Path(workdir), reference)
  assert not list(Path(workdir).glob('checkpoints/*.deleting'))


@pytest.mark.slow
def test_a_new_workdir_may_begin_with_two_slashes(corpus_folder, tmp_path, reference, cache):
  done = train(corpus_folder, f'/{tmp_path}/run', Row(), cache)
  assert done.returncode == 0, done.stderr
  assert_same_losses(tmp_path / 'run', reference)


@pytest.mark.ci
def test_a_resume_under_other_settings_reports_them(corpus_folder, tmp_path, reference, cache):
  workdir = half(reference, tmp_path / 'run')
  more = f'{ENVIRONMENT["XLA_FLAGS"]} --xla_cpu_enable_fast_math=false'
  row = Row({'JAX_DEFAULT_MATMUL_PRECISION': 'highest', 'XLA_FLAGS': more})
  done = train(corpus_folder, workdir, row, cache)
  assert done.returncode == 0, done.stderr
  assert "JAX_DEFAULT_MATMUL_PRECISION is 'highest', but this run began with None" in done.stderr
  assert 'XLA_FLAGS is ' in done.stderr and done.stderr.count('but this run began with') == 2


def test_only_recorded_settings_are_reported(tmp_path):
  path, said = tmp_path / 'config.json', []
  path.write_text('{}')  # as older versions wrote it
  jax_settings.report_changes(path, said.append)
  path.write_text(json.dumps({'settings': jax_settings.effective()}))
  jax_settings.report_changes(path, said.append)
  assert not said
  path.write_text(json.dumps({'settings': {**jax_settings.effective(), 'JAX_ENABLE_X64': True, 'GONE': 1}}))
  jax_settings.report_changes(path, said.append)
  line, = said
  assert line.startswith('JAX_ENABLE_X64 is False, but this run began with True')


A, B = '--xla_a=1', '--xla_b=2'
WAYS = {  # of saying the same in XLA_FLAGS; @: the path of a file
  'another order': [f'{A} {B}', f'{B} {A}'], 'spaces': [f'{A} {B}', f'  {A}\t{B} ', f'{A}\n{B}'],
  'quotation marks': [A, '--xla_a="1"', "'--xla_a=1'"], 'a file': [f'{B} {A}', '@1', '@2', '--flagfile=@1'],
  'and more': [f'{B} --xla_c {A}', '--flagfile=@2 --xla_c', '--xla_c --flagfile=@3']}


@pytest.mark.parametrize('ways', [pytest.param(ways, id=name) for name, ways in WAYS.items()])
def test_flags_are_compared_by_what_they_say(monkeypatch, tmp_path, ways):
  files = [f'{A} {B}', f'# ours\n{B}\n\n{A}\n', f'--flagfile={tmp_path}/1']
  for i, text in enumerate(files, 1):
    (tmp_path / str(i)).write_text(text)
  def found(way):
    monkeypatch.setenv('XLA_FLAGS', way.replace('@', f'{tmp_path}/'))
    return jax_settings.effective()['XLA_FLAGS']
  assert len(set(map(found, ways))) == 1
  path, said = tmp_path / 'config.json', []
  path.write_text(json.dumps({'settings': {'XLA_FLAGS': ways[0]}}))  # as older versions wrote it
  jax_settings.report_changes(path, said.append)
  assert not said


@pytest.mark.parametrize('one, other', [
  (A, B), (A, f'{A} {B}'), ('--x=1 --x=2', '--x=2 --x=1'), (A, '--xla_a=1 2'), ('/nowhere', '/nowhere/2'),
  ('', '/nowhere'), ('--flagfile=/nowhere', ''), ('--x="', '--x=')])
def test_flags_that_say_something_else_differ(monkeypatch, one, other):
  def found(way):
    monkeypatch.setenv('XLA_FLAGS', way)
    return jax_settings.effective()['XLA_FLAGS']
  assert found(one) != found(other)


def test_files_of_flags_that_name_each_other_have_an_end(monkeypatch, tmp_path):
  (tmp_path / '1').write_text(f'--flagfile={tmp_path}/2')
  (tmp_path / '2').write_text(f'{A} --flagfile={tmp_path}/1')
  monkeypatch.setenv('LIBTPU_INIT_ARGS', f'--flagfile={tmp_path}/1')
  assert jax_settings.effective()['LIBTPU_INIT_ARGS'] == f'--flagfile={tmp_path}/1 {A}'


def test_every_setting_that_is_compared_is_one_of_jax():
  names = {*jax_settings.FIXED, *jax_settings.COMPARED}
  removed = {'jax_exec_time_optimization_effort', 'jax_memory_fitting_effort'}  # in jax 0.11
  here = names & jax.config.values.keys()
  assert names - here == (removed if jax.__version_info__ >= (0, 11) else set())
  compared = {name.upper() for name in here & {*jax_settings.COMPARED}}
  assert jax_settings.effective().keys() == compared | {*jax_settings.VARIABLES}


@pytest.mark.parametrize('variable, configured, given, folder', [
  ('', DEFAULT_CACHE, (), DEFAULT_CACHE), ('/v//c', DEFAULT_CACHE, (), '/v/c'), ('/v', '', (), ''),
  ('/v', '/file', (), '/file'), ('/v', DEFAULT_CACHE, {'compilation_cache'}, DEFAULT_CACHE)])
def test_the_config_goes_before_the_variable_and_that_before_the_default(
    monkeypatch, variable, configured, given, folder):
  monkeypatch.setenv('JAX_COMPILATION_CACHE_DIR', variable)
  before = jax.config.jax_compilation_cache_dir
  try:
    jax.config.update('jax_compilation_cache_dir', variable or None)
    assert jax_settings.cache_folder(configured, given) == folder
  finally:
    jax.config.update('jax_compilation_cache_dir', before)


def process_1_has(changes, tmp_path):
  """Variables with which the second of two processes has others."""
  (tmp_path / 'sitecustomize.py').write_text(
    f'import os, sys\nif "--process_id=1" in " ".join(sys.orig_argv):\n  os.environ.update({changes!r})\n')
  return {'PYTHONPATH': f'{ROOT}{os.pathsep}{tmp_path}'}


@pytest.mark.ci
@pytest.mark.parametrize('name, value, shown, first', slow_unless({
  'JAX_ENABLE_X64': ('JAX_ENABLE_X64', '1', True, False),
  'JAX_DISABLE_JIT': ('JAX_DISABLE_JIT', '1', True, False),
  'JAX_DEBUG_NANS': ('JAX_DEBUG_NANS', '1', True, False),
  'JAX_NUMPY_DTYPE_PROMOTION': ('JAX_NUMPY_DTYPE_PROMOTION', 'strict', 'strict', 'standard'),
  'JAX_DEFAULT_MATMUL_PRECISION': ('JAX_DEFAULT_MATMUL_PRECISION', 'highest', 'highest', None),
  'XLA_FLAGS': ('XLA_FLAGS', '--xla_cpu_enable_fast_math=true', '--xla_cpu_enable_fast_math=true',
                jax_settings._of_variable('XLA_FLAGS', ENVIRONMENT['XLA_FLAGS']))}, ('JAX_ENABLE_X64',)))
def test_a_difference_between_processes_is_named(corpus_folder, tmp_path, name, value, shown, first):
  running = start(corpus_folder, tmp_path / 'run', 2, env=process_1_has({name: value}, tmp_path))
  for code, error in wait(running, tmp_path / 'run'):
    assert code == 2, error
    assert f'{name} is {shown!r} in process 1 of 2' in last_line(error)
    assert f'but {first!r} in process 0 of 2' in last_line(error)
  assert not (tmp_path / 'run').exists()


@pytest.mark.slow
@pytest.mark.parametrize('name, value', [
  ('JAX_THREEFRY_PARTITIONABLE', '0'), ('JAX_DEFAULT_PRNG_IMPL', 'rbg'), ('JAX_RANDOM_SEED_OFFSET', '3')])
def test_processes_draw_the_same_whatever_one_of_them_is_told(
    corpus_folder, tmp_path, reference, cache, name, value):
  running = start(corpus_folder, tmp_path / 'run', 2, *SHORT,
                  env={**cache, **process_1_has({name: value}, tmp_path)})
  for code, error in wait(running, tmp_path / 'run'):
    assert code == 0, error
  assert f'{name}={value} has no effect' in error
  assert_same_losses(tmp_path / 'run', reference, near=1e-5)


def state(process):
  """The state of a process in one letter, T: stopped by a signal."""
  return Path(f'/proc/{process}/stat').read_text().rpartition(')')[2].split()[0]


@pytest.mark.slow
@pytest.mark.parametrize('number', [signal.SIGSTOP, signal.SIGTSTP, signal.SIGWINCH])
def test_a_run_continues_after(corpus_folder, tmp_path, reference, cache, number):
  plain = command(corpus_folder, tmp_path / 'run', *SHORT)
  stopping = killing.instead_of_main(plain, 'line', '*/metrics.jsonl', r'"step": 2\b', number)
  running = subprocess.Popen(stopping, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                             env=environment({}, cache))
  stopped = False
  while running.poll() is None:
    if state(running.pid) == 'T':
      stopped = True
      running.send_signal(signal.SIGCONT)
    time.sleep(0.02)
  assert running.returncode == 0, running.stderr.read()
  assert stopped or number != signal.SIGSTOP
  assert_same_losses(tmp_path / 'run', reference)
