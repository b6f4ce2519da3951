"""launch/: the scripts are sound, print what they would run; the manifest is one that Kubernetes takes."""

import os
import re
import shutil
import subprocess
import time

import pytest
import yaml
from conftest import ENVIRONMENT, ROOT, command

LAUNCH = ROOT / 'launch'
SCRIPTS = [LAUNCH / 'slurm.sbatch', *sorted(LAUNCH.glob('*.sh')), *sorted((ROOT / 'tests').glob('*.sh'))]


def run(*line, env=None):
  return subprocess.run(line, cwd=ROOT, env={**ENVIRONMENT, **(env or {})}, capture_output=True, text=True,
                        timeout=120)


@pytest.mark.parametrize('path', SCRIPTS, ids=lambda path: path.name)
def test_shell_scripts_pass_shellcheck(path):
  assert run('bash', '-n', str(path)).returncode == 0
  if not shutil.which('shellcheck'):
    pytest.skip('needs shellcheck')
  checked = run('shellcheck', str(path))
  assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize('arguments, expected', [
  (['create'], [r'queued-resources create run --node-id=run --accelerator-type=v6e-16 .*--spot']),
  (['install'], [r'tpu-vm scp \S+\.tgz run:gptjax\.tgz --worker=all', r'tpu-vm ssh run --worker=all']),
  (['run', '--workdir=a b'], [r'tpu-vm ssh run --worker=all --command=.*gptjax\.main']),
  (['logs'], [r'tpu-vm ssh run --worker=0 .*run\.log']),
  (['stop'], [r'tpu-vm ssh run --worker=all .*TERM']),
  (['status'], [r'queued-resources describe run']),
  (['restart', '--workdir=x'], [r'delete run --force', r'create run', r'describe run', r'scp', r'ssh',
                                r'ssh']),
  (['keep', '--workdir=x'], [r'describe run', r'delete run', r'create run', r'describe run', r'scp', r'ssh',
                             r'ssh']),
  (['delete'], [r'queued-resources delete run --force --quiet'])])
def test_a_dry_run_prints_each_gcloud_command_and_runs_none(tmp_path, arguments, expected):
  forbidden = tmp_path / 'gcloud'
  forbidden.write_text('#!/bin/sh\nexit 99\n')
  forbidden.chmod(0o755)
  done = run('launch/tpu_vm.sh', '--dry_run', *arguments, env={
    'NAME': 'run', 'TYPE': 'v6e-16', 'SPOT': '1', 'ZONE': 'us-east5-a',
    'PATH': f'{tmp_path}{os.pathsep}{os.environ["PATH"]}'})
  assert done.returncode == 0, done.stderr
  commands = [line for line in done.stdout.splitlines() if line.startswith('gcloud compute tpus ')]
  assert len(commands) == len(expected), done.stdout
  for line, pattern in zip(commands, expected, strict=True):
    assert re.search(pattern, line) and '--zone=us-east5-a' in line, line


@pytest.mark.parametrize('arguments', [[], ['sell']])
def test_what_it_does_not_know_it_does_not_do(arguments):
  done = run('launch/tpu_vm.sh', '--dry_run', *arguments)
  assert done.returncode == 2 and 'usage' in done.stderr


@pytest.mark.parametrize('arguments', [[], ['two', '--workdir=x'], ['2']])
def test_local_wants_a_number_and_a_workdir(arguments):
  done = run('launch/local.sh', *arguments)
  assert done.returncode == 2 and 'usage' in done.stderr


@pytest.mark.slow
def test_local_runs_two_processes_and_says_why_they_end(corpus_folder, tmp_path):
  import sys
  flags = [f'--config={ROOT}/configs/quickstart.py', *command(corpus_folder, tmp_path / 'run')[4:]]
  env = {'PYTHON': sys.executable, 'PYTHONPATH': str(ROOT)}
  done = run('launch/local.sh', '2', *flags, '--config.train.steps=3', env=env)
  assert done.returncode == 0 and '2 x cpu' in done.stderr, done.stderr
  done = run('launch/local.sh', '2', *flags, '--config.train.seed=9', env=env)
  assert done.returncode == 2
  assert 'config.train.seed = 0, not 9' in done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize('codes, runs, last', [
  ([0], 1, 0), ([2], 1, 2), ([75, 70, 137, 0], 4, 0), ([75, 2], 2, 2)])
def test_again_until_done_or_wrong(tmp_path, codes, runs, last):
  for i, code in enumerate(codes):
    (tmp_path / str(i)).write_text(str(code))
  line = f'cd {tmp_path}; n=$(ls ran* 2>/dev/null | wc -l); touch ran$n; exit $(cat $n)'
  done = run('launch/again.sh', 'bash', '-c', line, env={'PAUSE': '0'})
  assert done.returncode == last and len(list(tmp_path.glob('ran*'))) == runs


