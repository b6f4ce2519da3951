"""launch/: the scripts are sound, restart what they should, and pass on signals and arguments."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ENVIRONMENT, ROOT, command
from launch_arguments import ODD

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


@pytest.mark.parametrize('arguments', [[], ['sell']])
@pytest.mark.parametrize('script', ['tpu_vm.sh', 'gke.sh'])
def test_an_unknown_command_is_refused(script, arguments):
  done = run(LAUNCH / script, *arguments)
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


@pytest.mark.parametrize('script, starts', [
  ('launch/local.sh', 'python'), ('launch/slurm.sbatch', 'srun'), ('launch/again.sh', 'python')])
def test_arguments_arrive_unchanged(tmp_path, script, starts):
  (tmp_path / starts).write_text(f"""#!/bin/bash
[[ $1 == -c ]] && exec {sys.executable} "$@"
printf '%s\\0' "$@" >{tmp_path}/arguments
""")
  (tmp_path / starts).chmod(0o755)
  (tmp_path / 'launch').symlink_to(LAUNCH)
  before = {'launch/local.sh': ['1'], 'launch/again.sh': [tmp_path / starts]}.get(script, [])
  done = subprocess.run(
    ['bash', ROOT / script, *before, *ODD], cwd=tmp_path, timeout=60, capture_output=True, text=True, env={
      **ENVIRONMENT, 'SLURM_SUBMIT_DIR': str(tmp_path), 'SLURM_JOB_ID': '7', 'PYTHON': 'python',
      'PATH': f'{tmp_path}{os.pathsep}{os.environ["PATH"]}'})
  assert done.returncode == 0, done.stderr
  arguments = (tmp_path / 'arguments').read_text().split('\0')[:-1]
  start = arguments.index(ODD[0])
  assert arguments[start:start + len(ODD)] == ODD
  assert not (tmp_path / 'gs:').exists()  # the workdir is in a bucket


@pytest.mark.parametrize('steps, newest', [([9, 10], '10'), ([], '-1')])
@pytest.mark.parametrize('workdir', ['gs://BUCKET/w d', 'gs://BUCKET/w d/'])
def test_the_scripts_know_the_newest_checkpoint_in_a_bucket(tmp_path, workdir, steps, newest):
  listed = '\n'.join(f'gs://BUCKET/w d/checkpoints/{step}/manifest.json' for step in steps)
  (tmp_path / 'gcloud').write_text(f"""#!/bin/bash
