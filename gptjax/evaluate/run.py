"""The evaluation job: runs one task after another and saves each result at once."""

import contextlib
import hashlib
import json
import math
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from gptjax import defaults
from gptjax.command import shutdown, streams
from gptjax.config import memory, resume
from gptjax.config import resolve as configs
from gptjax.data.tokenizers import tokenizer_files
from gptjax.errors import InputError
from gptjax.evaluate import paper, percent, table
from gptjax.evaluate.core import summary
from gptjax.evaluate.journal import GRIDS, PART_SECONDS, Journal
from gptjax.evaluate.scoring.evaluated_model import make_evaluated_model
from gptjax.evaluate.scoring.scores import matmul_precision
from gptjax.evaluate.tasks import held_out, suite
from gptjax.evaluate.texts import sources
from gptjax.model.size import n_params
from gptjax.parallel import processes, sharding
from gptjax.parallel.watchdog import Watchdog
from gptjax.pretrained import layout, open_source
from gptjax.storage import ownership
from gptjax.storage.files import access, paths, records
from gptjax.storage.files.json_files import NUMBER, OPTIONAL_NUMBER
from gptjax.storage.files.paths import Url
from gptjax.train.step import graph

DONE = 0  # exit code
VERSION = 2  # of results.json
# Tasks whose protocol changed in a version: results of earlier versions are measured again.
CHANGED_TASKS = {2: ('dprd', 'lambada', 'natural_questions')}
TASK_FIELDS = 'tasks', 'not_run', 'grids', 'rows', 'protocols', 'seconds'  # of results.json, by task

LAYOUT = {
  'weights': str, 'limit': int, '?limits': {str: int}, '?version': int, '?notes': {str: [str]},
  'tasks': {str: {str: OPTIONAL_NUMBER}}, 'not_run': {str: str}, 'grids': GRIDS, 'rows': {str: [list]},
  'protocols': {str: str}, 'seconds': {str: NUMBER}}


def evaluate(config, workdir, overrides=(), write_report=None):
  """Run the tasks of `config.eval.tasks` for which the workdir has no results yet.

  Writes `results.json`, `results.md` and, for each task, `examples/TASK.jsonl` with one line per example.
  `results.json` has, by task: `tasks` (metrics), `not_run` (why there are none), `grids` (the cells of its
  `TaskResult`), `rows` (its table), `protocols` (how it was measured), `seconds` (how long that took),
  `limits` (the number of examples; 0: all) and `notes` (how its data differs from the published data).
  `model`, `weights` (a digest), `versions` and `devices` describe the run; `version` is that of the layout.
  Accuracies, F1 and exact match are fractions; BLEU, ROUGE and perplexity have their own scales.
  `answers/TASK.jsonl` holds the model's answers so far (see `journal`).

  Args:
    config: unresolved; it is resolved in place, `config.model` from the weights of `config.init_from`.
    workdir: folder of the run, here or in a bucket.
    overrides: names of the fields that the command line sets, like 'eval.limit'.
    write_report: function with the signature of `gptjax.report.page.write`, called on process 0 at the end;
      None: no report.

  Returns:
    Exit code: 0. A signal ends the process at once, with 75: run the same command again to continue.

  Raises:
    ValueError: the config or the input is invalid, or none of the tasks can be run.
  """
  workdir = paths.location(workdir)
  configs.check_fields(config)
  resume.restore_stored_fields(config, workdir, overrides)
  tasks, source = require_tasks(config), open_weights(config)
  config.model.update(source.fields)
  corpora, seq_len = held_out.corpora_to_read(config)
  configs.resolve(config, workdir)
  configs.check(config)
  processes.compare(configs.facts(config) | {'--workdir': str(workdir)})
  mesh = sharding.make_mesh(config.mesh)
  sharding.check_model(config.model, mesh)
  memory.check(config, mesh)
  data = data_options(config, corpora, seq_len)
  loaded = [read_task(task, data) for task in tasks]  # all data is checked before anything is scored
  saved = f'the answers until {PART_SECONDS:g} s ago' if isinstance(workdir, Url) else 'all answers so far'
  shutdown.exit_on_signal(f'stopped; {saved} are saved: run the same command to resume')
  with (ownership.own_workdir(workdir), jax.set_mesh(mesh), matmul_precision(config.model.compute_dtype),
        contextlib.closing(Watchdog(config.watchdog)) as watchdog):
    params = source.read(sharding.with_shardings(layout.weight_shapes(config), mesh))
    results = Results(config, workdir, weights_digest(params))
    model = nnx.merge(graph(config), params)
    model.n_ctx = config.eval.n_ctx or model.n_ctx
    evaluated = make_evaluated_model(
      model, source.tokenizer, config.eval.batch_size, grid=config.eval.grid, seed=config.train.seed,
      after_batch=watchdog.progress, show_progress=jax.process_index() == 0,
      counterfactual=config.eval.counterfactual)
    del params, model
    for task in loaded:
      watchdog.progress(slow=True)
      run_task(task, evaluated, results)
    add_summaries(config.eval.tasks, tasks, results)
    log_files(results, workdir, write_report)
  if not any(map(results.has, tasks)):
    raise InputError(f'none of the tasks can be run ({", ".join(task.name for task in tasks)}): '
                     f'{results.content["not_run"][tasks[0].name]}')
  return DONE


