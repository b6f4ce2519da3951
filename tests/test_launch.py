"""launch/: the scripts are sound, print what they would run; the manifest is one that Kubernetes takes."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from conftest import ENVIRONMENT, ROOT, command

LAUNCH = ROOT / 'launch'
SCRIPTS = [LAUNCH / 'slurm.sbatch', *(path for folder in ('launch', 'tests', 'docs')
                                       for path in sorted((ROOT / folder).rglob('*.sh')))]


def run(*line, env=None):
  return subprocess.run(line, cwd=ROOT, env={**ENVIRONMENT, **(env or {})}, capture_output=True, text=True,
                        timeout=120)


@pytest.mark.parametrize('path', SCRIPTS, ids=lambda path: path.name)
def test_shell_scripts_pass_shellcheck(path):
  assert run('bash', '-n', str(path)).returncode == 0
  beside_python = f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}'  # where pip puts it
  shellcheck = shutil.which('shellcheck', path=beside_python)
  if not shellcheck:
    pytest.skip('needs shellcheck')
  checked = run(shellcheck, '--external-sources', str(path))
  assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize('arguments, expected', [
  (['create'], [r'queued-resources create run --node-id=run --accelerator-type=v6e-16 .*--spot']),
  (['install'], [r'tpu-vm scp \S+/gptjax\.tgz \S+/run\.token run:\. --worker=all',
                r'tpu-vm ssh run --worker=all']),
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


@pytest.mark.parametrize('workdir, found', [
  ('~/runs/x', 'HOME/runs/x'), ('~', 'HOME'), ('runs/~', 'runs/~'), ('~other/x', '~other/x'), ('a b', 'a b')])
@pytest.mark.parametrize('flags', [['--workdir={}'], ['--workdir', '{}']])
def test_the_scripts_know_the_workdir_as_the_command_does(tmp_path, workdir, found, flags):
  flags = [flag.format(workdir) for flag in flags]
  done = run('bash', '-c', 'source launch/restarts.sh; workdir_of "$@"', 'name', 'x', *flags, '--predict',
             env={'HOME': str(tmp_path)})
  assert done.stdout == found.replace('HOME', str(tmp_path)), done.stderr


@pytest.mark.parametrize('bucket', ['my-runs', '', "it's", "x'; touch HIT; '", '$(touch HIT)', 'a b'])
def test_a_bucket_is_a_name_and_not_a_command(tmp_path, bucket):
  """What the workers are sent is run here, with stubs of the programs that they would need."""
  bucket, home = bucket.replace('HIT', f'{tmp_path}/hit'), tmp_path / 'home'
  (home / 'env' / 'bin').mkdir(parents=True)
  stubs = {
    tmp_path / 'gcloud': f"""for word in "$@"; do
  [[ $word != --command=* ]] || printf %s "${{word#*=}}" >{tmp_path}/command
  [[ $word != */run.token ]] || cp "$word" {home}/
done""",
    tmp_path / 'gcsfuse': f'printf "%s\\n" "$@" >{tmp_path}/mounted', tmp_path / 'mountpoint': 'exit 1',
    tmp_path / 'tar': '', tmp_path / 'python3': '', home / 'env' / 'bin' / 'pip': ''}
  for path, body in stubs.items():
    path.write_text(f'#!/bin/bash\n{body}\n')
    path.chmod(0o755)
  path = {'PATH': f'{tmp_path}{os.pathsep}{os.environ["PATH"]}'}
  assert run('launch/tpu_vm.sh', 'install', env={**path, 'BUCKET': bucket}).returncode == 0
  on_worker = ['bash', str(tmp_path / 'command')]
  done = subprocess.run(on_worker, cwd=home, env={**ENVIRONMENT, **path}, capture_output=True, timeout=60)
  assert done.returncode == 0 and not (tmp_path / 'hit').exists(), done.stderr
  mounted = (tmp_path / 'mounted').read_text().splitlines()[-2:] if bucket else ['', '../bucket']
  assert mounted == [bucket, '../bucket']


def test_the_workers_of_tpu_vm_are_given_a_token_in_a_file(tmp_path):
  (tmp_path / 'gcloud').write_text(f"""#!/bin/bash
