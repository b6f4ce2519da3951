"""Shared by all tests: eight CPU devices, strict rules for JAX, tiny configs, real data."""

import collections
import contextlib
import gc
import getpass
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
os.environ['HF_HUB_OFFLINE'] = '1'  # no test needs a network; those of downloads have a server of their own

import jax
import numpy as np
import pytest

from gptjax import defaults
from gptjax.config import memory
from gptjax.config import resolve as configs
from gptjax.kernels import cpu
from gptjax.parallel import sharding

SHARED = Path(__file__).resolve().parents[2] / 'shared' / 'data'

# Ignored under nohup and in the background, and then by the processes that tests start.
for number in (signal.SIGHUP, signal.SIGINT):
  if signal.getsignal(number) == signal.SIG_IGN:
    signal.signal(number, signal.SIG_DFL)
gc.set_threshold(50_000)  # as `gptjax.main` does
jax.config.update('jax_num_cpu_devices', 8)
# Small programs, compiled by the hundred: a third of the time, the same arithmetic.
jax.config.update('jax_disable_most_optimizations', True)
jax.config.update('jax_traceback_in_locations_limit', 0)  # a tenth of the time that it takes to compile
jax.config.update('jax_platforms', 'cpu')
jax.config.update('jax_compilation_cache_dir', os.path.expanduser('~/.cache/gptjax/compiled'))
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.5)
# The older of the CPU's two code generators takes half the time, and 0.11 has it no more.
GENERATOR = ['--xla_cpu_use_fusion_emitters=false'] if jax.__version_info__ < (0, 11) else []
os.environ['XLA_FLAGS'] = ' '.join([os.environ.get('XLA_FLAGS', ''), *GENERATOR,
                                    '--xla_cpu_parallel_codegen_split_count=1']).strip()
cpu.configure_devices()


MEMORY = Path('/dev/shm')
NEEDED = 8e9  # bytes; the default run uses 2 GB


def pytest_configure(config):
  """Keep temporary folders in memory if there is room: ten thousand files are synced, each 8 ms on a disk.

  The slow run has files of gigabytes. A run that was killed leaves its folder to the next one to remove.
  """
  if 'not slow' not in config.option.markexpr or 'PYTEST_DEBUG_TEMPROOT' in os.environ:
    return
  for folder in MEMORY.glob('gptjax-tests-*'):
    if not os.path.exists(f'/proc/{folder.name.rpartition("-")[2]}'):
      shutil.rmtree(folder, ignore_errors=True)
  if has_room(MEMORY):
    folder = MEMORY / f'gptjax-tests-{os.getpid()}'
    folder.mkdir()
    os.environ['PYTEST_DEBUG_TEMPROOT'] = str(folder)


def has_room(folder):
  """Whether a folder in memory may have programs and has room, and this process has twice the memory."""
  if not os.access(folder, os.W_OK) or os.statvfs(folder).f_flag & os.ST_NOEXEC:
    return False
  return shutil.disk_usage(folder).free > NEEDED and (memory.host_bytes() or 0) > 2 * NEEDED


def pytest_unconfigure(config):
  folder = MEMORY / f'gptjax-tests-{os.getpid()}'
  with contextlib.suppress(OSError):  # it keeps what a failed test has made
    (folder / f'pytest-of-{getpass.getuser()}').rmdir()
    folder.rmdir()


LONGEST = ('test_resume', 'test_bucket_checkpoint', 'test_checkpoint', 'test_collectives', 'test_export',
           'test_judged', 'test_linear', 'test_sweep', 'test_processes', 'test_prepare_memory')


@pytest.hookimpl(tryfirst=True)  # before `-m` selects
def pytest_collection_modifyitems(items):
  """The files that take longest come first, so that no worker is left alone with one at the end.

  Of a test with `first_cases(n)`, all but the first n cases of the default run are marked `ci`.
  """
  items.sort(key=lambda item: item.path.stem not in LONGEST)
  n_before = collections.Counter()
  for item in items:
    limit = item.get_closest_marker('first_cases')
    if limit and not any(map(item.get_closest_marker, ('ci', 'slow'))):
      test = item.path, item.parent.name, item.originalname
      if n_before[test] >= limit.args[0]:
        item.add_marker(pytest.mark.ci)
      n_before[test] += 1


def slow_except(values, *fast):
  """Parameters of a test, of which all but `fast` are for the slow run."""
  assert all(value in values for value in fast), fast
  return [value if value in fast else pytest.param(value, marks=pytest.mark.slow) for value in values]


