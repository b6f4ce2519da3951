"""Zero-shot tasks during pretraining, with the same code as the evaluation job."""

import functools
import numbers

from flax import nnx

from gptjax.data.corpus import mixture
from gptjax.data.tokenizers import loading
from gptjax.evaluate.core import summary
from gptjax.evaluate.run import data_options
from gptjax.evaluate.scoring.evaluated_model import Stopped, make_evaluated_model
from gptjax.evaluate.scoring.scores import matmul_precision
from gptjax.evaluate.tasks import suite
from gptjax.evaluate.texts import sources
from gptjax.storage.files import cache


class TaskEvaluator:
  """Evaluates the tasks of `config.eval.tasks`, whose examples it reads once.

  Args:
    run: the pretrain.Run.
    log: function that logs a line; called for each task that cannot be run.
  """

  def __init__(self, run, log):
    self._run, self._log, self._loaded = run, log, []
    chosen = suite.parse_tasks(run.config.eval.tasks)
    if chosen:
      self._tokenizer = loading.load(str(cache.folder(run.workdir / 'tokenizer')))
    for task in chosen:
      try:
        corpora = tuple(zip(*mixture.folders_and_weights(run.config.data), strict=True))
        data = data_options(run.config, corpora, run.config.data.seq_len)
        note = lambda line, name=task.name: log(f'{name}: note: {line}')
        self._loaded.append((task, task.read(data._replace(note=note))))
      except sources.NotRun as why:
        log(f'{task.name} is not run: {why}')

  def __bool__(self):
    return bool(self._loaded)

  def __call__(self, params):
    """Return {'eval/TASK/METRIC': value} for these weights; None if the run is to stop before the end."""
    run, found = self._run, {}
    evaluated = make_evaluated_model(
      nnx.merge(run.graphdef, params), self._tokenizer, run.config.eval.batch_size,
      seed=run.config.train.seed, after_batch=functools.partial(check_stop, run.watchdog, run.stop),
      counterfactual=run.config.eval.counterfactual)
    try:
      for task, examples in list(self._loaded):
        run.watchdog.progress(slow=True)
        try:
          with matmul_precision(run.config.model.compute_dtype):
            found[task.name] = task.evaluate(evaluated, examples).metrics
        except sources.NotRun as why:
          self._loaded.remove((task, examples))
          self._log(f'{task.name} is not run: {why}')
    except Stopped:
      return None
    for name, result in suite.summaries(run.config.eval.tasks, found).items():
      found[name] = result.metrics
      self._log(summary.line(result.metrics, run.config.eval.limit))
    return {f'eval/{task}/{name}': value for task, metrics in found.items() for name, value in metrics.items()
            if isinstance(value, numbers.Real)}


def check_stop(watchdog, stop):
  """Report progress to the watchdog after a batch; raise Stopped if the run is to stop."""
  watchdog.progress()
  if stop.requested():
    raise Stopped