for word in "$@"; do
  [[ $word != --command=* ]] || printf %s "${{word#*=}}" >{tmp_path}/command
  [[ $word != */run.token ]] || cp "$word" {tmp_path}/
done""")
  (tmp_path / 'gcloud').chmod(0o755)
  path = {'PATH': f'{tmp_path}{os.pathsep}{os.environ["PATH"]}'}
  assert run('launch/tpu_vm.sh', 'install', env=path).returncode == 0
  token = (tmp_path / 'run.token').read_text()
  assert re.fullmatch('[0-9a-f]{64}', token) and 'chmod 600 run.token' in (tmp_path / 'command').read_text()
  assert run('launch/tpu_vm.sh', 'run', '--workdir=w', env=path).returncode == 0
  assert token not in (tmp_path / 'command').read_text()
  again = tmp_path / 'gptjax' / 'launch' / 'again.sh'
  again.parent.mkdir(parents=True)
  again.write_text('#!/bin/bash\necho "$GPTJAX_RUN_TOKEN"\n')
  again.chmod(0o755)
  subprocess.run(['bash', str(tmp_path / 'command')], cwd=tmp_path, timeout=60, check=True)
  deadline = time.monotonic() + 60
  while not (tmp_path / 'run.log').read_text() and time.monotonic() < deadline:
    time.sleep(0.01)
  assert (tmp_path / 'run.log').read_text() == f'{token}\n'


@pytest.mark.parametrize('given', ['', 'a secret of the users own'])
@pytest.mark.parametrize('script, starts', [('launch/local.sh', 'python'), ('launch/slurm.sbatch', 'srun')])
def test_all_processes_get_one_token_and_not_as_an_argument(tmp_path, script, starts, given):
  (tmp_path / starts).write_text(f"""#!/bin/bash
