"""Several processes of one run on this machine, with and without a model."""

import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import killing
from conftest import ENVIRONMENT, ROOT, command


def free_port():
  with socket.create_server(('127.0.0.1', 0)) as server:
    return server.getsockname()[1]


HOST_PROCESS = str(ROOT / 'tests' / 'parallel' / 'host_process.py')
TOKEN = {'GPTJAX_RUN_TOKEN': 'the token of all tests'}


def last_line(text):
  return text.strip().splitlines()[-1]


def run_script(n, what, absent=(), **env):
  """Run n processes of host_process.py to their end; returns [(exit code, stdout, stderr)]."""
  port, signs = free_port(), tempfile.mkdtemp()
  together = {'SIGNS': signs, 'PRESENT': str(n - len(absent))}
  running = [subprocess.Popen(
    [sys.executable, HOST_PROCESS, str(port), str(n), str(i), what], cwd=ROOT,
    env={**ENVIRONMENT, 'PYTHONPATH': str(ROOT), 'JAX_NUM_CPU_DEVICES': '1', **TOKEN, **together,
         **env},
    stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for i in range(n) if i not in absent]
  ended = []
  for process in running:
    try:
      said = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
      process.kill()  # also what was stopped by a signal
      said = process.communicate()
    ended.append((process.returncode, *said))
  shutil.rmtree(signs)
  return ended


def start(corpus, workdir, n, *flags, devices=1, cwd=ROOT, env=None, at=None):
  """Start n processes of the command; process i writes stderr to WORKDIR.i.err.

  at: (point in the progress of process 0, signal, indices of the processes that receive it there).
  """
  port = free_port()
  workdir.parent.mkdir(exist_ok=True, parents=True)
  running = []
  for i in range(n):
    line = command(corpus, workdir, *flags, f'--coordinator=127.0.0.1:{port}', f'--num_processes={n}',
                   f'--process_id={i}')
    line[3] = f'--config={ROOT}/configs/quickstart.py'
    if at and i == 0:
      line = killing.instead_of_main(line, *at[0], at[1], f'{workdir}.told')
    with open(f'{workdir}.{i}.err', 'w') as error:
      running.append(subprocess.Popen(
        line, cwd=cwd if isinstance(cwd, type(ROOT)) else cwd[i], stdout=subprocess.DEVNULL, stderr=error,
        env={**ENVIRONMENT, 'JAX_NUM_CPU_DEVICES': str(devices), 'PYTHONPATH': str(ROOT), **(env or {})}))
  if at:
    Path(f'{workdir}.told').write_text(' '.join(str(running[i].pid) for i in at[2]))
  return running


def wait(running, workdir, limit=240):
  """Wait for all processes; returns [(exit code, stderr)]. Those still running at the limit are killed."""
  deadline = time.monotonic() + limit
  for process in running:
    try:
      process.wait(max(deadline - time.monotonic(), 0.1))
    except subprocess.TimeoutExpired:
      process.kill()
      process.wait()
  return [(process.returncode, open(f'{workdir}.{i}.err').read()) for i, process in enumerate(running)]


def run(corpus, workdir, n, *flags, limit=240, **more):
  """Run n processes of the command to their end; every exit code is 0."""
  ended = wait(start(corpus, workdir, n, *flags, **more), workdir, limit)
  assert [code for code, _ in ended] == [0] * n, ended
  return ended
