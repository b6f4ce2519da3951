"""Real runs of the command: started, killed at a chosen point, and compared to the bit."""

import json
import random
import signal
import subprocess

import killing
from conftest import ENVIRONMENT, ROOT, command

from gptjax.storage import checkpoint


def losses(workdir):
  """{step: (loss, held-out loss) as hex} of metrics.jsonl."""
  found = {}
  for line in (workdir / 'metrics.jsonl').read_text().splitlines():
    record = json.loads(line)
    for name in ('train/loss', 'train/grad_norm', 'eval/loss'):
      if name in record:
        found[record['step'], name] = float(record[name]).hex()
  return found


def arrays(workdir, step):
  """{name: [shape, dtype, digest]}: weights, optimizer state and step, to the bit."""
  return checkpoint.read_manifest(workdir / 'checkpoints' / str(step))['arrays']


def assert_same_run(workdir, other):
  assert losses(workdir) == losses(other)
  assert {key[0] for key in losses(workdir) if key[1] == 'train/loss'} == set(range(1, 31))
  assert arrays(workdir, 30) == arrays(other, 30)


def after(workdir, step):
  """The point at which a step has been logged (see tests/killing.py)."""
  return 'line', f'{workdir}/metrics.jsonl', rf'"step": {step}\b.*"train/loss"'


def in_save(workdir, step, change=1):
  """The point right before the n-th change of the files of a checkpoint."""
  return 'change', f'{workdir}/checkpoints/{step}/*', change


def start(corpus, workdir, when, number=signal.SIGKILL, flags=(), env=None):
  """A process of the real command that gets a signal at a point of its progress."""
  line = killing.instead_of_main(command(corpus, workdir, *flags), *when, number)
  return subprocess.Popen(line, cwd=ROOT, env={**ENVIRONMENT, **(env or {})}, stdout=subprocess.DEVNULL,
                          stderr=subprocess.PIPE, text=True)


def run_and_kill(corpus, workdir, when, *flags, env=None):
  """Runs the real command until it is killed at a point of its progress, and asserts that it got there."""
  process = start(corpus, workdir, when, flags=flags, env=env)
  said = process.communicate(timeout=300)[1]
  assert process.returncode == -signal.SIGKILL, (when, said)


def steps_logged(workdir):
  path = workdir / 'metrics.jsonl'
  return path.read_text().count('train/loss') if path.exists() else 0


LONG = '--config.train.steps=500', '--config.checkpoint.every_steps=10', '--config.eval.every_steps=100'


def storm(workdir, apart, kills=20):
  """Points for so many kills over a run: soon after its start, in a save, up to `apart` steps on."""
  rng = random.Random(2)
  for i in range(kills):
    logged = steps_logged(workdir)
    if i % 4 == 0:
      yield 'change', f'{workdir}/*', rng.randint(1, 20)
    elif i % 4 == 1:
      yield in_save(workdir, '*', rng.randint(1, 20))
    else:
      yield after(workdir, logged + rng.randint(1, apart))