def test_told_to_end_it_does_not_start_again(tmp_path):
  line = (f'trap "touch {tmp_path}/told; exit 75" TERM; touch {tmp_path}/ready; '
          'while true; do sleep 0.05; done')
  process = subprocess.Popen(['launch/again.sh', 'bash', '-c', line], cwd=ROOT)
  while not (tmp_path / 'ready').exists():
    time.sleep(0.01)
  process.terminate()
  assert process.wait(120) == 75 and (tmp_path / 'told').exists()


def documents():
  return list(yaml.safe_load_all((LAUNCH / 'gke_jobset.yaml').read_text()))


def assert_known(value, kind, path):
  """Every field of `value` is one of the Kubernetes type `kind`, to the leaves."""
  from kubernetes.client import models
  if match := re.fullmatch(r'list\[(.+)\]', kind):
    assert isinstance(value, list), path
    for i, item in enumerate(value):
      assert_known(item, match[1], f'{path}[{i}]')
  elif match := re.fullmatch(r'dict[\[(]str, (.+)[\])]', kind):
    for key, item in value.items():
      assert_known(item, match[1], f'{path}.{key}')
  elif hasattr(models, kind):
    model = getattr(models, kind)
    types = {spelled: model.openapi_types[name] for name, spelled in model.attribute_map.items()}
    for key, item in value.items():
      assert key in types, f'{path} has no field {key}'
      assert_known(item, types[key], f'{path}.{key}')
  else:
    accepted = {'str': (str, int) if 'limits' in path else str, 'int': int, 'bool': bool, 'object': object}
    assert isinstance(value, accepted[kind]), f'{path} = {value!r} is no {kind}'


def test_each_part_is_of_the_published_types():
  pytest.importorskip('kubernetes')
  kinds = {'ServiceAccount': 'V1ServiceAccount', 'Role': 'V1Role', 'RoleBinding': 'V1RoleBinding'}
  for document in documents():
    if document['kind'] == 'JobSet':
      job = document['spec']['replicatedJobs'][0]['template']
      assert_known(document['metadata'], 'V1ObjectMeta', 'metadata')
      assert_known(job, 'V1JobTemplateSpec', 'template')
    else:
      assert_known(document, kinds[document['kind']], document['kind'])


def test_the_jobset_restarts_on_all_but_bad_input():
  jobset = next(document for document in documents() if document['kind'] == 'JobSet')
  # The fields of jobset.x-k8s.io/v1alpha2 that are used here, by its published definition.
  assert jobset['apiVersion'] == 'jobset.x-k8s.io/v1alpha2'
  assert jobset['spec'].keys() == {'network', 'failurePolicy', 'replicatedJobs'}
  assert jobset['spec']['network'].keys() <= {'enableDNSHostnames', 'publishNotReadyAddresses', 'subdomain'}
  policy, = jobset['spec']['failurePolicy']['rules']
  assert policy['action'] == 'FailJobSet' and policy['onJobFailureReasons'] == ['PodFailurePolicy']
  assert re.fullmatch('[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?', policy['name'])
  replicated, = jobset['spec']['replicatedJobs']
  assert replicated.keys() == {'name', 'replicas', 'template'} and replicated['replicas'] == 1
  job = replicated['template']['spec']
  assert job['parallelism'] == job['completions'] and job['completionMode'] == 'Indexed'
  assert job['backoffLimit'] == 0 and job['template']['spec']['restartPolicy'] == 'Never'
  rule, = job['podFailurePolicy']['rules']
  assert rule['action'] == 'FailJob' and rule['onExitCodes']['values'] == [2]
  container, = job['template']['spec']['containers']
  assert rule['onExitCodes']['containerName'] == container['name']
  mounts = {mount['name'] for mount in container['volumeMounts']}
  assert mounts == {volume['name'] for volume in job['template']['spec']['volumes']}
  for argument in container['args']:
    if argument.startswith('--config='):
      assert (ROOT / argument.removeprefix('--config=')).exists()


def test_the_image_has_what_the_command_needs():
  for line in (LAUNCH / 'Dockerfile').read_text().splitlines():
    if line.startswith('COPY '):
      for name in line.split()[1:-1]:
        assert (ROOT / name).exists(), name
  extras = (ROOT / 'setup.py').read_text()
  assert "'tpu':" in extras and "'cuda':" in extras and "'k8s':" in extras


def test_each_way_to_launch_has_its_section():
  text = (LAUNCH / 'README.md').read_text()
  for name in ('local.sh', 'tpu_vm.sh', 'slurm.sbatch', 'gke_jobset.yaml'):
    section = text.partition(f'## {name}')[2].partition('\n## ')[0]
    for word in ('What it does', 'What it needs', 'Watch', 'Stop', 'Resume'):
      assert f'**{word}' in section, (name, word)


def test_no_bucket_or_project_of_anyone_is_named():
  for path in LAUNCH.iterdir():
    assert not re.search(r'gs://(?!BUCKET)|gcr\.io|pkg\.dev', path.read_text()), path