[[ $1 == -c ]] && exec {sys.executable} "$@"
echo "$GPTJAX_RUN_TOKEN" >>{tmp_path}/tokens
echo "$@" >>{tmp_path}/arguments
""")
  (tmp_path / starts).chmod(0o755)
  (tmp_path / 'launch').symlink_to(LAUNCH)
  env = {'PATH': f'{tmp_path}{os.pathsep}{os.environ["PATH"]}', 'SLURM_SUBMIT_DIR': str(tmp_path),
         'SLURM_JOB_ID': '7', 'JAX_PLATFORMS': 'cpu', 'GPTJAX_RUN_TOKEN': given}
  done = run('bash', script, *(['3'] if starts == 'python' else []), f'--workdir={tmp_path}/w', env=env)
  assert done.returncode == 0, done.stderr
  tokens = (tmp_path / 'tokens').read_text().splitlines()
  assert len(tokens) == (3 if starts == 'python' else 1) and len(set(tokens)) == 1
  assert tokens[0] == given if given else re.fullmatch('[0-9a-f]{64}', tokens[0])
  assert tokens[0] not in (tmp_path / 'arguments').read_text()


def devices_of(tmp_path, n, gpus, **env):
  """local.sh on a machine with so many GPUs: (exit code, ['CUDA_VISIBLE_DEVICES;JAX_PLATFORMS'], stderr)."""
  (tmp_path / 'nvidia-smi').write_text(
    f'#!/bin/bash\nfor ((i = 0; i < {gpus}; i++)); do echo "GPU $i: H200"; echo "  MIG 1g"; done\n')
  (tmp_path / 'python').write_text(f'''#!/bin/bash
[[ $1 == -c ]] && exec {sys.executable} "$@"
for flag in "$@"; do [[ $flag == --process_id=* ]] && me=${{flag#*=}}; done
echo "${{CUDA_VISIBLE_DEVICES-not set}};${{JAX_PLATFORMS-not set}}" >{tmp_path}/device-$me
echo "${{JAX_NUM_CPU_DEVICES-not set}}" >{tmp_path}/cpus
''')
  for name in ('nvidia-smi', 'python'):
    (tmp_path / name).chmod(0o755)
  environ = {name: value for name, value in ENVIRONMENT.items()
             if name not in ('CUDA_VISIBLE_DEVICES', 'JAX_PLATFORMS', 'JAX_NUM_CPU_DEVICES')}
  done = subprocess.run(
    ['launch/local.sh', str(n), f'--workdir={tmp_path}/w'], cwd=ROOT, capture_output=True, text=True,
    timeout=60,
    env={**environ, 'PYTHON': f'{tmp_path}/python', 'PATH': f'{tmp_path}{os.pathsep}{environ["PATH"]}',
         **env})
  lines = [path.read_text().strip() for path in sorted(tmp_path.glob('device-*'))]
  return done.returncode, lines, done.stderr


@pytest.mark.parametrize('gpus, env, expected', [
  (8, {}, ['0;not set', '1;not set']),
  (8, {'CUDA_VISIBLE_DEVICES': '4,5'}, ['4;not set', '5;not set']),
  (8, {'CUDA_VISIBLE_DEVICES': '7, 2 ,1'}, ['7;not set', '2;not set']),
  (8, {'CUDA_VISIBLE_DEVICES': 'GPU-8f1a-2,MIG-9/1/0'}, ['GPU-8f1a-2;not set', 'MIG-9/1/0;not set']),
  (8, {'CUDA_VISIBLE_DEVICES': ''}, [';cpu', ';cpu']),
  (8, {'CUDA_VISIBLE_DEVICES': '-1'}, ['-1;cpu', '-1;cpu']),
  (8, {'CUDA_VISIBLE_DEVICES': 'NoDevFiles'}, ['NoDevFiles;cpu', 'NoDevFiles;cpu']),
  (1, {'JAX_PLATFORMS': 'cpu'}, ['not set;cpu', 'not set;cpu']),
  (0, {}, ['not set;cpu', 'not set;cpu']),
  (0, {'CUDA_VISIBLE_DEVICES': '0,1'}, ['0,1;cpu', '0,1;cpu']),
  # What the user asks for stands: where there is none, JAX refuses it.
  (0, {'JAX_PLATFORMS': 'cuda', 'CUDA_VISIBLE_DEVICES': ''}, [';cuda', ';cuda']),
  (0, {'JAX_PLATFORMS': 'tpu,cpu'}, ['not set;tpu,cpu', 'not set;tpu,cpu']),
  (8, {'JAX_PLATFORMS': 'cuda', 'CUDA_VISIBLE_DEVICES': '-1'}, ['-1;cuda', '-1;cuda']),
  (8, {'JAX_PLATFORMS': 'cuda,cpu'}, ['0;cuda,cpu', '1;cuda,cpu']),
  (0, {'JAX_PLATFORMS': 'cuda', 'CUDA_VISIBLE_DEVICES': '4,5'}, ['4;cuda', '5;cuda']),  # no nvidia-smi
  (0, {'JAX_PLATFORMS': 'cpu', 'CUDA_VISIBLE_DEVICES': '4,5'}, ['4,5;cpu', '4,5;cpu'])])
def test_local_gives_each_process_one_of_the_gpus_that_it_was_allotted(tmp_path, gpus, env, expected):
  code, devices, error = devices_of(tmp_path, 2, gpus, **env)
  assert (code, devices) == (0, expected), error


@pytest.mark.parametrize('gpus, env, expected', [
  (0, {}, '1'), (0, {'DEVICES': '3'}, '3'), (0, {'JAX_NUM_CPU_DEVICES': '4'}, '4'),
  (0, {'DEVICES': '3', 'JAX_NUM_CPU_DEVICES': '4'}, '3'), (8, {}, 'not set')])
def test_local_gives_each_process_cpu_devices(tmp_path, gpus, env, expected):
  code, _, error = devices_of(tmp_path, 1, gpus, **env)
  assert (code, (tmp_path / 'cpus').read_text().strip()) == (0, expected), error


@pytest.mark.parametrize('gpus, env, says', [
  (1, {}, '2 processes, but only 1 GPUs:'), (8, {'CUDA_VISIBLE_DEVICES': '4'}, 'in CUDA_VISIBLE_DEVICES=4:'),
  (8, {'CUDA_VISIBLE_DEVICES': '4,-1,5'}, 'only 1 GPUs in CUDA_VISIBLE_DEVICES=4,-1,5')])
def test_local_refuses_more_processes_than_gpus(tmp_path, gpus, env, says):
  code, devices, error = devices_of(tmp_path, 2, gpus, **env)
  assert code == 2 and not devices and says in error and len(error.splitlines()) == 1, error


@pytest.mark.slow
def test_local_runs_two_processes_and_says_why_they_end(corpus_folder, tmp_path):
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


def wait_for(moment, process):
  while not moment():
    assert process.poll() is None
    time.sleep(0.005)


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_in_its_pause_is_not_lost(tmp_path, number):
  process = subprocess.Popen(
    ['launch/again.sh', 'bash', '-c', f'echo >>{tmp_path}/ran; exit 70'], cwd=ROOT, stderr=subprocess.PIPE,
    text=True, env={**ENVIRONMENT, 'PAUSE': '1000'})
  assert 'exit code 70, restarting' in process.stderr.readline()
  process.send_signal(number)
  said = process.communicate(timeout=20)[1]
  assert process.returncode == 75 and 'stopped before the restart' in said
  assert (tmp_path / 'ran').read_text() == '\n'


@pytest.mark.parametrize('number', [signal.SIGHUP, signal.SIGUSR1])
def test_signals_that_may_come_with_others_go_on_as_themselves(tmp_path, number):
  """A closed terminal sends SIGHUP twice, a batch system SIGUSR1 before SIGTERM."""
  line = (f'trap "echo >>{tmp_path}/told" {number.name[3:]}; trap "exit 75" USR2; echo $$ >{tmp_path}/new; '
          f'mv {tmp_path}/new {tmp_path}/pid; while true; do sleep 0.02; done')
  process = subprocess.Popen(['launch/again.sh', 'bash', '-c', line], cwd=ROOT)
  wait_for((tmp_path / 'pid').exists, process)
  for times in (1, 2):
    process.send_signal(number)
    wait_for(lambda: (tmp_path / 'told').exists() and len((tmp_path / 'told').read_text()) == times, process)
  os.kill(int((tmp_path / 'pid').read_text()), signal.SIGUSR2)
  assert process.wait(20) == 75


# The command: the k-th time it is run, it does what the k-th word says: a number of a checkpoint that it
# writes before it ends with 1, or - for none, or x70 for another exit code.
DOES = """
cd {folder}; k=$(ls ran* 2>/dev/null | wc -l); touch ran$k; deeds=({deeds}); deed=${{deeds[$k]:--}}
[[ $deed == x* ]] && exit "${{deed#x}}"
[[ $deed == - ]] || {{ mkdir -p "w d/checkpoints/$deed"; touch "w d/checkpoints/$deed/manifest.json"; }}
exit 1
"""
BUGS = [
  ('-', ['--workdir={}'], 4), ('-', [], 4), ('-', ['--workdir', '{}'], 4),
  ('- - 5', ['--workdir={}'], 2 + 4),              # none new after the one of the third run
  ('- - 5', ['--workdir', '{}'], 2 + 4),
  ('- - 5', ['--config=x'], 4),                    # no workdir to look at
  ('9 10 10 10 10 11', ['--workdir={}'], 5),       # by number, not by letter; the same one is not newer
  ('x70 - x75 - x70 -', ['--workdir={}'], 7),      # other exit codes neither count nor begin anew
  ('- - - x0', ['--workdir={}'], 4), ('- x2', ['--workdir={}'], 2)]


@pytest.mark.parametrize('deeds, flags, runs', BUGS)
def test_a_bug_is_started_again_three_times_without_a_newer_checkpoint(tmp_path, deeds, flags, runs):
  flags = [flag.format(tmp_path / 'w d') for flag in flags]
  done = run('launch/again.sh', 'bash', '-c', DOES.format(folder=tmp_path, deeds=deeds), 'name', *flags,
             env={'PAUSE': '0'})
  assert len(list(tmp_path.glob('ran*'))) == runs, done.stderr
  assert done.returncode == (int(deeds[-1]) if deeds[-2:] in ('x0', 'x2') else 1)


@pytest.mark.parametrize('deeds, flags, runs', BUGS)
def test_slurm_queues_a_bug_again_as_often(tmp_path, deeds, flags, runs):
  """With a `srun` that runs DOES, and a `scontrol` that notes what it is asked."""
  workdir = tmp_path / 'w d'
  (tmp_path / 'srun').write_text('#!/bin/bash\n' + DOES.format(folder=tmp_path, deeds=deeds))
  (tmp_path / 'scontrol').write_text(f'#!/bin/bash\necho "$@" >>{tmp_path}/queued\n')
  for name in ('srun', 'scontrol'):
    (tmp_path / name).chmod(0o755)
  (tmp_path / 'launch').symlink_to(LAUNCH)
  job = {'SLURM_SUBMIT_DIR': str(tmp_path), 'SLURM_JOB_ID': '7',
         'PATH': f'{tmp_path}{os.pathsep}{os.environ["PATH"]}'}
  for restart in range(runs):
    done = run('bash', 'launch/slurm.sbatch', *(flag.format(workdir) for flag in flags),
               env={**job, 'SLURM_RESTART_COUNT': str(restart)})
    queued = (tmp_path / 'queued').read_text().splitlines() if (tmp_path / 'queued').exists() else []
    assert queued == ['requeue 7'] * (restart + (restart < runs - 1)), done.stdout
    assert (done.returncode == 0) == (restart < runs - 1 or deeds.endswith('x0'))


@pytest.mark.parametrize('text', ['0 a[$(touch hacked)]', 'a[$(touch hacked)] 3', '', '1', '9' * 30 + ' 1'])
def test_what_a_workdir_says_of_earlier_ends_is_a_number_or_nothing(tmp_path, text):
  """Bash evaluates what stands in arithmetic."""
  workdir = tmp_path / 'w'
  workdir.mkdir()
  (workdir / 'bugs-7').write_text(text + '\n')
  for name, does in (('srun', 'exit 1'), ('scontrol', 'exit 0')):
    (tmp_path / name).write_text(f'#!/bin/bash\n{does}\n')
    (tmp_path / name).chmod(0o755)
  (tmp_path / 'launch').symlink_to(LAUNCH)
  done = run('bash', 'launch/slurm.sbatch', f'--workdir={workdir}',
             env={'SLURM_SUBMIT_DIR': str(tmp_path), 'SLURM_JOB_ID': '7',
                  'PATH': f'{tmp_path}{os.pathsep}{os.environ["PATH"]}'})
  assert 'requeued' in done.stdout and not list(tmp_path.rglob('hacked')), done
  assert (workdir / 'bugs-7').read_text() == '1 -1\n'


@pytest.mark.parametrize('number', [signal.SIGUSR1, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize('traps, told', [(True, 'USR1\n'), (False, '')])
def test_a_signal_to_the_batch_shell_goes_on_to_the_step_and_queues_again(tmp_path, number, traps, told):
  """With a `srun` that takes signals as the real one does; one that is just starting dies of them."""
  trap = f"""
