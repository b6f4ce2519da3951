"""Runs the stages of a job: all of them, on any engine, or the share of one task in one stage.

A job is that of `prepare` (`job.Job`) or of another command (`folder.Job`). Both have `stages`, `work`,
`n_parts`, `progress`, `known`, and `finish`, which writes the manifest once all results are there.
"""

import collections
import contextlib
import functools
from typing import Any, NamedTuple

from gptjax.command import bars
from gptjax.data import workers
from gptjax.data.stages import (
  encode_part,
  join,
  judge,
  mark,
  parts,
  tokenizer,
  work,
)
from gptjax.errors import InputError
from gptjax.storage.files import access


class Stage(NamedTuple):
  """A stage.

  count: function of the job that returns the number of its results.
  make: function of the job that returns the function of (number) that writes a result.
  what: the text of its progress bar.
  sizes: function of the job that returns about how many bytes of text each task reads; None: tasks are
    counted.
  unit: what is counted.
  is_complete: function of the job, of a stage of one task that has a record and bars of its own; or None.
  """
  count: Any
  make: Any
  what: str
  sizes: Any = None
  unit: str = 'file'
  is_complete: Any = None


def _plain(function):
  return lambda job: lambda number: function(job, number)


def _make_encode(job):
  encoder = encode_part.make_encoder(job)
  return lambda number: encode_part.encode_part(job, number, encoder)


# The stages of `prepare`.
STAGES = {
  'judge': Stage(lambda job: job.n_parts, _plain(judge.judge), 'judging', parts.text_bytes),
  'mark': Stage(mark.n_ranges, _plain(mark.mark), 'finding duplicates', unit='range'),
  'tokenizer': Stage(lambda job: 1, _plain(tokenizer.choose), 'tokenizer',
                     is_complete=lambda job: tokenizer.is_chosen(job)),
  'encode': Stage(lambda job: job.n_parts, _make_encode, 'encoding', parts.text_bytes),
  'join': Stage(join.n_files, _plain(join.join), 'joining'),
}


def run_all(job, run_stage):
  """Run what is left of all stages; returns the manifest.

  Args:
    job: Job.
    run_stage: function of (job, name of the stage, numbers) that calls `Task(job, name)(number)` for each of
      the numbers, in any processes on any machines and in any order, and returns when all of them are done.
  """
  for name, stage in job.stages.items():
    _run_numbers(job, name, range(stage.count(job)), run_stage)
  return job.finish()


def run_task(job, name, task, tasks, n_workers):
  """Run the share of task `task` of `tasks` in a stage; returns the manifest if it is the last of all tasks.

  Raises:
    InputError: the job has no such stage, or the stage before is not complete.
  """
  if name not in job.stages:
    raise InputError(f'--stage={name}: this corpus has the stages {", ".join(job.stages)}')
  count = job.stages[name].count(job)
  first, end = (-(-number * count // tasks) for number in (task, task + 1))  # the first tasks have one more
  with processes(job, n_workers) as run_stage:
    _run_numbers(job, name, range(first, end), run_stage)
  return job.finish() if name == list(job.stages)[-1] else None


def status(job, tasks):
  """Return what is complete of each stage, as a table with the tasks that are left if there are `tasks`."""
  rows = [('stage', 'results', 'complete', f'left of {tasks} tasks')]
  for name, stage in job.stages.items():
    try:
      count = stage.count(job)
    except work.Incomplete:  # known when the stage before is complete
      rows.append((name, '?', '0', 'not known yet'))
      continue
    left = _left(job, name, range(count))
    again = sorted({number * tasks // count for number in left})
    rows.append((name, str(count), str(count - len(left)), _ranges(again) or 'none'))
  return '\n'.join(f'{name:<10}{count:>9}{complete:>10}  {left}' for name, count, complete, left in rows)


def _ranges(numbers):
  """Return sorted numbers as Slurm writes them: '0-3,7'."""
  runs = []
  for number in numbers:
    if runs and number == runs[-1][1] + 1:
      runs[-1][1] = number
    else:
      runs.append([number, number])
  return ','.join(str(first) if first == last else f'{first}-{last}' for first, last in runs)


def _run_numbers(job, name, numbers, run_stage):
  access.make_folder(job.work / name)
  if left := _left(job, name, numbers):
    run_stage(job, name, left)


def _left(job, name, numbers):
  if is_complete := job.stages[name].is_complete:
    return [] if is_complete(job) else list(numbers)
  complete = work.complete(job.work / name)
  return [number for number in numbers if f'{number:05d}' not in complete]


def has_results(job):
  """Return whether any result of `prepare` is complete, also of a stage that other flags do not need."""
  return any(stage.is_complete(job) if stage.is_complete else work.complete(job.work / name)
             for name, stage in STAGES.items())


@contextlib.contextmanager
def processes(job, n_workers):
  """Context manager of `run_stage`, see `run_all`, of an engine of processes of this machine.

  The processes serve all stages, because each takes seconds to start. A stage starts as many as it has tasks.
  """
  with workers.pool(_make_tasks, [job], n_workers) as map_items:
    yield functools.partial(_run_with_bar, map_items)


def _make_tasks(job):
  tasks = functools.cache(lambda name: Task(job, name))
  return lambda item: tasks(item[0])(item[1])


def _run_with_bar(map_items, job, name, numbers):
  stage = job.stages[name]
  if stage.is_complete:  # one task, in this process, with bars of its own
    Task(job, name)(*numbers)
    return
  sizes = stage.sizes(job) if stage.sizes else collections.defaultdict(lambda: 1)
  unit = {'unit': 'B', 'unit_scale': True} if stage.sizes else {'unit': stage.unit}
  total = sum(sizes[number] for number in numbers)
  with bars.bar(shown=job.progress, desc=stage.what, total=total, **unit) as bar:
    for number, _ in map_items((number, (name, number)) for number in numbers):
      bar.update(sizes[number])


class Task:
  """The function of a number that writes this result of a stage; can be pickled for other processes.

  Args:
    job: Job.
    name: of the stage.
  """

  def __init__(self, job, name):
    self._job, self._name, self._function = job, name, None

  def __call__(self, number):
    if self._function is None:  # once in each process: it may load the tokenizer
      self._function = self._job.stages[self._name].make(self._job)
    self._function(number)

  def __reduce__(self):
    return Task, (self._job, self._name)
