"""After a loss spike a run goes back and passes over batches, and does the same again when it is resumed."""

import itertools
import json
import random

import numpy as np
import pytest
from conftest import tiny_config, train
from hypothesis import given
from hypothesis import strategies as st
from runs import after, arrays, losses, run_and_kill

from gptjax.data.corpus import reader
from gptjax.pretrain import rewind
from gptjax.storage import checkpoint, rewind_log

FAST = ('--config.train.batch_size=2', '--config.train.microbatch_size=1', '--config.eval.batch_size=8',
        '--config.optimizer.warmup_steps=2', '--config.optimizer.learning_rate=1e-2')
BACK = (*FAST, '--config.data.shift_windows=False', '--config.train.rewind.threshold=0.8',
        '--config.train.rewind.steps_back=4', '--config.train.rewind.skip_batches=3')


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 30), st.integers(0, 40)), max_size=6))
def test_what_is_read_after_going_back_was_not_read_before(history):
  """Against the list of batches that a run reads, kept by hand."""
  rewinds, read = [], list(range(500))
  for to, further, passed in history:
    step = to + further
    last = read[step - 1]
    passed = max(passed, last + 1 - read[to])
    read = read[:to] + list(range(read[to] + passed, 2000))
    standing = [r for r in rewind_log.in_effect(rewinds) if r['to'] <= to]
    assert rewind_log.batch_number(rewinds, step - 1) == last
    assert rewind_log.batch_number(standing, to) + passed == read[to]
    rewinds.append({'to': to, 'passed': passed})
    assert [rewind_log.batch_number(rewinds, s) for s in range(70)] == read[:70]
    assert last not in read[to:] and all(a < b for a, b in itertools.pairwise(read))


def test_what_is_a_spike():
  config = tiny_config()
  metrics = {'loss': 9.0, 'loss_ema': 5.0, 'skipped': 0.0}
  assert not rewind.is_spike(config, metrics)
  config.train.rewind.threshold = 3.0
  assert rewind.is_spike(config, metrics) and not rewind.is_spike(config, {**metrics, 'loss': 7.9})
  assert not rewind.is_spike(config, {**metrics, 'loss_ema': np.inf})
  nan = {**metrics, 'loss': np.nan, 'skipped': float(config.train.max_skipped)}
  assert rewind.is_spike(config, nan) and not rewind.is_spike(config, {**nan, 'skipped': 1.0})


@pytest.fixture(scope='module')
def poisoned(tmp_path_factory):
  """A corpus in which a few windows are noise, all of them in a few batches after the first ones."""
  for seed in range(100):
    folder = with_noise(tmp_path_factory.mktemp('poisoned'), seed)
    found = [n for n in range(40) if noisy(folder, n)]
    if found and found[0] >= 8 and found[-1] <= min(found[0] + 2, 16):
      return folder
  raise AssertionError('no seed gives such an order')


def with_noise(folder, seed):
  from gptjax.data.prepare import prepare
  rng = random.Random(seed)
  words = ['tree', 'walks', 'under', 'a', 'the', 'blue', 'stone', 'never', 'sings', 'of', 'rain']
  for i in range(60):
    (folder / f'{i:02}.txt').write_text(' '.join(rng.choices(words, k=200)))
  letters = [chr(n) for n in range(0x100, 0x250)]
  (folder / '30.txt').write_text(''.join(rng.choices(letters, k=90)))
  prepare([f'text:{folder}/*.txt'], 'train-bpe:290', str(folder / 'made'), validation_fraction=0.1,
          clean='', workers=1, tfds_dir='', on_error='stop', seq_len=24, progress=False)
  return folder / 'made'


def noisy(folder, number):
  """How many sequences of a batch are mostly of tokens that ordinary text does not have."""
  corpus = reader.open_corpus(str(folder), 'train', verify=False)
  inputs = reader.batch([corpus], [1.0], 0, number, 2, 24, True)['inputs']
  counts = np.bincount(corpus.tokens(0, corpus.n_tokens), minlength=290) / corpus.n_tokens
  return int(((counts[inputs] < 2e-3).mean(1) > 0.5).sum())


