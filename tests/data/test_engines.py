"""`prepare` on other engines writes the corpus of one process; the files of the guide start all shares."""

import shlex
import subprocess
import sys

import markdown_pages as pages
import pytest
import yaml
from conftest import ENVIRONMENT
from prepared import command, contents, make_texts, run, write_jsonl

from gptjax.command.parsers import prepare as parsers
from gptjax.data import prepare
from gptjax.data.stages import parts
from gptjax.errors import InputError

PAGE = 'docs/howto/prepare_on_many_machines.md'
BEAM = ['--engine=beam', '--', '--direct_running_mode=multi_processing', '--direct_num_workers=2']


@pytest.fixture
def beam():
  return pytest.importorskip('apache_beam', reason="needs apache_beam: pip install -e '.[beam]'")


def flags_of(source, out):
  """Flags of a corpus for which `run` has the same settings."""
  return [*command(source, out)[3:], f'--shard_tokens={parsers.SHARD_TOKENS}']


@pytest.mark.parametrize('workers', [1, 2])
def test_beam_writes_the_corpus_of_one_process(tmp_path, monkeypatch, beam, workers):
  source, flags = write_jsonl(tmp_path / 'a.jsonl', make_texts(300)), BEAM if workers == 2 else BEAM[:1]
  monkeypatch.setattr(parts, 'MIN_BYTES', 20_000)  # the borders of parts are decided in this process
  run(source, tmp_path / 'one')
  prepare.main([*flags_of(source, tmp_path / 'beam'), *flags])
  assert contents(tmp_path / 'beam') == contents(tmp_path / 'one')


@pytest.mark.parametrize('workers', [1, 2])
def test_an_error_of_a_task_on_beam_is_one_line(tmp_path, beam, workers):
  path = tmp_path / 'a.jsonl'
  source, flags = write_jsonl(path, make_texts(30)), BEAM if workers == 2 else BEAM[:1]
  lines = path.read_text().splitlines()
  path.write_text('\n'.join([*lines[:20], lines[20][:-5], *lines[21:]]))
  done = subprocess.run(command(source, tmp_path / 'c', *flags), capture_output=True, text=True,
                        env=ENVIRONMENT, check=False)
  assert done.returncode == 2, done.stderr
  line = done.stderr.splitlines()[-1]
  assert line.startswith(f'prepare: {path}:21: not JSON') and line.endswith('would leave it out'), done.stderr
  assert ('Traceback' in done.stderr) == (workers == 2)  # Beam prints it in its own worker processes


def test_an_error_of_the_machine_of_a_task_on_beam_is_one_of_the_user(tmp_path, monkeypatch, beam):
  def full(job, number):
    raise OSError(28, 'No space left on device', '/full')
  monkeypatch.setitem(prepare.stages.STAGES, 'join', prepare.stages.Stage(
    prepare.stages.STAGES['join'].count, lambda job: lambda number: full(job, number), ''))
  source = write_jsonl(tmp_path / 'a.jsonl', make_texts(30))
  with pytest.raises(InputError, match='no space left on the disk of /full: free some'):
    prepare.main([*flags_of(source, tmp_path / 'c'), '--engine=beam'])


def test_flags_that_beam_refuses_are_one_line(tmp_path, beam):
  source = write_jsonl(tmp_path / 'a.jsonl', make_texts(3))
  with pytest.raises(InputError, match='Apache Beam refuses its flags --runner=Nothing: Unexpected pipeline'):
    prepare.main([*flags_of(source, tmp_path / 'c'), '--engine=beam', '--', '--runner=Nothing'])


def test_without_beam_the_line_names_the_extra(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'apache_beam', None)
  monkeypatch.delitem(sys.modules, 'gptjax.data.stages.beam', raising=False)
  monkeypatch.delattr('gptjax.data.stages.beam', raising=False)
  with pytest.raises(InputError, match=r"--engine=beam needs Apache Beam: pip install 'gptjax\[beam\]'"):
    prepare.main([*flags_of('text:x', tmp_path / 'c'), '--engine=beam'])
  assert not (tmp_path / 'c').exists()


@pytest.mark.parametrize('flags, says', [
  (['--engine=beam', '--stage=encode'], '--stage=encode: --engine=beam runs all stages'),
  (['--', '--runner=X'], '--runner=X is after --, where the flags of --engine=beam are')])
def test_flags_that_contradict_each_other(tmp_path, flags, says):
  with pytest.raises(InputError, match=says):
    prepare.main([*flags_of('text:x', tmp_path / 'c'), *flags])


def test_the_step_of_the_guide_for_datatrove(tmp_path, monkeypatch):
  pytest.importorskip('datatrove', reason='needs datatrove: pip install datatrove')
  monkeypatch.chdir(tmp_path)
  name = 'prepare_datatrove.py'
  (tmp_path / name).write_text(pages.files(PAGE)[name])
  (tmp_path / 'zen.txt').write_text(''.join(make_texts(50)))
  subprocess.run([sys.executable, name], env=ENVIRONMENT, check=True)
  prepare.prepare(['text:zen.txt'], 'train-bpe:280', 'one', validation_fraction=0, progress=False)
  assert contents(tmp_path / 'corpora/zen-datatrove') == contents(tmp_path / 'one')
  assert len(list((tmp_path / 'logs/join/completions').iterdir())) == 4


def test_the_scripts_of_the_guide_for_slurm_submit_each_stage_after_the_one_before(tmp_path):
  files = pages.files(PAGE)
  for name in ('submit.sh', 'prepare.sbatch'):
    (tmp_path / name).write_text(files[name])
  commands = {'sbatch': 'echo "$@" >>submitted; wc -l <submitted', 'gptjax': 'printf "%s\\n" "$@"'}
  for name, body in commands.items():
    (tmp_path / name).write_text(f'#!/bin/sh\n{body}\n')
    (tmp_path / name).chmod(0o755)
  env = {**ENVIRONMENT, 'PATH': f'{tmp_path}:{ENVIRONMENT["PATH"]}', 'SLURM_ARRAY_TASK_ID': '7'}
  subprocess.run(['bash', 'submit.sh'], cwd=tmp_path, env=env, check=True)
  submitted = (tmp_path / 'submitted').read_text().splitlines()
  assert [line.split()[-1] for line in submitted] == list(parsers.STAGES)
  assert ['--dependency=' in line for line in submitted] == [False, True, True, True, True]
  assert all(f'--dependency=afterok:{i}' in line for i, line in enumerate(submitted) if i)
  given = subprocess.run(['bash', 'prepare.sbatch', 'mark'], cwd=tmp_path, env=env, check=True,
                         capture_output=True, text=True).stdout.splitlines()
  flags = parsers.parser().parse_args(given[1:])
  assert (given[0], flags.stage, flags.task, flags.tasks) == ('prepare', 'mark', 7, 100)
  assert f'--array=0-{flags.tasks - 1} ' in files['prepare.sbatch']


def test_the_job_of_the_guide_for_kubernetes_has_a_pod_for_each_share():
  spec = yaml.safe_load(pages.files(PAGE)['prepare.yaml'].replace('STAGE', 'encode'))['spec']
  container, = spec['template']['spec']['containers']
  line, = container['args']
  name, job, *given = shlex.split(line.replace('$JOB_COMPLETION_INDEX', str(spec['completions'] - 1)))
  flags = parsers.parser().parse_args(given)
  assert (name, job, flags.stage) == ('gptjax', 'prepare', 'encode')
  assert flags.task + 1 == flags.tasks == spec['completions'] and spec['completionMode'] == 'Indexed'
