"""launch/tpu_vm.sh with a stub of gcloud, whose workers are folders of this machine."""

import os
import re
import subprocess
import time

import pytest
from conftest import ENVIRONMENT, ROOT
from launch_arguments import ODD

LAUNCH = ROOT / 'launch'

# A gcloud for one queued resource: its workers are folders, what they are sent is run there, with HOME set.
GCLOUD = """#!/bin/bash
printf '%s\\n' "$*" >>{all}/calls
next() {{ # the next line of a file, the last one again and again
  [[ $(wc -l <"$1") == 1 ]] || sed -n 1p "$1" >"$1.now"
  [[ $(wc -l <"$1") == 1 ]] && cat "$1" || {{ cat "$1.now"; sed -i 1d "$1"; }}
}}
describe() {{
  now=$(next "$1")
  case $now in
    NOT_FOUND) echo 'ERROR: (gcloud) NOT_FOUND: no such resource' >&2; exit 1 ;;
    FAILS) echo 'ERROR: (gcloud) the connection was reset' >&2; exit 1 ;;
  esac
  echo "WARNING: a new version is there" >&2
  echo "$now"
}}
case "$*" in
  *'queued-resources describe'*) describe {all}/state ;;
  *'tpu-vm describe'*) [[ -e {all}/node-$5 ]] && describe {all}/node-$5 || echo READY ;;
  *'queued-resources create'*)
    [[ ! -e {all}/no-capacity ]] || exit 1
    echo ACTIVE >{all}/state
    rm -f {all}/node-*
    for i in {workers}; do mkdir -p {all}/worker-$i; done ;;
  *'queued-resources delete'*)
    [[ ! -s {all}/undeletable ]] || {{ sed -i 1d {all}/undeletable; exit 1; }}
    echo NOT_FOUND >{all}/state
    rm -rf {all}/worker-* ;;
  *'queued-resources scp'*)
    for word in "$@"; do
      [[ $word != /* ]] || for home in {all}/worker-*; do cp "$word" "$home/"; done
    done ;;
  *'queued-resources ssh'*)
    [[ ! -s {all}/unreachable ]] || {{ sed -i 1d {all}/unreachable; exit 255; }}
    for word in "$@"; do [[ $word != --command=* ]] || sent=${{word#*=}}; done
    printf %s "$sent" >{all}/sent
    for home in {all}/worker-*; do
      (cd "$home" && HOME=$home bash -c "$sent") || code=$?
    done
    exit ${{code:-0}} ;;
esac
"""
# What a worker downloads; its python keeps its arguments and exits with the next code.
CURL = """#!/bin/bash
[[ ! -s {all}/offline ]] || {{ sed -i 1d {all}/offline; exit 6; }}
echo curl "$@" >>{all}/calls
cat >"${{@: -1}}" <<'END'
mkdir -p ~/.local/bin
cp {all}/uv ~/.local/bin/uv
END
"""
UV = """#!/bin/bash
echo uv "$@" >>{all}/calls
[[ $1 != venv ]] || {{ mkdir -p env/bin; cp {all}/python env/bin/python; }}
"""
PYTHON = """#!/bin/bash
[[ $1 != -c ]] || exit 0
printf '%s\\0' "$@" >{all}/arguments
echo "$GPTJAX_RUN_TOKEN" >>{all}/tokens
code=$(sed -n 1p {all}/codes-$(basename "$HOME"))
[[ -z $code ]] || sed -i 1d {all}/codes-$(basename "$HOME")
if [[ ${{code:-hangs}} == hangs ]]; then
  trap 'exit 75' TERM
  for ((i = 0; i < 600; i++)); do sleep 0.05; done
fi
echo "the last line" >&2
exit "$code"
"""