def require_tasks(config):
  """Return the tasks of `config.eval.tasks` (raises InputError if there are none)."""
  tasks = suite.parse_tasks(config.eval.tasks)
  if not tasks:
    raise InputError('config.eval.tasks is empty: set it to one or more of ' + ','.join(suite.TITLES))
  return tasks


def open_weights(config):
  """Return the source of the weights to evaluate (raises InputError if they have no tokenizer)."""
  if not config.init_from:
    raise InputError('config.init_from is empty: set it to the checkpoint or the folder of weights to '
                     'evaluate')
  source = open_source(config.init_from)
  if source.tokenizer is None:
    raise InputError(tokenizer_files.missing_message(config.init_from))
  return source


def log_files(results, workdir, write_report):
  """Log where the results are, and write the report."""
  results.log(f'\nresults       {results.folder / "results.json"}\n'
              f'table         {results.folder / "results.md"}')
  if write_report and jax.process_index() == 0:
    with streams.optional('the report'):
      results.log(f'report        {write_report([workdir], workdir)[0]}')


class TaskWithData(NamedTuple):
  """A task with its examples.

  task: evaluated_model.Task.
  examples: its examples; None if its data is missing.
  missing: why its data is missing; '' if it is not.
  notes: lines on how its data differs from the published data.
  """
  task: Any
  examples: Any
  missing: str
  notes: list


def read_task(task, data):
  """Return the TaskWithData of a task (raises InputError if its data is damaged)."""
  notes = []
  try:
    return TaskWithData(task, task.read(data._replace(note=notes.append)), '', notes)
  except sources.NotRun as why:
    return TaskWithData(task, None, str(why), notes)


def run_task(loaded, evaluated, results):
  """Run a task and save its result, unless there is one already or its data is missing."""
  task, examples, missing, notes = loaded
  if results.has(task):
    results.keep(task)
    return
  if missing:
    results.skip(task, missing)
    return
  for note in notes:
    results.log(f'{task.name}: note: {note}')
  digest = hashlib.sha256(json.dumps(examples, default=_digest).encode()).hexdigest()
  processes.compare({f'digest of the examples of {task.name}': digest})
  journal = Journal(results.folder / 'answers' / f'{task.name}.jsonl', results.model_digest, results.log)
  processes.compare({f'answers in the journal of {task.name}': journal.size})
  journal.begin()
  if journal.size:
    results.log(f'{task.name}: resuming after {journal.size:,} answers')
  began = time.monotonic()
  try:
    result = task.evaluate(evaluated._replace(journal_part=journal.part), examples)
  except sources.NotRun as why:
    results.skip(task, str(why))
  else:
    results.add(task, result, time.monotonic() - began, notes)
  finally:
    journal.close()


def add_summaries(names, tasks, results):
  """Save and log the means over tasks, like CORE, that are among the names of `config.eval.tasks`."""
  done = {task.name: results.content['tasks'][task.name] for task in tasks if results.has(task)}
  for name, result in suite.summaries(names, done).items():
    results.add_summary(name, result)


def _digest(corpus):
  return corpus.digest  # its path may differ between hosts


def data_options(config, corpora=(), seq_len=0):
  """Return the `sources.DataOptions` of a config; corpora and seq_len are described there."""
  return sources.DataOptions(config.eval.data_dir, config.data.tfds_dir, config.eval.limit, corpora, seq_len)


