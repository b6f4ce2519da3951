"""The Slurm and the mpirun of this machine start real runs: `pytest -m slurm`, as root on Debian."""

import os
import re
import shutil
import subprocess
import sys
import time

import markdown_pages as pages
import pytest
from conftest import ENVIRONMENT, ROOT, command
from hosts import run
from prepared import contents, make_texts, write_jsonl
from runs import assert_same_run, steps_logged

from gptjax.storage import checkpoint

pytestmark = pytest.mark.slurm


@pytest.fixture(scope='module')
def slurm(tmp_path_factory):
  """The environment in which sbatch speaks to a Slurm of this one machine."""
  folder = tmp_path_factory.mktemp('slurm')
  script = str(ROOT / 'tests' / 'slurm_machine.sh')
  subprocess.run([script, 'start', str(folder)], check=True, timeout=300)
  yield {**ENVIRONMENT, 'SLURM_CONF': str(folder / 'slurm.conf'), 'JAX_NUM_CPU_DEVICES': '1',
         'PYTHON': sys.executable, 'PYTHONPATH': str(ROOT)}
  subprocess.run([script, 'stop', str(folder)], check=True, timeout=60)


def submit(environment, log, *flags):
  """sbatch of launch/slurm.sbatch: the number of the job."""
  return subprocess.run(
    ['sbatch', '--parsable', '--overcommit', '--nodes=1', '--ntasks-per-node=2', f'--output={log}',
     'launch/slurm.sbatch', *flags],
    cwd=ROOT, env=environment, check=True, capture_output=True, text=True).stdout.strip()


def job(environment, number, field):
  """A field of `scontrol show job`: 'JobState', 'Restarts'."""
  shown = subprocess.run(['scontrol', '--oneliner', 'show', 'job', number], env=environment, check=True,
                         capture_output=True, text=True).stdout
  return re.search(rf'\b{field}=(\S+)', shown)[1]


def wait_for(moment, limit=240):
  deadline = time.monotonic() + limit
  while not moment():
    assert time.monotonic() < deadline
    time.sleep(0.2)


def flags_of(corpus, workdir):
  return [f'--config={ROOT}/configs/quickstart.py', *command(corpus, workdir)[4:]]


def test_two_tasks_run_to_the_end_and_survive_a_requeue(slurm, corpus_folder, tmp_path):
  run(corpus_folder, tmp_path / 'undisturbed', 2)
  workdir, log = tmp_path / 'run', tmp_path / 'log'
  number = submit(slurm, log, *flags_of(corpus_folder, workdir))
  wait_for(lambda: steps_logged(workdir) >= 7)
  subprocess.run(['scontrol', 'requeue', number], env=slurm, check=True)
  # Slurm keeps a requeued job back for two minutes.
  wait_for(lambda: job(slurm, number, 'JobState') in ('COMPLETED', 'FAILED', 'CANCELLED'), 280)
  said = log.read_text()
  assert job(slurm, number, 'JobState') == 'COMPLETED', said
  assert 'resuming after step' in said and ': done' in said, said
  assert job(slurm, number, 'Restarts') == '1'
  assert_same_run(workdir, tmp_path / 'undisturbed')


@pytest.mark.parametrize('shell, name', [('--batch', 'USR1'), ('--batch', 'TERM'), ('--full', 'TERM')])
def test_a_signal_to_the_batch_shell_saves_and_queues_again(slurm, corpus_folder, tmp_path, shell, name):
  """Also where the tasks are told too, before or after the shell."""
  workdir, log = tmp_path / 'run', tmp_path / 'log'
  number = submit(slurm, log, *flags_of(corpus_folder, workdir), '--config.train.steps=100000')
  try:
    wait_for(lambda: steps_logged(workdir) >= 3)
    subprocess.run(['scancel', shell, f'--signal={name}', number], env=slurm, check=True)
    wait_for(lambda: 'requeued' in log.read_text() or job(slurm, number, 'JobState') == 'FAILED')
  finally:
    subprocess.run(['scancel', number], env=slurm, check=True)
  said = log.read_text()
  assert 'exit code 75, requeued' in said and 'forcing job termination' not in said, said
  assert checkpoint.steps(workdir / 'checkpoints')[-1] == steps_logged(workdir)


def test_a_preempted_job_saves_and_is_queued_again(slurm, corpus_folder, tmp_path):
  """Slurm sends SIGTERM to the tasks twice."""
  workdir, log = tmp_path / 'run', tmp_path / 'log'
  number = submit(slurm, log, *flags_of(corpus_folder, workdir), '--config.train.steps=100000')
  try:
    wait_for(lambda: steps_logged(workdir) >= 3)
    subprocess.run(['sbatch', '--partition=urgent', '--nodes=2', '--exclusive', '--output=/dev/null',
                    '--wrap=sleep 1'], env=slurm, check=True)
    wait_for(lambda: job(slurm, number, 'JobState') == 'PENDING' and 'exit code' in log.read_text())
  finally:
    subprocess.run(['scancel', number], env=slurm, check=True)
  said = log.read_text()
  assert 'DUE TO PREEMPTION' in said and 'exit code 75, ended by Slurm' in said, said
  assert checkpoint.steps(workdir / 'checkpoints')[-1] == steps_logged(workdir)