class Cloud:
  """Runs launch/tpu_vm.sh; `folder` contains the state of the stubs."""

  def __init__(self, folder, workers=1, state='NOT_FOUND', codes='0', **env):
    self.folder = folder / 'cloud'
    path = self.folder / 'bin'
    path.mkdir(parents=True)
    fields = {'all': self.folder, 'workers': ' '.join(map(str, range(workers)))}
    for file, text in ((path / 'gcloud', GCLOUD), (path / 'curl', CURL), (self.folder / 'uv', UV),
                       (self.folder / 'python', PYTHON)):
      file.write_text(text.format(**fields))
      file.chmod(0o755)
    (path / 'sleep').write_text('#!/bin/bash\nexec /bin/sleep "$(awk "BEGIN { print $1 / 20 }")"\n')
    (path / 'sleep').chmod(0o755)
    self.write(state=state, calls='')
    for i in range(workers):
      self.write(**{f'codes-worker-{i}': codes})
      if state not in ('NOT_FOUND', 'SUSPENDED'):
        (self.folder / f'worker-{i}').mkdir()
    self.env = {**ENVIRONMENT, 'NAME': 'run', 'TYPE': 'v6e-16', 'ZONE': 'us-east5-a', 'POLL': '2',
                'PAUSE': '0', 'PATH': f'{path}{os.pathsep}{os.environ["PATH"]}', **env}

  def write(self, **files):
    """Files of states or codes, one a line."""
    for name, lines in files.items():
      (self.folder / name).write_text(''.join(f'{line}\n' for line in lines.split()))

  def run(self, *arguments):
    return subprocess.run(['launch/tpu_vm.sh', *arguments], cwd=ROOT, env=self.env, capture_output=True,
                          text=True, timeout=200)

  def calls(self, *words):
    """The first of the words that each call contains, of those that contain one."""
    lines = (self.folder / 'calls').read_text().splitlines()
    found = [[word for word in words if word in line] for line in lines]
    return [some[0] for some in found if some]

  def arguments(self):
    return (self.folder / 'arguments').read_text().split('\0')[:-1]


@pytest.fixture
def cloud(tmp_path):
  clouds = []

  def make(**options):
    clouds.append(Cloud(tmp_path, **options))
    return clouds[-1]
  yield make
  for one in clouds:
    subprocess.run(['bash', '-c', f'cat {one.folder}/worker-*/run.pid | xargs -r kill -TERM'],
                   capture_output=True)


DELETE, CREATE, SCP, START_RUN = 'resources delete', 'resources create', 'resources scp', 'gptjax.main'


@pytest.mark.parametrize('arguments, expected', [
  (['create'], [r'queued-resources create run .*--node-id=run .*--spot']),
  (['install'], [r'queued-resources scp \S+/gptjax\.tgz \S+/run\.token run:\. --node=all --worker=all',
                r'queued-resources ssh run --node=all --worker=all']),
  (['run', '--workdir=a b'], [r'resources ssh run --node=all --worker=all .*--command=.*gptjax\.main']),
  (['logs'], [r'queued-resources ssh run --node=0 --worker=0 .*run\.log']),
  (['stop'], [r'queued-resources ssh run --node=all --worker=all .*TERM']),
  (['status'], [r'queued-resources describe run']),
  (['restart', '--workdir=x'], [r'delete run --force', r'create run', r'describe run', r'scp', r'ssh',
                                r'ssh']),
  (['keep', '--workdir=x'], [r'queued-resources describe run', r'tpu-vm describe run', r'ssh', r'delete run',
                             r'create run', r'scp', r'ssh', r'ssh']),
  (['delete'], [r'queued-resources delete run --force --quiet'])])
def test_a_dry_run_prints_each_gcloud_command_and_runs_none(cloud, arguments, expected):
  cloud = cloud(SPOT='1')
  done = cloud.run('--dry_run', *arguments)
  assert done.returncode == 0 and not (cloud.folder / 'calls').read_text(), done.stderr
  commands = [line for line in done.stdout.splitlines() if line.startswith('gcloud compute tpus ')]
  assert len(commands) == len(expected), done.stdout
  for line, pattern in zip(commands, expected, strict=True):
    assert re.search(pattern, line) and '--zone=us-east5-a' in line, line


@pytest.mark.parametrize('kind, version', [
  ('v2-8', 'tpu-ubuntu2204-base'), ('v3-32', 'tpu-ubuntu2204-base'), ('v4-32', 'tpu-ubuntu2204-base'),
  ('v5litepod-16', 'v2-alpha-tpuv5-lite'), ('v5p-8', 'v2-alpha-tpuv5'), ('v6e-16', 'v2-alpha-tpuv6e')])
