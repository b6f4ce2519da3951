"""The complete GPU benchmark, on a CPU at a tiny size, in environments like those of GPU machines.

jax 0.11 needs Python 3.12; that environment has no PyTorch, whose build for it is several GB.
"""

import contextlib
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest
import pythons
from conftest import ENVIRONMENT, ROOT

from gptjax.benchmark import journal

PACKAGES = 'jax>=0.11,<0.12', 'flax>=0.12,<0.13', 'optax>=0.2.8,<0.3', 'numpy>=2,<3'
# What a machine lent for an hour may not have.
ABSENT = ('tensorflow', 'tensorflow_datasets', 'clu', 'ml_collections', 'tensorboard', 'matplotlib')
LIMIT_S = 900  # as this machine may be busy: no part is to be cut off

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


class Environment(NamedTuple):
  """python: its path; variables; jax: the beginning of its version; peers: contenders of ours that it has."""
  python: str
  variables: dict
  jax: str
  peers: tuple


@pytest.fixture(scope='module', params=['this Python', 'Python 3.12'])
def environment(request, tmp_path_factory):
  folder = tmp_path_factory.mktemp('environment')
  for name in ABSENT:
    (folder / f'{name}.py').write_text('raise ImportError("not here")')
  path = {'PYTHONPATH': os.pathsep.join([str(folder), str(ROOT)])}
  if request.param == 'this Python':
    pytest.importorskip('torch')
    return Environment(sys.executable, ENVIRONMENT | path, '0.1', ('torch', 'transformers'))
  if not (python := pythons.find('3.12')):
    pytest.skip('this machine has no Python 3.12, which jax 0.11 needs')
  subprocess.run([python, '-m', 'venv', folder / 'venv'], check=True)
  made = str(folder / 'venv' / 'bin' / 'python')
  subprocess.run([made, '-m', 'pip', 'install', '--quiet', *PACKAGES], check=True)
  plain = {name: x for name, x in os.environ.items() if name != 'XLA_FLAGS'}  # of another version
  return Environment(made, plain | path | {'JAX_PLATFORMS': 'cpu'}, '0.11.', ())


def processes_of(folder):
  """Numbers of the running processes whose command line has this folder."""
  found = []
  for path in Path('/proc').glob('[0-9]*/cmdline'):
    with contextlib.suppress(OSError):  # it has ended
      found += [path.parent.name] if str(folder).encode() in path.read_bytes() else []
  return found


def command(environment, out, *flags):
  return [environment.python, '-m', 'gptjax.benchmark', 'gpu', '--sizes=tiny', f'--limit_s={LIMIT_S}',
          f'--out={out}', *flags]


def result(environment, out, *flags):
  """What a run to its end has written."""
  done = subprocess.run(command(environment, out, *flags), cwd=ROOT, env=environment.variables, text=True,
                        capture_output=True)
  assert done.returncode == 0, done.stdout + done.stderr
  found = json.loads(out.read_text())
  assert not any(part['error'] for part in found['details']['parts'].values())
  facts = found['details']['facts']
  assert facts['jax'].startswith(environment.jax) and facts['exp(1)'] == pytest.approx(2.7182817)
  for name in ('torch', 'transformers'):
    assert ('are skipped' in facts[name]) == (name not in environment.peers)
  for kernel in ('xla', 'xla, dropout 0.1'):
    name = f'attention tiny, forward and backward, {kernel}'
    assert 0 < max(facts[f'{name}, errors of y and its gradients in bfloat16']) < 0.05
  return found


def rows_of(found):
  return {(row['what'], row['who']): row for row in found['rows']}


def test_first_stages(environment, tmp_path):
  found = result(environment, tmp_path / 'first.json', '--first')
  trained = ','.join(['gptjax', *[name for name in environment.peers if name == 'torch']])
  assert list(found['details']['parts']) == ['attention tiny', f'train tiny {trained}']
  rows = {who: row for (what, who), row in rows_of(found).items() if what == 'training tiny, float32'}
  assert ','.join(rows) == trained and rows['gptjax']['turns'] == 3
  assert all(row['ratio'] > 0 for who, row in rows.items() if who != 'gptjax')


def test_all_stages(environment, tmp_path):
  found = result(environment, tmp_path / 'gpu.json')
  names = [name.split()[0] for name in found['details']['parts']]
  assert names == ['train', 'attention', 'generate', 'check', 'variants', 'profile']
  rows = rows_of(found)
  peers = [name for name in ('torch', 'transformers') if name in environment.peers]
  assert rows.keys() == {
    *(('training tiny, float32', name) for name in ('gptjax', *peers[:1])),
    *(('attention tiny, forward and backward', name) for name in ('xla', 'xla, dropout 0.1')),
    *((f'generation tiny, float32, {task}', name) for name in ('gptjax', *peers[1:])
      for task in ('batch 1', 'batch 8', 'prefill 512')),
    ('training tiny, float32, as it is', 'gptjax')}
  gates = [gate['what'] for gate in found['gates']]
  assert ('tiny, times as fast as torch' in gates) == bool(peers)
  times = found['details']['parts']['profile tiny']['details']['parts']
  assert {'attention', 'projections', 'norms', 'loss', 'optimizer', 'embedding'} & times.keys()
  assert all(seconds > 0 for seconds in times.values())


@pytest.mark.parametrize('seed', [0, 1])
def test_a_kill_leaves_all_printed_measurements(environment, tmp_path, seed):
  """Killed after a random one of its lines: all that it has printed is kept, and nothing goes on running."""
  out, last = tmp_path / 'gpu.json', random.Random(seed).randrange(25, 50)
  running = subprocess.Popen(command(environment, out), cwd=ROOT, env=environment.variables, text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
  lines = []
  for line in running.stdout:
    lines.append(line.rstrip('\n'))
    if len(lines) == last:
      running.kill()
  assert running.wait() == -9 and len(lines) >= last
  while processes_of(tmp_path):
    time.sleep(0.1)  # the test ends by its timeout if one goes on
  kept = [journal.format_record(record['kind'], record) for record in journal.read(tmp_path / 'gpu.jsonl')]
  figures = [line for line in lines if ', turn ' in line or ', first turn' in line]
  assert figures and set(figures) <= set(kept)
  again = [environment.python, '-m', 'gptjax.benchmark', 'table', f'{tmp_path}/gpu.jsonl', f'--json={out}']
  done = subprocess.run(again, cwd=ROOT, env=environment.variables, text=True, capture_output=True)
  assert done.returncode == 0, done.stderr
  assert len(done.stdout.splitlines()) == 2 + len(json.loads(out.read_text())['rows'])