[[ "$1 $2 $3" == 'storage ls gs://BUCKET/w d/checkpoints/*/manifest.json' ]] || exit 9
[[ -n '{listed}' ]] || exit 1
echo '{listed}'
""")
  (tmp_path / 'gcloud').chmod(0o755)
  script = 'source launch/restarts.sh; newest_checkpoint "$1"'
  done = run('bash', '-euo', 'pipefail', '-c', script, 'name', workdir,
             env={'PATH': f'{tmp_path}{os.pathsep}{os.environ["PATH"]}'})
  assert done.stdout == f'{newest}\n', done.stderr


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
  assert done.returncode == 0 and '2 x cpu, 2 processes on 1 host, mesh' in done.stderr, done.stderr
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
LOST = [  # at most ten restarts without a newer checkpoint
  (' '.join(['x70'] * 12), ['--workdir={}'], 11), (' '.join(['x137'] * 12), [], 11),
  (' '.join(['x75'] * 12) + ' x0', ['--workdir={}'], 13),  # a run that is stopped has saved
  ('x70 x70 5 ' + ' '.join(['x70'] * 12), ['--workdir={}'], 3 + 11)]


@pytest.mark.parametrize('deeds, flags, runs', BUGS)
def test_a_bug_is_started_again_three_times_without_a_newer_checkpoint(tmp_path, deeds, flags, runs):
  flags = [flag.format(tmp_path / 'w d') for flag in flags]
  done = run('launch/again.sh', 'bash', '-c', DOES.format(folder=tmp_path, deeds=deeds), 'name', *flags,
             env={'PAUSE': '0'})
  assert len(list(tmp_path.glob('ran*'))) == runs, done.stderr
  assert done.returncode == (int(deeds[-1]) if deeds[-2:] in ('x0', 'x2') else 1)


def slurm_job(tmp_path, **commands):
  """The environment of a job; `python`, `srun`, `scontrol` and `squeue` are these bash scripts."""
  for name, script in {'python': '', 'srun': '', 'scontrol': '', 'squeue': 'exit 1', **commands}.items():
    (tmp_path / name).write_text(f'#!/bin/bash\n{script}\n')
    (tmp_path / name).chmod(0o755)
  (tmp_path / 'launch').symlink_to(LAUNCH)
  return {'SLURM_SUBMIT_DIR': str(tmp_path), 'SLURM_JOB_ID': '7',
          'PATH': f'{tmp_path}{os.pathsep}{os.environ["PATH"]}'}


@pytest.mark.parametrize('deeds, flags, runs', BUGS + LOST)
def test_slurm_queues_a_bug_again_as_often(tmp_path, deeds, flags, runs):
  """With a `srun` that runs DOES, and a `scontrol` that notes what it is asked."""
  workdir = tmp_path / 'w d'
  job = slurm_job(tmp_path, srun=DOES.format(folder=tmp_path, deeds=deeds),
                  scontrol=f'echo "$@" >>{tmp_path}/queued')
  for restart in range(runs):
    done = run('bash', 'launch/slurm.sbatch', *(flag.format(workdir) for flag in flags),
               env={**job, 'SLURM_RESTART_COUNT': str(restart)})
    queued = (tmp_path / 'queued').read_text().splitlines() if (tmp_path / 'queued').exists() else []
    assert queued == ['requeue 7'] * (restart + (restart < runs - 1)), done.stdout
    assert (done.returncode == 0) == (restart < runs - 1 or deeds.endswith('x0'))


def test_slurm_requeues_one_task_of_an_array(tmp_path):
  """The last task of an array has the number of the array, which means all tasks to `scontrol`."""
  job = slurm_job(tmp_path, srun=f'printf "%s\\n" "$@" >{tmp_path}/arguments; exit 75',
                  scontrol=f'echo "$@" >{tmp_path}/queued', squeue=f'echo "$@" >{tmp_path}/asked')
  done = run('bash', 'launch/slurm.sbatch', '--workdir=runs/x y-%a', '--config.train.seed=%a%a', '--x=100%',
             env={**job, 'SLURM_ARRAY_JOB_ID': '7', 'SLURM_ARRAY_TASK_ID': '12'})
  assert done.returncode == 0 and 'job 7_12: exit code 75, requeued' in done.stdout, done
  assert (tmp_path / 'queued').read_text() == 'requeue 7_12\n'
  assert '--jobs=7_12 ' in (tmp_path / 'asked').read_text()
  assert (tmp_path / 'arguments').read_text().splitlines()[-3:] == [
    '--workdir=runs/x y-12', '--config.train.seed=1212', '--x=100%']


@pytest.mark.parametrize('env, platforms, cpus', [
  ({}, '', ''), ({'SLURM_GPUS_ON_NODE': '8', 'SLURM_CPUS_PER_TASK': '12'}, 'cuda', '12'),
  ({'SLURM_GPUS_ON_NODE': '0', 'SLURM_CPUS_PER_TASK': '12', 'SRUN_CPUS_PER_TASK': '6'}, '', '6'),
  ({'SLURM_GPUS_ON_NODE': '8', 'JAX_PLATFORMS': 'cpu'}, 'cpu', '')])
def test_slurm_tasks_get_the_cpus_and_gpus_of_the_job(tmp_path, env, platforms, cpus):
  job = slurm_job(tmp_path, srun='echo "$JAX_PLATFORMS;$SRUN_CPUS_PER_TASK;$*"')
  done = run('bash', 'launch/slurm.sbatch', env={'JAX_PLATFORMS': '', **job, **env})
  assert done.stdout.startswith(f'{platforms};{cpus};') and '--export=ALL' in done.stdout
  assert ('its GPUs are not used' in done.stderr) == (platforms == 'cpu')


@pytest.mark.parametrize('code', [1, 2])
@pytest.mark.parametrize('python', ['/nowhere/python', 'python'])
def test_slurm_does_not_requeue_a_job_whose_python_lacks_gptjax(tmp_path, code, python):
  job = slurm_job(tmp_path, srun=f'exit {code}', scontrol=f'touch {tmp_path}/queued', python='exit 1')
  done = run('bash', 'launch/slurm.sbatch', env={**job, 'PYTHON': python})
  assert done.returncode == 2 and f'{python} cannot import gptjax' in done.stderr, done
  assert not (tmp_path / 'queued').exists()


def test_slurm_says_from_where_to_submit(tmp_path):
  done = run('bash', 'launch/slurm.sbatch', env={'SLURM_SUBMIT_DIR': str(tmp_path), 'SLURM_JOB_ID': '7'})
  assert done.returncode == 2 and 'change to the checkout' in done.stderr
  assert len(done.stderr.splitlines()) == 1


def test_the_number_of_slurm_tasks_is_the_users():
  """A script with --ntasks makes sbatch ignore --ntasks-per-node, and lower --nodes."""
  assert not re.search('^#SBATCH.*(-n|--ntasks)\\b', (LAUNCH / 'slurm.sbatch').read_text(), re.M)


@pytest.mark.parametrize('text', ['0 a[$(touch hacked)]', 'a[$(touch hacked)] 3', '', '1', '9' * 30 + ' 1'])
def test_what_a_workdir_says_of_earlier_ends_is_a_number_or_nothing(tmp_path, text):
  """Bash evaluates what stands in arithmetic."""
  workdir = tmp_path / 'w'
  workdir.mkdir()
  (workdir / 'bugs-7').write_text(text + '\n')
  done = run('bash', 'launch/slurm.sbatch', f'--workdir={workdir}', env=slurm_job(tmp_path, srun='exit 1'))
  assert 'requeued' in done.stdout and not list(tmp_path.rglob('hacked')), done
  assert (workdir / 'bugs-7').read_text() == '1 -1\n'


@pytest.mark.parametrize('number', [signal.SIGUSR1, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize('traps, told', [(True, 'USR1\n'), (False, '')])
def test_a_signal_to_the_batch_shell_goes_on_to_the_step_and_queues_again(tmp_path, number, traps, told):
  """With a `srun` that takes signals as the real one does; one that is just starting dies of them."""
  trap = f"""