class Results:
  """`results.json` and the files beside it; process 0 writes them.

  Args:
    config: the resolved config.
    workdir: the run's folder.
    weights: digest of the weights; a workdir with results of other weights is refused.
  """

  def __init__(self, config, workdir, weights):
    self.folder, self.model_digest = paths.location(workdir), model_digest(config.model, weights)
    self._path = self.folder / 'results.json'
    self._active = jax.process_index() == 0
    def initialize():
      configs.make_workdir(workdir)
      configs.write_or_check_config(config, workdir, '')
      return records.read_or_discard(self._path, self.log, LAYOUT)
    earlier = processes.on_process_0(initialize)
    self.content = earlier or {part: {} for part in TASK_FIELDS}
    # In version 0.1.0 and earlier a workdir had one limit.
    self.content.setdefault('limits', {task: self.content['limit'] for task in self.content['tasks']})
    self.content.setdefault('notes', {})
    self._discard_outdated(self.content.get('version', 1 if earlier else VERSION))
    if earlier and self.content['weights'] != weights:
      raise InputError(f'{self._path} holds results of other weights (digest {self.content["weights"][:12]}, '
                       f'not {weights[:12]}): use another workdir')
    model = {**config.model.to_dict(), 'n_ctx': config.eval.n_ctx or config.model.n_ctx,
             'name': config.init_from, 'parameters': n_params(config.model)}
    self.content |= {'version': VERSION, 'weights': weights, 'model': model, 'limit': config.eval.limit,
                     'versions': configs.versions(),
                     'devices': [jax.devices()[0].device_kind, jax.device_count()]}
    self._write()

  def _discard_outdated(self, version):
    """Drop results whose protocol has changed since; refuse a file of a later version."""
    if version > VERSION:
      raise InputError(f'{self._path} has version {version}, but this gptjax reads at most {VERSION}: use '
                       'another workdir, or a newer gptjax')
    old = {task for since, tasks in CHANGED_TASKS.items() if since > version for task in tasks}
    for task in sorted(old & self.content['tasks'].keys()):
      self.log(f'{task}: its protocol has changed since an earlier version measured it: evaluating it again')
      for part in (*TASK_FIELDS, 'limits'):
        self.content[part].pop(task, None)

  def has(self, task):
    """Whether the workdir has the result of a task for the requested number of examples."""
    return self.content['limits'].get(task.name) == self.content['limit']

  def add(self, task, result, seconds, notes=()):
    """Save the result of a task and log it."""
    if self._active:
      path = self.folder / 'examples' / f'{task.name}.jsonl'
      access.make_folder(path.parent)
      access.write(path, ''.join(json.dumps(example) + '\n' for example in result.examples))
    self._store(task.name, result, seconds, notes)
    self._log_result(task, f'{seconds:.1f} s')

  def add_summary(self, name, result):
    """Save a mean over tasks and log it."""
    self._store(name, result, 0.0, ())
    self.log(f'\n{summary.line(result.metrics, self.content["limit"])}')

  def _store(self, name, result, seconds, notes):
    self.content['tasks'][name] = result.metrics
    self.content['limits'][name] = self.content['limit']
    self.content['not_run'].pop(name, None)
    for kind, value in (('grids', result.cells), ('rows', result.rows), ('protocols', result.protocol),
                        ('notes', list(notes))):
      self.content[kind].pop(name, None)  # of an earlier run of the task
      if value:
        self.content[kind][name] = value
    self.content['seconds'][name] = round(seconds, 1)
    self._write()

  def keep(self, task):
    """Log the result that the workdir has of a task."""
    self._log_result(task, 'kept')

  def _log_result(self, task, origin):
    metrics = self.content['tasks'][task.name]
    shown = '  '.join(_format_metric(name, metrics[name]) for name in main_metrics(task.name, metrics))
    self.log(f'{task.name:<18} {origin:>10}  {shown}')

  def skip(self, task, why):
    self.content['not_run'][task.name] = why
    self._write()
    self.log(f'{task.name:<18}  not run: {why}')

  def log(self, line):
    if self._active:
      print(line, flush=True)

  def _write(self):
    if self._active:
      access.write(self._path, records.text(self.content))
      access.write(self.folder / 'results.md', table.markdown(self.content))


def main_metrics(task, metrics):
  """Return the names of the metrics to print: those beside the paper's, else all; and the number of examples.

  `results.json` has all of them, also counts and upper bounds.

  Args:
    task: name of the task.
    metrics: {name: value} of its result.
  """
  compared = [figure.metric for figure in paper.PAPER_RESULTS
              if figure.task == task and figure.metric in metrics]
  return [*compared, *['examples'] * ('examples' in metrics)] if compared else list(metrics)


def _format_metric(name, value):
  if percent.display_scale(name, value) == 100:
    return f'{name} {percent.to_display(name, value):.4g} %'
  return f'{name} {value:.5g}' if isinstance(value, float) else f'{name} {value:,}'


def model_digest(model, weights):
  """16 hex digits that identify what answers depend on besides the questions.

  Args:
    model: `config.model`. Fields at their default do not count, so that a field which a later version adds
      does not change the digest.
    weights: digest of the weights.
  """
  fields = {name: value for name, value in model.to_dict().items()
            if name not in ('scan', 'remat') and value != defaults.FIELDS['model'][name].default}
  return hashlib.sha256(json.dumps([weights, fields], sort_keys=True).encode()).hexdigest()[:16]


def weights_digest(params):
  """Hex digest of the bits and positions of all weights, the same on every mesh."""
  @jax.jit
  def sums(tree):
    def weighted_sum(x):
      bits = jax.lax.bitcast_convert_type(x.astype(jnp.float32), jnp.uint32)
      strides = [np.uint32(math.prod(x.shape[axis + 1:])) for axis in range(x.ndim)]
      positions = sum(jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis) * stride
                      for axis, stride in enumerate(strides))
      weights = jax.reshard(2 * positions + 1, jax.typeof(bits).sharding.spec)
      return jax.reshard((bits * weights).sum(dtype=jnp.uint32), jax.P())
    return jax.tree.map(weighted_sum, tree)
  sums_by_path = {jax.tree_util.keystr(path): int(value)
                  for path, value in jax.tree.leaves_with_path(jax.device_get(sums(params)))}
  return hashlib.sha256(json.dumps(sums_by_path, sort_keys=True).encode()).hexdigest()