def test_the_runtime_version_follows_from_the_type(cloud, kind, version):
  cloud = cloud(TYPE=kind)
  assert f'--runtime-version={version} ' in cloud.run('--dry_run', 'create').stdout
  cloud.env['VERSION'] = 'another'
  assert '--runtime-version=another ' in cloud.run('--dry_run', 'create').stdout


@pytest.mark.parametrize('command', ['create', 'keep'])
def test_a_type_without_a_known_runtime_version_is_refused(cloud, command):
  cloud = cloud(TYPE='tpu7x-16')
  done = cloud.run(command)
  assert done.returncode == 2 and 'set VERSION, or use GKE' in done.stderr
  assert not (cloud.folder / 'calls').read_text()


def test_several_slices_are_nodes_of_one_resource(cloud):
  cloud = cloud(NODES='3', state='ACTIVE')
  created = cloud.run('--dry_run', 'create').stdout
  assert '--node-count=3 --node-prefix=run ' in created and '--node-id' not in created
  cloud.write(**{'node-run-2': 'CREATING FAILS READY'})
  done = cloud.run('keep', '--workdir=w')
  assert done.returncode == 0 and done.stdout.split()[:2] == ['CREATING', 'READY'], done.stderr


def test_a_failed_describe_is_retried_and_says_nothing_about_the_machines(cloud):
  cloud = cloud(state='FAILS FAILS PROVISIONING FAILS ACTIVE')
  done = cloud.run('await')
  assert done.returncode == 0 and done.stdout.split() == ['PROVISIONING', 'ACTIVE']
  assert done.stderr.count('the connection was reset') == 3
  cloud.write(state='FAILS', calls='')
  done = cloud.run('await')
  assert done.returncode == 1 and len(cloud.calls('describe')) == 5
  cloud.write(state='FAILS ' * 12 + 'ACTIVE', calls='')
  done = cloud.run('keep', '--workdir=w')
  assert done.returncode == 0 and done.stdout.split()[:2] == ['unknown', 'unknown'], done.stderr
  assert cloud.calls(DELETE, CREATE) == [DELETE]  # when the run was done


@pytest.mark.parametrize('state', ['FAILED', 'SUSPENDED', 'NOT_FOUND'])
def test_await_ends_when_the_machines_will_not_come(cloud, state):
  assert cloud(state=f'PROVISIONING {state}').run('await').returncode == 1


def test_the_commit_is_copied_and_what_is_not_committed_is_named(cloud, tmp_path):
  git = ['git', '-C', str(tmp_path / 'checkout'), '-c', 'user.name=a', '-c', 'user.email=a@b']
  (tmp_path / 'checkout' / 'launch').mkdir(parents=True)
  for name in ('tpu_vm.sh', 'restarts.sh', 'again.sh'):
    (tmp_path / 'checkout' / 'launch' / name).write_bytes((LAUNCH / name).read_bytes())
  for line in (['init', '-q'], ['add', '.'], ['commit', '-qm', 'The subject']):
    subprocess.run([*git, *line], check=True)
  cloud = cloud(state='ACTIVE')
  install = ['bash', str(tmp_path / 'checkout' / 'launch' / 'tpu_vm.sh'), 'install']
  done = subprocess.run(install, cwd='/', env=cloud.env, capture_output=True, text=True)
  assert done.returncode == 0 and '(The subject)' in done.stderr and 'warning' not in done.stderr
  copied = cloud.folder / 'worker-0' / 'gptjax' / 'launch' / 'again.sh'
  assert copied.read_bytes() == (LAUNCH / 'again.sh').read_bytes()
  (tmp_path / 'checkout' / 'launch' / 'again.sh').write_text('changed')
  (tmp_path / 'checkout' / 'new.py').write_text('')
  done = subprocess.run(install, cwd='/', env=cloud.env, capture_output=True, text=True)
  warned = done.stderr.partition('warning')[2]
  assert done.returncode == 0 and ' M launch/again.sh' in warned and '?? new.py' in warned
  assert copied.read_bytes() == (LAUNCH / 'again.sh').read_bytes()


