"""The runs of a size: both ends at several budgets, and the recipe without single ingredients."""

import functools
import statistics
from typing import NamedTuple

from gptjax.benchmark.interleave import speedup
from gptjax.benchmark.recipes import budgets
from gptjax.benchmark.recipes.contenders import (
  BASELINE,
  INGREDIENTS,
  MODERN,
  SCHEDULES,
  SIZES,
  WITHOUT,
  fields_of,
  make_config,
)
from gptjax.benchmark.recipes.runs import TUNING_SEED, Runs
from gptjax.config import resolve as configs

FULL, HALF = 'baseline', 'half the FLOPs'
SAME = 0.01  # relative difference of budgets below which one run stands for both


class Bench(NamedTuple):
  """runs: Runs. size: a key of SIZES. seeds: number of seeds. scale: factor of all tokens. data: fields of
  `config.data`. eval_steps: held-out batches of a run."""
  runs: Runs
  size: str
  seeds: int
  scale: float
  data: dict
  eval_steps: int

  @property
  def tokens(self):
    """Tokens of a run of the baseline."""
    return self.scale * SIZES[self.size].tokens

  def config(self, fields, tokens, rate, seed):
    """The config of a run."""
    config = make_config(SIZES[self.size], fields, tokens, rate, seed, self.data)
    config.eval.update(dict(steps=self.eval_steps, batch_size=8))
    return config


def compare_ends(bench):
  """Losses of both ends.

  The baseline gets the best schedule of SCHEDULES and its best rate, the modern recipe the rate that is best
  with half the FLOPs. Equal time is that of the processor in steps, which other programs on the machine
  affect less than the time on the clock.

  Returns:
    [arm], see `_arm`, with 'processor': CPU seconds of all steps: that of the baseline, then those of the
    modern recipe by their budgets.
  """
  plain, modern, rates = SCHEDULES[best_schedule(bench)], fields_of(MODERN), SIZES[bench.size].rates
  baseline = _tuned_arm(bench, BASELINE, FULL, plain, bench.tokens, rates[BASELINE])
  same_flops = flops_per_token(bench, plain) / flops_per_token(bench, modern)
  half = _tuned_arm(bench, MODERN, HALF, modern, bench.tokens * same_flops / 2, rates[MODERN])
  times = bench.runs.step_times([bench.config(plain, bench.tokens, baseline['rate'], 0),
                                 bench.config(modern, bench.tokens, half['rate'], 0)])
  shares = {'a quarter of the FLOPs': same_flops / 4, 'equal time': 1 / speedup(*times),
            'equal tokens': 1.0, 'equal FLOPs': same_flops}
  if abs(same_flops - 1) < SAME:
    shares = {'equal tokens and FLOPs' if name == 'equal tokens' else name: share
              for name, share in shares.items() if name != 'equal FLOPs'}
  arms = [baseline, half, *(_arm(bench, MODERN, budget, modern, share * bench.tokens, half['rate'])
                            for budget, share in shares.items())]
  for arm in arms:
    per_step = statistics.median(times[arm['contender'] == MODERN])
    arm['processor'] = arm['steps'] * per_step
  return arms


def compare_ingredients(bench):
  """[arm] of the modern recipe, then of it without each ingredient, with half the FLOPs and tuned rates."""
  tokens = bench.tokens * flops_per_token(bench, {}) / flops_per_token(bench, fields_of(MODERN)) / 2
  rate = SIZES[bench.size].rates[MODERN]
  return [_tuned_arm(bench, contender, HALF, fields_of(contender), tokens, rate)
          for contender in (MODERN, *(f'{WITHOUT}{ingredient}' for ingredient in INGREDIENTS))]


def best_schedule(bench):
  """The schedule with the lowest loss for the baseline of the smallest size, where its rates begin."""
  bench = bench._replace(size=next(iter(SIZES)))
  rate = SIZES[bench.size].rates[BASELINE]
  losses = {name: bench.runs.result(bench.config(fields, bench.tokens, rate, TUNING_SEED),
                                    f'{bench.size}: {BASELINE}, {name}')['loss']
            for name, fields in SCHEDULES.items()}
  return min(losses, key=losses.get)


def flops_per_token(bench, fields):
  """Training FLOPs per token of a contender."""
  return budgets.model_flops(bench.config(fields, bench.tokens, 1e-3, 0))


def _tuned_arm(bench, contender, budget, fields, tokens, first_rate):
  """`_arm` at the best rate, with 'tried': {rate: loss}."""
  title = f'{bench.size}: {contender}, {budget}'
  config_of = functools.partial(bench.config, fields, tokens)
  rate, tried = bench.runs.best_rate(config_of, first_rate, title)
  return {**_arm(bench, contender, budget, fields, tokens, rate), 'tried': tried}


def _arm(bench, contender, budget, fields, tokens, rate):
  """The runs of a contender with a budget, over all seeds.

  Returns:
    {'contender', 'budget', 'rate', 'steps' and 'tokens': of each run, 'losses': of each seed, 'flops': of
    the model in each run, 'muon_flops': of its orthogonalization}.
  """
  title = f'{bench.size}: {contender}, {budget}'
  run = lambda seed: bench.runs.result(bench.config(fields, tokens, rate, seed), title)
  found = list(map(run, range(bench.seeds)))
  config = bench.config(fields, tokens, rate, 0)
  configs.resolve(config, 'unused')
  steps, step_tokens = config.train.steps, config.train.batch_size * config.data.seq_len
  tokens = steps * step_tokens
  return {'contender': contender, 'budget': budget, 'rate': rate, 'steps': steps, 'tokens': tokens,
          'losses': [one['loss'] for one in found], 'flops': tokens * budgets.model_flops(config),
          'muon_flops': steps * budgets.muon_flops(config)}
