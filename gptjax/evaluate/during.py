"""Zero-shot tasks in the course of pretraining: the same code, the weights of the step."""

import functools
import numbers
from pathlib import Path

from flax import nnx

from gptjax.data.corpus import mixture
from gptjax.data.tokenizers import loading
from gptjax.evaluate.run import data_of
from gptjax.evaluate.scoring.subject import Stopped, subject
from gptjax.evaluate.tasks import suite
from gptjax.evaluate.texts import sources


class Tasks:
  """The tasks of `config.eval.tasks`, their examples read once.

  Args:
    run: the pretrain.Run.
    say: function of a line, called for each task that cannot be run.
  """

  def __init__(self, run, say):
    self._run, self._ready = run, []
    chosen = suite.chosen(run.config.eval.tasks)
    if chosen:
      self._tokenizer = loading.load(str(Path(run.workdir) / 'tokenizer'))
    for task in chosen:
      try:
        data = data_of(run.config, tuple(zip(*mixture.folders_and_weights(run.config.data), strict=True)),
                       run.config.data.seq_len)
        note = lambda line, name=task.name: say(f'{name}: note: {line}')
        self._ready.append((task, task.read(data._replace(note=note))))
      except sources.NotRun as why:
        say(f'{task.name} is not run: {why}')
    self._say = say

  def __bool__(self):
    return bool(self._ready)

  def __call__(self, params):
    """{'eval/TASK/METRIC': value} with weights of the graph; None if told to stop on the way."""
    run, found = self._run, {}
    tested = subject(nnx.merge(run.graphdef, params), self._tokenizer, run.config.eval.batch_size,
                     seed=run.config.train.seed, pulse=functools.partial(pulse, run.watchdog, run.stop))
    try:
      for task, examples in list(self._ready):
        run.watchdog.progress(slow=True)
        try:
          metrics = task.evaluate(tested, examples).metrics
        except sources.NotRun as why:
          self._ready.remove((task, examples))
          self._say(f'{task.name} is not run: {why}')
          continue
        found |= {f'eval/{task.name}/{name}': value for name, value in metrics.items()
                  if isinstance(value, numbers.Real)}
    except Stopped:
      return None
    return found


def pulse(dog, stop):
  """After each batch: all is well, or the run is to stop (Stopped)."""
  dog.progress()
  if stop.requested():
    raise Stopped