@pytest.fixture(scope='module')
def undisturbed(poisoned, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('undisturbed')
  done = train(poisoned, workdir, *BACK)
  assert done.returncode == 0, done.stderr
  return workdir, done.stderr


@pytest.mark.ci
def test_a_run_goes_back_past_the_batches_that_led_to_a_spike(undisturbed, poisoned):
  workdir, said = undisturbed
  first = next(n for n in range(100) if noisy(poisoned, n))
  went = json.loads((workdir / 'rewinds.json').read_text())
  assert went[0]['step'] == first + 1 and went[0]['loss'] > went[0]['usual_loss'] + 0.8
  assert went[0]['to'] == (first + 1 - 4) // 5 * 5 and went[0]['passed'] == max(3, first + 1 - went[0]['to'])
  assert f'at step {first + 1}' in said and f'resuming after step {went[0]["to"]}' in said
  read = [rewind_log.batch_number(went, step) for step in range(30)]
  assert not any(noisy(poisoned, n) for n in read)
  assert {step for step, name in losses(workdir) if name == 'train/loss'} == set(range(1, 31))


@pytest.mark.slow
def test_killed_around_a_rewind_it_is_still_the_same_run(undisturbed, poisoned, tmp_path):
  went = json.loads((undisturbed[0] / 'rewinds.json').read_text())
  # Before rewinds.json has its name; when it has, before a checkpoint is removed; in the steps done again.
  for when, recorded in ((('change', f'{tmp_path}/rewinds.json*', 4), False),
                         (('change', f'{tmp_path}/checkpoints/*.deleting', 1), True),
                         (after(tmp_path, went[0]['to'] + 2), True)):
    run_and_kill(poisoned, tmp_path, when, *BACK)
    assert (tmp_path / 'rewinds.json').exists() == recorded, when
  done = train(poisoned, tmp_path, *BACK)
  assert done.returncode == 0 and 'rewinds after loss spikes so far: 1' in done.stderr, done.stderr
  assert json.loads((tmp_path / 'rewinds.json').read_text()) == went
  assert losses(tmp_path) == losses(undisturbed[0])
  assert arrays(tmp_path, 30) == arrays(undisturbed[0], 30)


@pytest.mark.slow
def test_checkpoints_that_were_gone_back_from_do_not_count(undisturbed, poisoned, tmp_path):
  """A checkpoint of before the rewind that a kill left, later than where the run went back to."""
  went = json.loads((undisturbed[0] / 'rewinds.json').read_text())[:1]
  later = went[0]['to'] + 5
  assert train(poisoned, tmp_path, *FAST, f'--config.train.steps={later}').returncode == 0
  (tmp_path / 'rewinds.json').write_text(json.dumps(went))
  assert rewind.apply_rewinds(tmp_path) == [{name: one[name] for name in rewind_log.FIELDS} for one in went]
  assert later not in checkpoint.steps(tmp_path / 'checkpoints')
  assert went[0]['to'] in checkpoint.steps(tmp_path / 'checkpoints')


@pytest.mark.slow
def test_going_back_that_does_not_help_ends_with_a_clear_error(poisoned, tmp_path):
  done = train(poisoned, tmp_path, *BACK, '--config.train.rewind.threshold=1e-6',
               '--config.optimizer.learning_rate=0')
  last = done.stderr.strip().splitlines()[-1]
  assert done.returncode == 2 and 'has not helped 3 times' in last, done.stderr
  assert 'Traceback' not in done.stderr


@pytest.mark.ci
def test_rewinding_needs_checkpoints_that_reach_so_far(poisoned, tmp_path):
  done = train(poisoned, tmp_path, *BACK, '--config.train.rewind.steps_back=20')
  assert done.returncode == 2 and 'keep 5' in done.stderr
