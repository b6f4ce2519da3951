"""Training runs that are measured once: each result is in a journal, and a restart continues after it."""

import hashlib
import json
import sys
import time

from gptjax import defaults
from gptjax.benchmark import journal
from gptjax.storage.files import run_config

TUNING_SEED = 1000  # of the runs that choose a learning rate; the seeds of the results count from 0


class OutOfTime(Exception):
  """The time limit is over; what was measured is in the journal."""


class Runs:
  """Results of training runs, from the journal or by training.

  Args:
    path: of the journal, whose folder exists.
    train, step_times: functions of `training`, without their argument `workdir`.
    limit_s: seconds after which no further run starts.
  """

  def __init__(self, path, train, step_times, limit_s):
    self._path = str(path)
    self._train, self._step_times = train, step_times
    self._deadline = time.monotonic() + limit_s
    self._results, self.incomplete = {}, False

  def attempt(self, measure, *arguments):
    """[measure(*arguments)]; [] if there is no time for it, and `incomplete` is then True."""
    try:
      return [measure(*arguments)]
    except OutOfTime:
      self.incomplete = True
      return []

  def result(self, config, title):
    """The result of `training.train`.

    Raises:
      OutOfTime: it is not in the journal, and there is no time to train.
    """
    def train():
      facts = {'title': title, 'rate': config.optimizer.learning_rate, 'seed': config.train.seed,
               'steps': config.train.steps}
      result = self._train(config)
      print(f'{title}, rate {facts["rate"]:g}, seed {facts["seed"]}, {facts["steps"]} steps: '
            f'{result["loss"]:.4f}', file=sys.stderr, flush=True)
      return {**facts, **result}
    return self._once(_digest(config), train)

  def step_times(self, configs):
    """The result of `training.step_times`; raises as `result`."""
    return self._once(' '.join(map(_digest, configs)), lambda: {'times': self._step_times(configs)})['times']

  def _once(self, digest, measure):
    """The record with a digest; if the journal has none, that of `measure`, a function without arguments."""
    def in_time():
      if time.monotonic() > self._deadline:
        raise OutOfTime
      return measure()
    if digest not in self._results:  # another process may have added it to the journal
      self._results[digest] = journal.once(self._path, digest, in_time)
    return self._results[digest]

  def best_rate(self, config_of, first, title):
    """The best rate for the tuning seed, and {rate: loss} of all that were tried.

    Rates differ by factors of 2. The search ends when both neighbours of the best rate were tried, so the
    best one is never at the edge.

    Args:
      config_of: function of (rate, seed) that returns a config.
      first: rate at which the search begins.
      title: of the runs.
    """
    best, tried = first, {}
    while True:
      for rate in (best, best / 2, best * 2):
        if rate not in tried:
          tried[rate] = self.result(config_of(rate, TUNING_SEED), title)['loss']
      if min(tried, key=tried.get) == best:
        return best, dict(sorted(tried.items()))
      best = min(tried, key=tried.get)


def _digest(config):
  """A digest of the fields of an unresolved config that are not at their defaults, its corpus excepted."""
  changed = {name: value for name, value in run_config.flat(config.to_dict()).items()
             if name != 'data.corpus' and value != defaults.declared()[name].default}
  return hashlib.sha256(json.dumps(changed, sort_keys=True).encode()).hexdigest()[:16]
