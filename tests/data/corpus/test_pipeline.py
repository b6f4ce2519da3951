"""Reading ahead: the same batches in the same order as the plain loop, and errors as they were."""

import importlib.util
import itertools
import json
import subprocess
import sys
import threading
import time
import types

import jax
import numpy as np
import pytest
from conftest import ROOT, mesh_of
from corpus_files import random_documents, write_corpus

from gptjax.data.corpus import pipeline, reader
from gptjax.parallel import sharding
from gptjax.train.step import microbatches

needs_tensorflow = pytest.mark.skipif(importlib.util.find_spec('tensorflow') is None,
                                      reason='needs TensorFlow')


@pytest.fixture(scope='module', autouse=True)
def imported():
  """Until TensorFlow is there, batches are plain ones."""
  if importlib.util.find_spec('tensorflow'):
    pipeline.import_tensorflow()


@pytest.fixture(scope='module')
def make_batch(tmp_path_factory):
  folder = write_corpus(tmp_path_factory.mktemp('c'), random_documents(0, 300), shard_tokens=333)
  corpus = reader.open_corpus(folder, 'train', verify=True)
  return lambda step: reader.batch([corpus, corpus], [2, 1], 0, step, 8, 16, False)


def same(a, b):
  return list(a) == list(b) and all(
    a[name].dtype == b[name].dtype and np.array_equal(a[name], b[name]) for name in a)


@needs_tensorflow
def test_pipeline_equals_the_plain_loop_to_the_token(make_batch):
  ahead = list(pipeline.batches(make_batch, 0, 150, prefetch=3, workers=2))
  plain = list(pipeline.synchronous_batches(make_batch, 0, 150))
  assert len(ahead) == len(plain) == 150
  assert all(same(a, b) for a, b in zip(ahead, plain, strict=True))


@pytest.mark.parametrize('batches', [
  pytest.param(lambda *args: pipeline.batches(*args, prefetch=2, workers=2),
               marks=needs_tensorflow), pipeline.synchronous_batches])
def test_starting_at_step_3_gives_the_fourth_batch(make_batch, batches):
  whole = list(itertools.islice(batches(make_batch, 0, 9), 9))
  late = list(batches(make_batch, 3, 9))
  assert len(late) == 6 and all(same(a, b) for a, b in zip(whole[3:], late, strict=True))
  assert same(next(batches(make_batch, 10**9, 10**9 + 5)), make_batch(10**9))
  assert list(batches(make_batch, 5, 5)) == []


@needs_tensorflow
def test_batches_come_while_tensorflow_is_imported_and_from_it_after(make_batch, monkeypatch):
  there, tf, makers = threading.Event(), pipeline.import_tensorflow(), []
  monkeypatch.setattr(pipeline, 'import_tensorflow', lambda: there.wait(120) and tf)
  def noted(step):
    makers.append(threading.get_ident())
    return make_batch(step)
  batches = pipeline.batches(noted, 3, 10**9, prefetch=2, workers=2)
  got = [next(batches) for _ in range(5)]
  assert set(makers) == {threading.get_ident()}
  there.set()
  deadline = time.monotonic() + 120
  while set(makers) == {threading.get_ident()} and time.monotonic() < deadline:
    got.append(next(batches))
  by_caller = makers.count(threading.get_ident())
  got += itertools.islice(batches, 20)
  batches.close()
  assert all(same(batch, make_batch(3 + i)) for i, batch in enumerate(got))
  assert makers.count(threading.get_ident()) == by_caller


@needs_tensorflow
def test_order_holds_when_some_batches_take_longer():
  def slow_when_even(step):
    time.sleep(0.01 * (step % 2 == 0))
    return {'step': np.array([step])}
  steps = [int(batch['step'][0])
           for batch in pipeline.batches(slow_when_even, 0, 40, prefetch=4, workers=4)]
  assert steps == list(range(40))