def test_the_workers_get_a_newer_python_and_a_token_in_a_file(cloud):
  cloud = cloud(workers=2, state='ACTIVE')
  cloud.write(offline='x x')  # two downloads fail
  done = cloud.run('install')
  assert done.returncode == 0, done.stderr
  installed = [line.split(' ', 1)[1] for line in (cloud.folder / 'calls').read_text().splitlines()
               if line.startswith('uv ')]
  assert installed == ['venv --quiet --python 3.11 env',
                       'pip install --quiet --python env/bin/python --editable ./gptjax[tpu,gcs]'] * 2
  sent = (cloud.folder / 'sent').read_text()
  assert 'apt' not in re.sub('#.*', '', sent) and 'fuse' not in sent
  tokens = {(cloud.folder / f'worker-{i}' / 'run.token').read_text() for i in (0, 1)}
  assert len(tokens) == 1 and re.fullmatch('[0-9a-f]{64}', *tokens)
  assert (cloud.folder / 'worker-0' / 'run.token').stat().st_mode & 0o777 == 0o600
  cloud.write(calls='')
  assert cloud.run('install').returncode == 0  # a python that is new enough stays
  assert not cloud.calls('uv venv --quiet --python 3') and cloud.calls('uv pip install --quiet --python env')


def test_an_installation_that_fails_is_reported(cloud):
  cloud = cloud(state='ACTIVE')
  cloud.write(offline='x x x x')
  assert cloud.run('install').returncode != 0
  assert not (cloud.folder / 'worker-0' / 'installed').exists()


@pytest.mark.parametrize('command', ['run', 'keep'])
def test_arguments_reach_the_workers_unchanged(cloud, command):
  cloud = cloud(state='ACTIVE')
  assert cloud.run('install').returncode == 0
  done = cloud.run(command, *ODD)
  assert done.returncode == 0, done.stderr
  while not (cloud.folder / 'arguments').exists():
    time.sleep(0.01)
  assert cloud.arguments() == ['-m', 'gptjax.main', *ODD]
  token = (cloud.folder / 'tokens').read_text().split()[0]
  assert token not in (cloud.folder / 'calls').read_text()


def test_a_run_without_arguments_gets_none(cloud):
  cloud = cloud(state='ACTIVE')
  assert cloud.run('install').returncode == cloud.run('run').returncode == 0
  while not (cloud.folder / 'arguments').exists():
    time.sleep(0.01)
  assert cloud.arguments() == ['-m', 'gptjax.main']


def test_a_second_run_on_the_same_machines_is_refused(cloud):
  cloud = cloud(state='ACTIVE', codes='hangs')
  assert cloud.run('install').returncode == 0
  assert 'already' not in cloud.run('run').stderr
  assert 'a run is running already' in cloud.run('run').stderr
  assert len((cloud.folder / 'tokens').read_text().split()) == 1
  assert cloud.run('stop').returncode == 0  # it waits until all is saved
  assert (cloud.folder / 'worker-0' / 'run.exit').read_text() == '75\n'


@pytest.mark.first_cases(2)
@pytest.mark.parametrize('code', [0, 2])
@pytest.mark.parametrize('state, made', [
  ('NOT_FOUND', [CREATE]), ('SUSPENDED', [DELETE, CREATE]), ('ACTIVE', [])])
def test_keep_makes_machines_if_there_are_none_and_deletes_them_at_the_end(cloud, code, state, made):
  cloud = cloud(workers=2, state=state, codes=f'70 75 {code}')
  done = cloud.run('keep', '--workdir=w')
  assert done.returncode == code, done.stderr
  assert cloud.calls(DELETE, CREATE, SCP, START_RUN) == [*made, SCP, START_RUN, DELETE]
  assert 'the last line' in done.stdout
  assert len(set((cloud.folder / 'tokens').read_text().split())) == 1


