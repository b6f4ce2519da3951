"""All jobs with every path in a bucket, by processes that share nothing else: bit for bit the local ones."""

import json
import math
import subprocess
import sys

import object_storage
import pytest
from conftest import ENVIRONMENT, ROOT, command

from gptjax.report.telemetry import read_metrics
from gptjax.storage import manifest, step_folders
from gptjax.storage.files import buckets, paths

SHORT = '--config.train.steps=20'


class Host:
  """A machine: its own current folder, HOME and TMPDIR."""

  def __init__(self, folder, environment):
    self.here = folder / 'here'
    for name in ('here', 'home', 'tmp'):
      (folder / name).mkdir(parents=True)
    self.environment = {**ENVIRONMENT, **environment, 'PYTHONPATH': str(ROOT), 'HOME': str(folder / 'home'),
                        'TMPDIR': str(folder / 'tmp')}

  def run(self, *line):
    line = [str(part).replace('configs/', f'{ROOT}/configs/') for part in line]
    ended = subprocess.run(line, cwd=self.here, env=self.environment, capture_output=True, text=True,
                           timeout=280)
    assert ended.returncode == 0, ended.stderr
    assert not list(self.here.iterdir()), 'a bucket is never a folder here'
    return ended.stdout


@pytest.fixture(scope='module', params=object_storage.BUCKETS)
def bucket(request):
  with object_storage.in_process(object_storage.BUCKETS[request.param]('buck')) as faults:
    yield paths.location(f'{request.param}://buck/all'), faults.environment


@pytest.fixture(scope='module')
def hosts(bucket, tmp_path_factory):
  return [Host(tmp_path_factory.mktemp('host'), bucket[1]) for _ in range(3)]


@pytest.fixture(scope='module')
def text(tmp_path_factory):
  path = tmp_path_factory.mktemp('text') / 'in.txt'
  path.write_text(''.join(f'line {n} of a text about {n % 7} things\n' for n in range(4000)))
  return path


def module(name, *flags):
  return [sys.executable, '-m', f'gptjax.{name}', *flags]


def prepare(host, text, out):
  host.run(*module('data.prepare', f'--source=text:{text}', '--tokenizer=train-bpe:290', f'--out={out}',
                   '--validation_fraction=0.1', '--seq_len=24', '--workers=1', '--shard_tokens=9000'))


def files(folder):
  return {path.relative_to(folder).as_posix(): path.read_bytes()
          for path in folder.rglob('*') if path.is_file()}


def losses(workdir):
  return {(record['step'], name): value for record in read_metrics(workdir / 'metrics.jsonl')
          for name, value in record.items() if name.startswith('eval/') or name == 'train/loss'}


@pytest.mark.slow
def test_a_corpus_a_run_and_all_that_follows(bucket, hosts, text, tmp_path):
  root, here = bucket[0], tmp_path
  prepare(hosts[0], text, root / 'corpus')
  prepare(hosts[2], text, here / 'corpus')
  local = files(here / 'corpus')
  assert {name: buckets.read(root / 'corpus' / name) for name in buckets.find(root / 'corpus')
          } == local
  assert 'documents' in hosts[1].run(*module('data.inspect', root / 'corpus'))

  workdir = root / 'run'
  train = lambda host, corpus, to, *flags: host.run(*command(
    corpus, to, *flags, '--config.checkpoint.export=True'))
  train(hosts[0], root / 'corpus', workdir, SHORT)
  train(hosts[1], root / 'corpus', workdir)  # resumes, on another machine
  train(hosts[2], here / 'corpus', here / 'run', SHORT)
  train(hosts[2], here / 'corpus', here / 'run')
  assert losses(workdir) == losses(here / 'run') and math.isfinite(losses(workdir)[30, 'eval/loss'])
  arrays = lambda folder: manifest.read_manifest(folder / 'checkpoints' / '30')['arrays']
  assert arrays(workdir) == arrays(here / 'run')
  assert step_folders.steps(workdir / 'checkpoints') == step_folders.steps(here / 'run' / 'checkpoints')

  for host, source, to in ((hosts[0], workdir, root / 'out'), (hosts[2], here / 'run', here / 'out')):
    host.run(*module('pretrained', 'export', f'--from={source}', f'--to={to}'))
  out = root / 'out'
  assert {name: buckets.read(out / name) for name in buckets.find(out)} == files(here / 'out')
  generate = lambda host, source: host.run(*module(
    'generate', f'--from={source}', '--prompt=line', '--max_tokens=8', '--seed=1'))
  assert generate(hosts[1], root / 'out') == generate(hosts[2], here / 'run')
  assert generate(hosts[1], workdir) == generate(hosts[2], here / 'run')

  zero_shot = lambda host, base, run, corpus: host.run(*module(
    'main', '--config=configs/gpt2_zero_shot.py', f'--workdir={base / "zero"}', f'--config.init_from={run}',
    '--config.eval.tasks=held_out', f'--config.data.corpus={corpus}'))
  zero_shot(hosts[1], root, root / 'out', root / 'corpus')
  zero_shot(hosts[2], here, here / 'out', here / 'corpus')
  tasks = lambda content: json.loads(content)['tasks']
  assert tasks(buckets.read(root / 'zero' / 'results.json')) == tasks(
    (here / 'zero' / 'results.json').read_text())
  hosts[1].run(*module('report', f'--workdir={root / "zero"}', f'--out={root / "report"}'))
  assert b'held' in buckets.read(root / 'report' / 'report.html')


@pytest.mark.slow
def test_fine_tuning_reads_weights_and_data_from_a_bucket(bucket, hosts, shared_data, tmp_path, text):
  root = bucket[0]
  for path in (shared_data / 'tfds' / 'glue' / 'sst2').rglob('*'):
    if path.is_file():
      buckets.put_file(root / 'tfds' / path.relative_to(shared_data / 'tfds').as_posix(), path)
  prepare(hosts[0], text, root / 'corpus2')
  hosts[0].run(*command(root / 'corpus2', root / 'start', '--config.train.steps=5',
                        '--config.checkpoint.export=True'))
  tune = lambda host, to, tfds, weights: host.run(*module(
    'main', '--config=configs/gpt1_finetune.py:sst2', f'--workdir={to}', f'--config.init_from={weights}',
    f'--config.data.tfds_dir={tfds}', '--config.finetune.limit=32', '--config.train.epochs=1',
    '--config.loss.chunk=0', '--config.data.seq_len=24', '--config.checkpoint.every_steps=1',
    '--config.log.tensorboard=False'))
  tune(hosts[1], root / 'tuned', root / 'tfds', root / 'start' / 'export')
  exported = tmp_path / 'export'
  exported.mkdir()
  for name in buckets.find(root / 'start' / 'export'):
    (exported / name).write_bytes(buckets.read(root / 'start' / 'export' / name))
  tune(hosts[2], tmp_path / 'tuned', shared_data / 'tfds', exported)
  there, here = (json.loads(content) for content in (
    buckets.read(root / 'tuned' / 'results.json'), (tmp_path / 'tuned' / 'results.json').read_bytes()))
  differ = 'config', 'crc32', 'seconds', 'versions'
  without = lambda value: {name: part for name, part in value.items() if name not in differ}
  assert without(there) == without(here)