@needs_tensorflow
def test_reads_ahead_of_the_caller(make_batch):
  made = []
  def noted(step):
    made.append(step)
    return make_batch(step)
  batches = pipeline.batches(noted, 0, 1000, prefetch=4, workers=2)
  next(batches)
  deadline = time.monotonic() + 120
  while len(made) < 5 and time.monotonic() < deadline:
    time.sleep(0.01)
  assert 5 <= len(made) <= 20  # and not all thousand of them


@needs_tensorflow
def test_an_error_comes_out_as_it_was_and_where_it_was(make_batch):
  def broken(step):
    if step == 5:
      raise ValueError('shard 7 is gone: copy it again')
    return make_batch(step)
  got = []
  with pytest.raises(ValueError, match=r'^shard 7 is gone: copy it again$'):
    for batch in pipeline.batches(broken, 0, 100, prefetch=4, workers=2):
      got.append(batch)
  assert len(got) == 5
  with pytest.raises(ValueError, match=r'^shard 7 is gone: copy it again$'):
    next(pipeline.batches(broken, 5, 100, prefetch=4, workers=2))


@pytest.mark.parametrize('n', [1, 2, 5])
def test_ahead_places_every_batch_in_order_and_never_too_many(make_batch, n):
  placed = []
  def place(batch):
    placed.append(threading.current_thread().name)
    return batch['inputs'].sum()
  found = []
  for value, _ in pipeline.prefetch_to_device(pipeline.synchronous_batches(make_batch, 3, 40), place, n):
    found.append(value)
    assert len(placed) <= len(found) + n
  assert found == [make_batch(step)['inputs'].sum() for step in range(3, 40)]
  assert threading.current_thread().name not in placed and len(set(placed)) == 1


def test_ahead_works_while_the_caller_does(make_batch):
  reached = threading.Event()
  def place(batch):
    if batch['step'] == 2:
      reached.set()
    return batch['step']
  made = pipeline.synchronous_batches(lambda step: {'step': step}, 0, 9)
  batches = pipeline.prefetch_to_device(made, place, 2)
  assert next(batches)[0] == 0 and reached.wait(120), 'batch 2 is placed while the caller holds batch 0'
  batches.close()


def test_ahead_tells_how_long_the_caller_stood_still(monkeypatch):
  now, asking, asked = [0.0], threading.Event(), threading.Event()
  def clock():
    read = now[0]
    if asking.is_set():
      asked.set()
    return read
  def slow(batch):
    assert batch['step'] != 1 or asked.wait(120)
    now[0] += 7 * (batch['step'] in (1, 2))
    return batch['step']
  monkeypatch.setattr(pipeline, 'time', types.SimpleNamespace(monotonic=clock))
  made = pipeline.synchronous_batches(lambda step: {'step': step}, 0, 4)
  batches = pipeline.prefetch_to_device(made, slow, 1)
  next(batches)
  asking.set()
  assert next(batches) == (1, 7.0), 'step 1 was not there when it was asked for'
  pending, deadline = batches.gi_frame.f_locals['pending'], time.monotonic() + 120
  while not pending[0].done():
    assert time.monotonic() < deadline
    time.sleep(0.001)
  assert next(batches) == (2, 0.0), 'step 2 was made while the caller was busy'
  batches.close()


@pytest.mark.parametrize('read', [pipeline.synchronous_batches, pytest.param(
  lambda *args: pipeline.batches(*args, prefetch=2, workers=2), marks=needs_tensorflow)])
def test_ahead_passes_errors_on_and_leaves_no_thread(make_batch, read):
  def broken(batch):
    if len(seen) == 3:
      raise ValueError('no room on the device')
    seen.append(batch)
    return batch
  seen, before = [], threading.active_count()
  with pytest.raises(ValueError, match='no room'):
    list(pipeline.prefetch_to_device(read(make_batch, 0, 9), broken, 2))
  assert len(seen) == 3
  abandoned = pipeline.prefetch_to_device(read(make_batch, 0, 10**9), lambda batch: batch, 2)
  assert same(next(abandoned)[0], make_batch(0))
  abandoned.close()
  assert threading.active_count() == before