NO_MESH = jax.sharding.get_mesh()


@pytest.fixture(autouse=True)
def no_mesh():
  """Each test begins without a mesh, whatever those before it in this process have left set."""
  with jax.set_mesh(NO_MESH):
    yield


@pytest.fixture
def shared_data():
  """The folder with real corpora and vocabularies; the test skips where it is absent."""
  if not SHARED.is_dir():
    pytest.skip(f'needs the data folder {SHARED}')
  return SHARED


def tiny_config(**changes):
  """A resolved config of a two-layer model; changes as {'model.dropout': 0.1, ...}."""
  config = defaults.get_config()
  config.model.update(dict(n_layer=2, n_head=4, n_embd=32, n_ctx=24, n_vocab=61, pad_vocab_to=16,
                           scan=True))
  config.train.update(dict(steps=10, batch_size=8))
  config.optimizer.warmup_steps = 2
  config.loss.chunk = 7
  for name, value in changes.items():
    section, field = name.split('.')
    config[section][field] = value
  configs.resolve(config, 'unused')
  configs.check(config)
  return config


@contextlib.contextmanager
def mesh_of(replica=1, data=1, fsdp=1, tensor=1):
  """Enters a mesh of the first so many CPU devices."""
  from types import SimpleNamespace
  sizes = SimpleNamespace(replica=replica, data=data, fsdp=fsdp, tensor=tensor)
  mesh = sharding.make_mesh(sizes, jax.devices()[:replica * data * fsdp * tensor])
  with jax.set_mesh(mesh):
    yield mesh


def random_batch(config, seed=0, ignored=0.0):
  """A NumPy batch of random tokens; a share of the targets is not counted."""
  rng = np.random.default_rng(seed)
  shape = config.train.batch_size, config.data.seq_len
  tokens = rng.integers(0, config.model.n_vocab, (2, *shape), dtype=np.int32)
  targets = np.where(rng.random(shape) < ignored, -1, tokens[1]).astype(np.int32)
  return {'inputs': tokens[0], 'targets': targets}


@pytest.fixture(scope='session')
def corpus_folder(tmp_path_factory):
  """A small corpus of invented sentences: 290 entries of byte-level BPE, two splits."""
  from gptjax.data.prepare import prepare
  folder = tmp_path_factory.mktemp('corpus')
  rng = random.Random(0)
  words = ['tree', 'walks', 'under', 'a', 'the', 'blue', 'stone', 'never', 'sings', 'of', 'rain']
  for i in range(60):
    (folder / f'{i:02}.txt').write_text(' '.join(rng.choices(words, k=200)))
  prepare([f'text:{folder}/*.txt'], 'train-bpe:290', str(folder / 'made'), validation_fraction=0.1,
          clean='', workers=1, tfds_dir='', on_error='stop', seq_len=24)
  return folder / 'made'


ROOT = Path(__file__).resolve().parents[1]


def command(corpus, workdir, *flags):
  """The real command on a tiny model, dropout and accumulation on; later flags win."""
  tiny = {'data.source': '', 'data.tokenizer': '',
          'data.corpus': corpus, 'data.seq_len': 24, 'model.n_layer': 2,
          'model.n_head': 4, 'model.n_embd': 32, 'model.n_ctx': 24, 'model.n_vocab': 290,
          'model.dropout': 0.1, 'train.steps': 30, 'train.batch_size': 8,
          'train.microbatch_size': 4, 'eval.every_steps': 10, 'checkpoint.every_steps': 5,
          'log.every_steps': 1, 'log.sample_tokens': 0, 'log.tensorboard': False}
  return [sys.executable, '-m', 'gptjax.main', '--config=configs/quickstart.py',
          f'--workdir={workdir}', *(f'--config.{k}={v}' for k, v in tiny.items()), *flags]


# Of processes, which find out by themselves how many threads they need.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != 'PJRT_NPROC'}
ENVIRONMENT |= {'JAX_DISABLE_MOST_OPTIMIZATIONS': '1', 'JAX_TRACEBACK_IN_LOCATIONS_LIMIT': '0',
                'JAX_PLATFORMS': 'cpu'}
ENVIRONMENT['TF_USE_LEGACY_KERAS'] = '1'  # TensorFlow is imported sooner without Keras


def train(corpus, workdir, *flags, env=None, timeout=120):
  """Runs the real command to its end."""
  return subprocess.run(command(corpus, workdir, *flags), cwd=ROOT, capture_output=True, text=True,
                        env={**ENVIRONMENT, **(env or {})}, timeout=timeout)
