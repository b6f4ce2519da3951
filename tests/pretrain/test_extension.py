"""A finished run goes on with more steps, as if it had been long from the start, or says why it cannot."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from conftest import tiny_config, train
from runs import arrays, losses

from gptjax.config import extension
from gptjax.config.resolve import flat
from gptjax.storage import checkpoint
from gptjax.train.optimizer import learning_rate

CONSTANT = '--config.optimizer.schedule=constant', '--config.optimizer.warmup_steps=3'


@pytest.mark.ci
def test_an_extended_run_is_to_the_bit_the_one_that_was_long_from_the_start(corpus_folder, tmp_path):
  short, long = '--config.train.steps=10', '--config.train.steps=20'
  for workdir, length in (('whole', long), ('grown', short), ('grown', long)):
    done = train(corpus_folder, tmp_path / workdir, *CONSTANT, length)
    assert done.returncode == 0, done.stderr
  assert 'resuming after step 10' in done.stderr
  assert losses(tmp_path / 'grown') == losses(tmp_path / 'whole')
  assert arrays(tmp_path / 'grown', 20) == arrays(tmp_path / 'whole', 20)
  stored = json.loads((tmp_path / 'grown' / 'config.json').read_text())
  assert stored['config']['train']['steps'] == 20
  assert [(one['changed'], one['after_step']) for one in stored['history']] == [
    ({'train.steps': [10, 20]}, 10)]
  less = train(corpus_folder, tmp_path / 'grown', *CONSTANT, short)
  assert less.returncode == 2 and 'config.train.steps = 20, not 10: it can only grow' in less.stderr
  assert len(less.stderr.strip().splitlines()) == 1


@pytest.mark.slow
def test_the_time_of_a_finished_run_that_is_started_again_does_not_shrink(corpus_folder, tmp_path):
  totals = []
  for _ in range(2):
    assert train(corpus_folder, tmp_path, *CONSTANT, '--config.train.steps=5').returncode == 0
    records = map(json.loads, (tmp_path / 'metrics.jsonl').read_text().splitlines())
    totals.append([(one['time/run'], one['time/steps']) for one in records if 'time/steps' in one][-1])
  assert totals[0][0] < totals[1][0] and totals[0][1] == totals[1][1]


@pytest.fixture
def grow(tmp_path):
  """Checks growth from 100 steps, after the checkpoints 50 and `done`, to `steps` and with these fields."""
  def check(schedule, done, steps=200, n_steps=lambda steps, epochs: steps, **fields):
    for step in (50, done):
      folder = tmp_path / 'checkpoints' / str(step)
      folder.mkdir(parents=True, exist_ok=True)
      checkpoint.write_manifest(folder, {'step': step, 'metric': None, 'facts': {}, 'arrays': {},
                                         'files': {}})
    config = tiny_config(**{'train.steps': 100, 'optimizer.schedule': schedule, 'optimizer.warmup_steps': 60})
    before = flat(config)
    config.train.steps = steps
    config.optimizer.update(fields)
    return extension.check(before, flat(config), config, tmp_path, n_steps)
  return check


@pytest.mark.parametrize('schedule, done', [('constant', 100), ('wsd', 80), ('cosine', 60), ('linear', 60)])
def test_steps_grow_where_those_done_would_have_had_the_same_rates(grow, schedule, done):
  assert grow(schedule, done) == {'train.steps': [100, 200]}


@pytest.mark.parametrize('schedule, first', [('wsd', 81), ('cosine', 61), ('linear', 61)])
def test_else_the_length_of_the_schedule_must_be_given(grow, schedule, first):
  says = f'from step {first} on: set.*schedule_steps=N.*after step 50 elsewhere'
  with pytest.raises(ValueError, match=says):
    grow(schedule, 100)
  for n in (100, 200):
    assert grow(schedule, 100, schedule_steps=n)['optimizer.schedule_steps'] == [0, n]


def test_what_is_not_growth_is_refused(grow):
  with pytest.raises(ValueError, match=r'config\.train\.steps = 100, not 99: it can only grow'):
    grow('constant', 100, 99)
  with pytest.raises(ValueError, match=r'config\.train\.steps = 100, not 0: it can only grow'):
    grow('constant', 100, 0)
  with pytest.raises(ValueError, match="schedule 'cosine', whose rates depend on its length"):
    grow('cosine', 100, n_steps=None)
  assert grow('constant', 100, n_steps=None) and grow('constant', 100, 100) == {}


@pytest.mark.parametrize('schedule', ['cosine', 'linear', 'constant', 'wsd', 'warmup_linear'])
def test_after_the_schedule_its_last_rate_is_kept(schedule):
  config = tiny_config(**{'optimizer.schedule': schedule, 'optimizer.warmup_steps': 3}).optimizer
  plain = learning_rate(config, 40, jnp.arange(41))
  config.schedule_steps = 40
  rates = learning_rate(config, 90, jnp.arange(90))
  np.testing.assert_array_equal(rates[:41], plain)
  np.testing.assert_array_equal(rates[41:], plain[-1])
  config.schedule_steps = 0
  assert schedule == 'constant' or not (learning_rate(config, 90, jnp.arange(90)) == rates).all()