@pytest.mark.parametrize('devices', [1, 2, 4, 8])
def test_devices_and_microbatches_share_one_global_batch(make_batch, devices):
  """Rows in order over the devices; each row in exactly one microbatch, whole."""
  batch = make_batch(5)
  with mesh_of(data=devices) as mesh:
    placed = sharding.shard_batch(batch, mesh)
    for name, array in placed.items():
      pieces = sorted(array.addressable_shards, key=lambda piece: piece.index[0].start or 0)
      assert len(pieces) == devices
      assert (np.concatenate([piece.data for piece in pieces]) == batch[name]).all()
    for n in (1, 2, 4, 8):
      if 8 // n % devices:
        continue
      parts = jax.jit(lambda placed, n=n: microbatches(placed, n))(placed)
      rows = [tuple(row) for part in parts['inputs'] for row in np.asarray(part)]
      assert sorted(rows) == sorted(map(tuple, batch['inputs']))


def test_plain_loop_where_tensorflow_is_missing(make_batch, monkeypatch):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  monkeypatch.setitem(sys.modules, 'tensorflow', None)
  batches = list(pipeline.batches(make_batch, 2, 5, prefetch=2, workers=2))
  assert all(same(batch, make_batch(2 + i)) for i, batch in enumerate(batches))
  assert len(batches) == 3


QUIET = '''
import sys
import numpy as np
from gptjax.data.corpus import pipeline, reader
assert 'tensorflow' not in sys.modules
def make(step):
  if step == 3:
    raise ValueError('one line')
  return {'x': np.arange(step)}
try:
  for batch in pipeline.batches(make, 0, 9, prefetch=2, workers=2):
    pass
except ValueError as error:
  print(error, file=sys.stderr)
  sys.exit(2)
'''


@needs_tensorflow
def test_tensorflow_is_loaded_late_and_says_nothing():
  done = subprocess.run([sys.executable, '-c', QUIET], capture_output=True, text=True, check=False,
                        cwd=ROOT)
  assert (done.returncode, done.stderr, done.stdout) == (2, 'one line\n', '')


@pytest.mark.slow
def test_a_run_waits_for_its_input_less_than_a_hundredth_of_the_time(tmp_path):
  done = subprocess.run(
    [sys.executable, '-m', 'gptjax.main', '--config=configs/quickstart.py', f'--workdir={tmp_path}',
     '--config.train.steps=100', '--config.eval.every_steps=0', '--config.log.sample_tokens=0'],
    cwd=ROOT, capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stderr
  records = map(json.loads, (tmp_path / 'metrics.jsonl').read_text().splitlines())
  waits = [record['train/input_wait_fraction'] for record in records if 'train/loss' in record]
  assert len(waits) == 10 and np.mean(waits) < 0.01, waits


@needs_tensorflow
def test_tensorflow_is_imported_after_the_first_batches_and_not_for_fewer(make_batch, monkeypatch):
  tf, imports = pipeline.import_tensorflow(), []
  monkeypatch.delitem(sys.modules, 'tensorflow')
  monkeypatch.setattr(pipeline, 'import_tensorflow', lambda: imports.append(1) or tf)
  few = pipeline.batches(make_batch, 3, 3 + pipeline.N_FIRST, prefetch=2, workers=2)
  assert len(list(few)) == pipeline.N_FIRST
  batches = pipeline.batches(make_batch, 3, 20, prefetch=2, workers=2)
  got = [next(batches) for _ in range(pipeline.N_FIRST)]
  assert not imports
  got += batches
  assert imports and len(got) == 17 and all(same(batch, make_batch(3 + i)) for i, batch in enumerate(got))
