"""The dial of configs/modern.py: everything else follows from the depth."""

import math

import pytest

from gptjax.config import files
from gptjax.config import resolve as configs
from gptjax.errors import InputError
from gptjax.model.size import flops_per_token, n_params

DEPTHS = 1, 3, 6, 12, 20, 32


@pytest.mark.parametrize('depth', DEPTHS)
def test_tokens_are_twenty_for_each_parameter_that_multiplies(depth):
  config = files.load(f'modern:{depth}')
  configs.resolve(config, 'unused')
  configs.check(config)
  c = config.model
  assert (c.n_layer, c.n_embd, c.n_embd // c.n_head) == (depth, 64 * depth, 64)
  embedding = c.n_vocab * c.n_embd
  attention = 6 * c.n_layer * c.n_embd * c.n_ctx
  multiplying = (flops_per_token(c, c.n_ctx)['causal'] - attention) / 6
  assert multiplying == pytest.approx(n_params(c) - embedding)
  step = config.train.batch_size * c.n_ctx
  assert config.train.steps * step == pytest.approx(20 * multiplying, rel=2e-3, abs=step)  # gains are few
  assert math.log2(step).is_integer() and 900 < config.train.steps < 20_000


def test_larger_models_have_larger_batches_lower_rates_and_more_tokens():
  sizes = [files.load(f'modern:{depth}') for depth in DEPTHS]
  rates, batches = ([value(config) for config in sizes] for value in (
    lambda config: config.optimizer.learning_rate, lambda config: config.train.batch_size))
  assert rates == sorted(rates, reverse=True) and batches == sorted(batches)
  for config in sizes:
    assert config.optimizer.learning_rate * config.model.n_embd ** 0.5 == pytest.approx(4e-3 * 128 ** 0.5)


def test_one_size_is_that_of_the_smallest_gpt2():
  small, modern = files.load('gpt2_small'), files.load('modern_124m')
  for field in ('n_layer', 'n_head', 'n_embd', 'n_ctx', 'n_vocab'):
    assert getattr(modern.model, field) == getattr(small.model, field)
  assert modern.to_dict() == files.load('modern').to_dict() == files.load('modern:12').to_dict()


@pytest.mark.parametrize('depth', ['0', '-3', 'twelve', '1.5', '9999', ''])
def test_another_dial_is_refused_in_one_line(depth):
  with pytest.raises(InputError, match=r'^[^\n]* is not a depth, .* use --config=modern:12'):
    files.load(f'modern:{depth}')