trap 'echo USR1 >>{tmp_path}/told; exit 75' USR1
trap 'echo forcing job termination; exit 137' TERM HUP""" * traps
  job = slurm_job(tmp_path, scontrol=f'echo "$@" >>{tmp_path}/queued', srun=f"""{trap}
touch {tmp_path}/told {tmp_path}/ready
while true; do sleep 0.02; done""")
  process = subprocess.Popen(
    ['bash', 'launch/slurm.sbatch', f'--workdir={tmp_path}/w'], cwd=ROOT, stdout=subprocess.PIPE, text=True,
    env={**ENVIRONMENT, **job})
  wait_for((tmp_path / 'ready').exists, process)
  process.send_signal(number)
  said = process.communicate(timeout=20)[0]
  assert process.returncode == 0 and 'requeued' in said
  assert f'exit code {75 if traps else 138}' in said
  assert (tmp_path / 'queued').read_text() == 'requeue 7\n' and (tmp_path / 'told').read_text() == told


@pytest.mark.parametrize('state, queued', [('RUNNING', True), ('COMPLETING', False)])
def test_slurm_does_not_queue_a_job_again_that_is_being_ended(tmp_path, state, queued):
  """Slurm tells the shell and the tasks of a job that `scancel` ends as it does before the time is up."""
  job = slurm_job(tmp_path, srun='exit 75', squeue=f'echo {state}', scontrol=f'touch {tmp_path}/queued')
  done = run('launch/slurm.sbatch', env=job)
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


@pytest.mark.parametrize('file, page', [
  ('local.sh', 'local'), ('tpu_vm.sh', 'tpu_vm'), ('slurm.sbatch', 'slurm'), ('gke.sh', 'gke'),
  ('mpirun', 'open_mpi')])
def test_each_way_to_launch_has_its_page(file, page):
  path = f'docs/howto/hosts/{page}.md'
  text = (ROOT / path).read_text()
  assert file in text and f'](../{path})' in (LAUNCH / 'README.md').read_text()
  for word in ('What it does', 'What it needs', 'Watch', 'Stop', 'Resume'):
    assert f'**{word}' in text, word


def test_no_bucket_or_project_of_anyone_is_named():
  for path in filter(Path.is_file, LAUNCH.rglob('*')):
    assert not re.search(r'gs://(?!BUCKET|\*)|gcr\.io|pkg\.dev', path.read_text()), path


def test_nothing_mounts_a_bucket():
  for path in [*filter(Path.is_file, LAUNCH.rglob('*')), *(ROOT / 'docs' / 'howto' / 'hosts').iterdir()]:
    assert 'gcsfuse' not in path.read_text(), path