trap 'echo USR1 >>{tmp_path}/told; exit 75' USR1
trap 'echo forcing job termination; exit 137' TERM HUP""" * traps
  (tmp_path / 'srun').write_text(f'#!/bin/bash{trap}\ntouch {tmp_path}/told {tmp_path}/ready\n'
                                 'while true; do sleep 0.02; done\n')
  (tmp_path / 'scontrol').write_text(f'#!/bin/bash\necho "$@" >>{tmp_path}/queued\n')
  for name in ('srun', 'scontrol'):
    (tmp_path / name).chmod(0o755)
  (tmp_path / 'launch').symlink_to(LAUNCH)
  process = subprocess.Popen(
    ['bash', 'launch/slurm.sbatch', f'--workdir={tmp_path}/w'], cwd=ROOT, stdout=subprocess.PIPE, text=True,
    env={**ENVIRONMENT, 'SLURM_SUBMIT_DIR': str(tmp_path), 'SLURM_JOB_ID': '7',
         'PATH': f'{tmp_path}{os.pathsep}{os.environ["PATH"]}'})
  wait_for((tmp_path / 'ready').exists, process)
  process.send_signal(number)
  said = process.communicate(timeout=20)[0]
  assert process.returncode == 0 and 'requeued' in said
  assert f'exit code {75 if traps else 138}' in said
  assert (tmp_path / 'queued').read_text() == 'requeue 7\n' and (tmp_path / 'told').read_text() == told


@pytest.mark.parametrize('state, queued', [('RUNNING', True), ('COMPLETING', False)])
def test_slurm_does_not_queue_a_job_again_that_is_being_ended(tmp_path, state, queued):
  """Slurm tells the shell and the tasks of a job that `scancel` ends as it does before the time is up."""
  deeds = {'srun': 'exit 75', 'squeue': f'echo {state}', 'scontrol': f'touch {tmp_path}/queued'}
  for name, deed in deeds.items():
    (tmp_path / name).write_text(f'#!/bin/bash\n{deed}\n')
    (tmp_path / name).chmod(0o755)
  (tmp_path / 'launch').symlink_to(LAUNCH)
  done = run('launch/slurm.sbatch', env={'SLURM_SUBMIT_DIR': str(tmp_path), 'SLURM_JOB_ID': '7',
                                         'PATH': f'{tmp_path}{os.pathsep}{os.environ["PATH"]}'})
  assert done.returncode == (0 if queued else 75), done.stderr
  assert (tmp_path / 'queued').exists() == queued and ('requeued' in done.stdout) == queued


def test_local_passes_a_signal_on_to_all_its_processes(tmp_path):
  """With a `python` that says what it is sent."""
  fake = tmp_path / 'python'
  fake.write_text(f"""#!/bin/bash