def test_as_many_tasks_run_as_sbatch_is_told(slurm, tmp_path):
  """On as many nodes as well."""
  task = tmp_path / 'task'
  task.write_text(f'#!/bin/bash\necho "$SLURMD_NODENAME $SLURM_NTASKS" >>{tmp_path}/tasks\n')
  task.chmod(0o755)
  subprocess.run(
    ['sbatch', '--wait', '--nodes=2', '--ntasks-per-node=2', f'--output={tmp_path}/log',
     'launch/slurm.sbatch'],
    cwd=ROOT, env={**slurm, 'PYTHON': str(task)}, check=True, timeout=100)
  tasks = [line.split() for line in (tmp_path / 'tasks').read_text().splitlines()]
  assert len({node for node, _ in tasks}) == 2 and [n for _, n in tasks] == ['4'] * 4


def test_a_task_of_an_array_leaves_the_others_alone(slurm, tmp_path):
  """The one that is requeued has the number of the array."""
  task = tmp_path / 'task'
  task.write_text(f"""#!/bin/bash
echo "$2 $3" >{tmp_path}/ran-$SLURM_ARRAY_TASK_ID
[[ $SLURM_JOB_ID == "$SLURM_ARRAY_JOB_ID" ]] && exit 75
trap 'exit 75' TERM USR1
while ! [[ -e {tmp_path}/end ]]; do sleep 0.2; done
""")
  task.chmod(0o755)
  number = subprocess.run(
    ['sbatch', '--parsable', '--overcommit', '--ntasks=1', '--array=0-1', f'--output={tmp_path}/log-%a',
     'launch/slurm.sbatch', '--workdir=%a'], cwd=ROOT, env={**slurm, 'PYTHON': str(task)}, check=True,
    capture_output=True, text=True).stdout.strip()
  try:
    logs = lambda: ''.join(path.read_text() for path in tmp_path.glob('log-*'))
    wait_for(lambda: 'exit code 75' in logs())
    wait_for(lambda: len(list(tmp_path.glob('ran-*'))) == 2)
    (tmp_path / 'end').touch()
    wait_for(lambda: ': done' in logs(), 60)
  finally:
    subprocess.run(['scancel', number], env=slurm, check=True)
  assert logs().count('requeued') == 1 and logs().count(': done') == 1, logs()
  assert (tmp_path / 'ran-1').read_text() == 'gptjax.main --workdir=1\n'


def test_a_job_that_is_cancelled_does_not_come_back(slurm, corpus_folder, tmp_path):
  workdir, log = tmp_path / 'run', tmp_path / 'log'
  number = submit(slurm, log, *flags_of(corpus_folder, workdir), '--config.train.steps=100000')
  wait_for(lambda: steps_logged(workdir) >= 3)
  subprocess.run(['scancel', number], env=slurm, check=True)
  wait_for(lambda: job(slurm, number, 'JobState') not in ('RUNNING', 'COMPLETING'))
  assert job(slurm, number, 'JobState') == 'CANCELLED', log.read_text()


def test_wrong_input_is_not_queued_again(slurm, corpus_folder, tmp_path):
  number = submit(slurm, tmp_path / 'log', *flags_of(corpus_folder, tmp_path / 'run'),
                  '--config.train.batch_size=7')
  wait_for(lambda: job(slurm, number, 'JobState') in ('COMPLETED', 'FAILED'))
  assert job(slurm, number, 'JobState') == 'FAILED' and job(slurm, number, 'Restarts') == '0'
  assert 'exit code 2, not requeued' in (tmp_path / 'log').read_text()


def test_open_mpi_needs_no_flags(corpus_folder, tmp_path):
  if not shutil.which('mpirun'):
    subprocess.run(['apt-get', 'install', '-qq', '-y', '--no-install-recommends', 'openmpi-bin'], check=True,
                   env={**os.environ, 'DEBIAN_FRONTEND': 'noninteractive'}, timeout=300)
  line = command(corpus_folder, tmp_path / 'run')
  done = subprocess.run(
    ['mpirun', '--allow-run-as-root', '--oversubscribe', '-n', '2', *line],
    cwd=ROOT, env={**ENVIRONMENT, 'JAX_NUM_CPU_DEVICES': '1'}, capture_output=True, text=True,
    timeout=200)
  assert done.returncode == 0 and '2 x cpu, 2 processes on 1 host, mesh' in done.stderr, done.stderr


def test_the_arrays_of_the_guide_prepare_a_corpus(slurm, tmp_path):
  flags = [f'--source={write_jsonl(tmp_path / "a.jsonl", make_texts(200))}', '--tokenizer=train-bpe:300']
  changes = {r'0-99': '0-2', r'--tasks=100': '--tasks=3', r'--mem=4G ': '', r'judge mark ': '',
             r'FLAGS=.*': f'FLAGS=({" ".join(flags)} --out={tmp_path}/corpus)',
             r'^gptjax': f'"{sys.executable}" -m gptjax'}
  for name in ('prepare.sbatch', 'submit.sh'):
    text = pages.files('docs/howto/prepare_on_many_machines.md')[name]
    for old, new in changes.items():
      text = re.sub(old, new, text, flags=re.MULTILINE)
    (tmp_path / name).write_text(text)
  subprocess.run(['bash', 'submit.sh'], cwd=tmp_path, env=slurm, check=True)
  queue = lambda: subprocess.run(['squeue', '--noheader'], env=slurm, check=True, capture_output=True).stdout
  wait_for(lambda: not queue())
  logs = ''.join(path.read_text() for path in tmp_path.glob('slurm-*.out'))
  assert logs.count('is complete') == 8 and logs.count('skipped 0 documents') == 1, logs  # of the last one
  assert logs.count('tokenizer: 100%') == 1
  subprocess.run([sys.executable, '-m', 'gptjax', 'prepare', *flags, f'--out={tmp_path}/one'], env=slurm,
                 check=True)
  assert contents(tmp_path / 'corpus') == contents(tmp_path / 'one')
