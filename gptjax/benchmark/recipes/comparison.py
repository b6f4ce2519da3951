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
    modern recipe by their budgets. Arms are missing for which there was no time; [] if one of the ends
    has none with its own budget.
  """
  attempt, rates = bench.runs.attempt, SIZES[bench.size].rates
  plain, modern = SCHEDULES[best_schedule(bench)], fields_of(MODERN)
  same_flops = flops_per_token(bench, plain) / flops_per_token(bench, modern)
  both = [*attempt(_tuned_arm, bench, BASELINE, FULL, plain, bench.tokens, rates[BASELINE]),
          *attempt(_tuned_arm, bench, MODERN, HALF, modern, bench.tokens * same_flops / 2, rates[MODERN])]
  if len(both) < 2:
    return []
  configs_of_both = [bench.config(fields, bench.tokens, arm['rate'], 0)
                     for fields, arm in zip((plain, modern), both)]
  times = attempt(bench.runs.step_times, configs_of_both)
  rate = both[1]['rate']
  arms = both + [arm for budget, share in _budgets(same_flops, *times)
                 for arm in attempt(_arm, bench, MODERN, budget, modern, share * bench.tokens, rate)]
  for arm in arms if times else ():
    arm['processor'] = arm['steps'] * statistics.median(times[0][arm['contender'] == MODERN])
  return arms


def _budgets(same_flops, times=None):
  """[(name, tokens as a share of the baseline's)] of the budgets besides half the FLOPs.

  Args:
    same_flops: share with which the FLOPs are equal.
    times: of `training.step_times`; None: not measured.
  """
  shares = [('a quarter of the FLOPs', same_flops / 4)]
  if times:
    shares.append(('equal time', 1 / speedup(*times)))
  if abs(same_flops - 1) < SAME:
    return [*shares, ('equal tokens and FLOPs', 1.0)]
  return [*shares, ('equal tokens', 1.0), ('equal FLOPs', same_flops)]


def compare_ingredients(bench):
  """[arm] of the modern recipe, then of it without each ingredient, with half the FLOPs and tuned rates."""
  tokens = bench.tokens * flops_per_token(bench, {}) / flops_per_token(bench, fields_of(MODERN)) / 2
  def arm(contender):
    return bench.runs.attempt(_tuned_arm, bench, contender, HALF, fields_of(contender), tokens,
                              SIZES[bench.size].rates[MODERN])
  whole, without = arm(MODERN), [one for name in INGREDIENTS for one in arm(f'{WITHOUT}{name}')]
  return whole and whole + without


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