def test_keep_starts_a_run_on_machines_where_all_is_installed(cloud):
  cloud = cloud(state='ACTIVE', codes='0 0')
  assert cloud.run('install').returncode == cloud.run('run', '--workdir=before').returncode == 0
  assert cloud.run('stop').returncode == 0  # what has been stopped is started again
  cloud.write(calls='')
  done = cloud.run('keep', '--workdir=w')
  assert done.returncode == 0 and cloud.calls(SCP, START_RUN, DELETE) == [START_RUN, DELETE], done.stderr
  assert cloud.arguments() == ['-m', 'gptjax.main', '--workdir=w']


def test_keep_supervises_a_run_that_is_running(cloud):
  cloud = cloud(state='ACTIVE', codes='hangs 0')
  assert cloud.run('install').returncode == cloud.run('run', '--workdir=w').returncode == 0
  process = subprocess.Popen(['launch/tpu_vm.sh', 'keep', '--workdir=w'], cwd=ROOT, env=cloud.env,
                             stderr=subprocess.PIPE, text=True)
  assert 'a run is running already' in process.stderr.readline()
  assert cloud.run('stop').returncode == 0
  said = process.communicate(timeout=200)[1]
  assert process.returncode == 75 and 'the machines stay' in said
  assert not cloud.calls(DELETE, CREATE)


def test_keep_starts_again_after_preemption(cloud):
  cloud = cloud(NODES='2', workers=2, codes='hangs 0')
  process = subprocess.Popen(['launch/tpu_vm.sh', 'keep', '--workdir=w'], cwd=ROOT, env=cloud.env,
                             stderr=subprocess.PIPE, text=True)
  while not (cloud.folder / 'tokens').exists() or (cloud.folder / 'tokens').read_text().count('\n') < 2:
    assert process.poll() is None
    time.sleep(0.01)
  cloud.write(**{'node-run-1': 'PREEMPTED'})
  said = process.communicate(timeout=200)[1]
  assert process.returncode == 0, said
  assert cloud.calls(DELETE, CREATE, SCP, START_RUN) == [CREATE, SCP, START_RUN, DELETE] * 2
  assert len(set((cloud.folder / 'tokens').read_text().split())) == 2


@pytest.mark.first_cases(1)
@pytest.mark.parametrize('before', ['hangs', '0', '2'])
def test_keep_replaces_one_new_worker_among_old_ones(cloud, before):
  """As the repair of a slice does: the new machine is bare, and the others get its token."""
  cloud = cloud(workers=2, state='ACTIVE', codes=f'{before} 0')
  assert cloud.run('install').returncode == cloud.run('run', '--workdir=w').returncode == 0
  for name in ('installed', 'run.token'):
    (cloud.folder / 'worker-1' / name).unlink()
  cloud.write(calls='')
  done = cloud.run('keep', '--workdir=w')
  assert done.returncode == 0 and cloud.calls(SCP, START_RUN, DELETE) == [SCP, START_RUN, DELETE], done.stderr


def test_keep_ends_after_a_bug_and_the_machines_stay(cloud):
  cloud = cloud(codes='1 1 1 1')
  done = cloud.run('keep', '--workdir=w')
  assert done.returncode == 1 and 'the machines stay' in done.stderr and not cloud.calls(DELETE)


def test_keep_waits_for_workers_that_do_not_answer(cloud):
  cloud = cloud(state='ACTIVE')
  cloud.write(unreachable='x x x')
  done = cloud.run('keep', '--workdir=w')
  assert done.returncode == 0 and done.stderr.count('not all workers answer') == 3
  assert cloud.calls(DELETE, CREATE) == [DELETE]


def test_keep_starts_no_more_often_than_allowed(cloud):
  cloud = cloud(STARTS_PER_HOUR='3')
  cloud.write(**{'no-capacity': 'x'})
  done = cloud.run('keep', '--workdir=w')
  assert done.returncode == 70 and 'more than STARTS_PER_HOUR=3' in done.stderr
  assert cloud.calls(CREATE) == [CREATE] * 3


@pytest.mark.parametrize('times, said', [(1, False), (9, True)])
def test_machines_that_could_not_be_deleted_are_reported(cloud, times, said):
  cloud = cloud()
  cloud.write(undeletable='x ' * times)
  done = cloud.run('keep', '--workdir=w')
  assert done.returncode == 0 and ('cost money' in done.stderr) == said