[[ $1 == -c ]] && exec {sys.executable} "$@"
for flag in "$@"; do [[ $flag == --process_id=* ]] && me=${{flag#*=}}; done
trap 'echo HUP >>{tmp_path}/told-$me' HUP
trap 'echo USR1 >>{tmp_path}/told-$me' USR1
trap 'echo TERM >>{tmp_path}/told-$me; exit 75' TERM
touch {tmp_path}/ready-$me
while true; do sleep 0.02; done
""")
  fake.chmod(0o755)
  for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
    for path in [*tmp_path.glob('told-*'), *tmp_path.glob('ready-*')]:
      path.unlink()
    process = subprocess.Popen(['launch/local.sh', '2', '--workdir', str(tmp_path / 'w')], cwd=ROOT,
                               env={**ENVIRONMENT, 'PYTHON': str(fake)})
    wait_for(lambda: len(list(tmp_path.glob('ready-*'))) == 2, process)
    process.send_signal(number)
    as_itself = number in (signal.SIGHUP, signal.SIGUSR1)
    if as_itself:
      wait_for(lambda: len(list(tmp_path.glob('told-*'))) == 2, process)
      process.terminate()
    assert process.wait(20) == 75
    for me in (0, 1):
      told = (tmp_path / f'told-{me}').read_text().split()
      assert told == ([number.name[3:], 'TERM'] if as_itself else ['TERM'])


@pytest.mark.parametrize('who, ends, code, last', [
  (1, 'exit 2', 2, 'why'), (1, 'exit 1', 1, 'why'), (0, 'exit 2', 2, ''), (1, 'kill -KILL $$', 70, 'why'),
  (0, 'kill -KILL $$', 70, ''), (1, 'rm -r {folder}/w/logs; exit 2', 2, 'No such file')])
def test_local_stops_all_once_one_has_failed(tmp_path, who, ends, code, last):
  """With a `python` of which one ends while the others wait for it, as before all have connected."""
  fake = tmp_path / 'python'
  fake.write_text(f"""#!/bin/bash
[[ $1 == -c ]] && exec {sys.executable} "$@"
for flag in "$@"; do [[ $flag == --process_id=* ]] && me=${{flag#*=}}; done
trap 'echo TERM >>{tmp_path}/told-$me; exit 75' TERM
touch {tmp_path}/ready-$me
while [[ $me == {who} && $(ls {tmp_path}/ready-* | wc -l) -lt 3 ]]; do sleep 0.02; done
[[ $me != {who} ]] || {{ echo why >&2; {ends.format(folder=tmp_path)}; }}
while true; do sleep 0.02; done
""")
  fake.chmod(0o755)
  env = {'PYTHON': str(fake), 'GRACE': '0'}
  done = run('launch/local.sh', '3', '--workdir', str(tmp_path / 'w'), env=env)
  said = done.stderr.splitlines()
  assert done.returncode == code and last in said[-1], done.stderr
  assert any(f'process {who} has ended with exit code' in line for line in said)
  assert sorted(path.name for path in tmp_path.glob('told-*')) == [
    f'told-{i}' for i in range(3) if i != who]
  assert all(path.read_text() == 'TERM\n' for path in tmp_path.glob('told-*'))


@pytest.mark.parametrize('env, workdir', [({'PYTHON': '/nowhere/python'}, '{}'), ({}, '/dev/null')])
def test_local_refuses_what_cannot_be_started(tmp_path, env, workdir):
  done = run('launch/local.sh', '2', f'--workdir={workdir.format(tmp_path)}/w', env=env)
  assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr


def documents():
  return list(yaml.safe_load_all((LAUNCH / 'gke_jobset.yaml').read_text()))


def assert_known(value, kind, path):
  """Every field of `value` is one of the Kubernetes type `kind`, to the leaves."""
  from kubernetes.client import models
  if match := re.fullmatch(r'[lL]ist\[(.+)\]', kind):
    assert isinstance(value, list), path
    for i, item in enumerate(value):
      assert_known(item, match[1], f'{path}[{i}]')
  elif match := re.fullmatch(r'[dD]ict[\[(]str, (.+)[\])]', kind):
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
  kinds = {'ServiceAccount': 'V1ServiceAccount', 'Role': 'V1Role', 'RoleBinding': 'V1RoleBinding',
           'NetworkPolicy': 'V1NetworkPolicy'}
  for document in documents():
    if document['kind'] == 'JobSet':
      job = document['spec']['replicatedJobs'][0]['template']
      assert_known(document['metadata'], 'V1ObjectMeta', 'metadata')
      assert_known(job, 'V1JobTemplateSpec', 'template')
    else:
      assert_known(document, kinds[document['kind']], document['kind'])


def test_the_jobset_fails_on_bad_input_counts_bugs_and_restarts_on_all_else():
  jobset = next(document for document in documents() if document['kind'] == 'JobSet')
  # The fields of jobset.x-k8s.io/v1alpha2 that are used here, by its published definition.
  assert jobset['apiVersion'] == 'jobset.x-k8s.io/v1alpha2'
  assert jobset['spec'].keys() == {'network', 'failurePolicy', 'replicatedJobs'}
  assert jobset['spec']['network'].keys() <= {'enableDNSHostnames', 'publishNotReadyAddresses', 'subdomain'}
  policy = jobset['spec']['failurePolicy']
  # As the Job controller words it: kubernetes/pkg/controller/job/pod_failure_policy.go.
  matched = ('Container gptjax for pod default/run-0-0 failed with exit code {} matching FailJob rule at '
             'index 0')
  def action(reason, message):
    for rule in policy['rules']:  # as JobSet reads them
      assert re.fullmatch('[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?', rule['name'])
      patterns = rule.get('onJobFailureMessagePatterns', [''])
      if reason in rule.get('onJobFailureReasons', [reason]) and any(re.search(p, message) for p in patterns):
        return rule['action']
  assert action('PodFailurePolicy', matched.format(2)) == 'FailJobSet'
  assert action('PodFailurePolicy', matched.format(1)) == 'RestartJobSet' and policy['maxRestarts'] == 3
  assert action('BackoffLimitExceeded', 'Job has reached the specified backoff limit') == (
    'RestartJobSetAndIgnoreMaxRestarts')
  replicated, = jobset['spec']['replicatedJobs']
  assert replicated.keys() == {'name', 'replicas', 'template'} and replicated['replicas'] == 1
  job = replicated['template']['spec']
  assert job['parallelism'] == job['completions'] and job['completionMode'] == 'Indexed'
  assert job['backoffLimit'] == 0 and job['template']['spec']['restartPolicy'] == 'Never'
  rule, = job['podFailurePolicy']['rules']
  assert rule['action'] == 'FailJob' and rule['onExitCodes']['values'] == [1, 2]
  container, = job['template']['spec']['containers']
  assert rule['onExitCodes']['containerName'] == container['name']
  mounts = {mount['name'] for mount in container['volumeMounts']}
  assert mounts == {volume['name'] for volume in job['template']['spec']['volumes']}
  for argument in container['args']:
    if argument.startswith('--config='):
      assert (ROOT / argument.removeprefix('--config=')).exists()


def test_the_pods_have_no_privileges_and_talk_to_each_other_alone():
  policy = next(document for document in documents() if document['kind'] == 'NetworkPolicy')
  jobset = next(document for document in documents() if document['kind'] == 'JobSet')
  pods = {'podSelector': {'matchLabels': {'jobset.sigs.k8s.io/jobset-name': jobset['metadata']['name']}}}
  assert policy['spec'] == {**pods, 'policyTypes': ['Ingress'], 'ingress': [{'from': [pods]}]}
  pod = jobset['spec']['replicatedJobs'][0]['template']['spec']['template']['spec']
  container, = pod['containers']
  assert 'hostNetwork' not in pod and pod['securityContext']['runAsNonRoot']
  user = re.search(r'^USER (\d+):\d+$', (LAUNCH / 'Dockerfile').read_text(), re.MULTILINE)[1]
  assert pod['securityContext']['runAsUser'] == int(user) > 0
  assert container['securityContext'] == {
    'allowPrivilegeEscalation': False, 'readOnlyRootFilesystem': True, 'capabilities': {'drop': ['ALL']}}
  assert re.search(r'[:@]', container['image'])
  token, = container['env']
  assert token['name'] == 'GPTJAX_RUN_TOKEN' and 'secretKeyRef' in token['valueFrom']


def test_the_image_has_what_the_command_needs():
  lines = [line for line in (LAUNCH / 'Dockerfile').read_text().splitlines() if line and line[0] != '#']
  assert not [line for line in lines if line.endswith('\\')], 'this test reads instructions of one line'
  steps = [tuple(line.split(None, 1)) for line in lines]
  names = [name for name, _ in steps]
  assert {*names} == {'ARG', 'FROM', 'RUN', 'WORKDIR', 'COPY', 'USER', 'ENV', 'ENTRYPOINT'}
  assert steps[:2] == [('ARG', 'BASE=python:3.11-slim'), ('FROM', '${BASE}')]  # a version, and not `latest`
  runs = [text for name, text in steps if name == 'RUN']
  assert runs == ['useradd --create-home --uid 1000 gptjax',
                  'pip install --no-cache-dir ".[${ACCELERATOR},k8s]"']
  extras = (ROOT / 'setup.py').read_text()
  assert "'tpu':" in extras and "'cuda':" in extras and "'k8s':" in extras
  user = names.index('USER')
  assert steps[user] == ('USER', '1000:1000') and not {'RUN', 'COPY', 'USER'} & {*names[user + 1:]}
  program, flag, module = json.loads(steps[-1][1])
  assert (program, flag) == ('python', '-m') and (ROOT / f'{module.replace(".", "/")}.py').exists()


def test_the_image_copies_all_that_its_context_has():
  copied = {name for line in (LAUNCH / 'Dockerfile').read_text().splitlines() if line.startswith('COPY ')
            for name in line.split()[1:-1]}
  rules = (LAUNCH / 'Dockerfile.dockerignore').read_text().splitlines()[1:]
  assert rules[0] == '*' and copied == {rule[1:] for rule in rules if rule[0] == '!'}
  assert all((ROOT / name).exists() for name in copied)


@pytest.mark.parametrize('file, page', [
  ('local.sh', 'local'), ('tpu_vm.sh', 'tpu_vm'), ('slurm.sbatch', 'slurm'), ('gke_jobset.yaml', 'gke'),
  ('mpirun', 'open_mpi')])
def test_each_way_to_launch_has_its_page(file, page):
  path = f'docs/howto/hosts/{page}.md'
  text = (ROOT / path).read_text()
  assert file in text and f'](../{path})' in (LAUNCH / 'README.md').read_text()
  for word in ('What it does', 'What it needs', 'Watch', 'Stop', 'Resume'):
    assert f'**{word}' in text, word


def test_no_bucket_or_project_of_anyone_is_named():
  for path in LAUNCH.iterdir():
    assert not re.search(r'gs://(?!BUCKET)|gcr\.io|pkg\.dev', path.read_text()), path
