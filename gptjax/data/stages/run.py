"""Runs the stages of `prepare`: all of them, on any engine, or the share of one task in one stage."""

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
  segment_keys,
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
  """
  count: Any
  make: Any
  what: str


def _plain(function):
  return lambda job: lambda number: function(job, number)


def _make_encode(job):
  encoder = encode_part.make_encoder(job)
  return lambda number: encode_part.encode_part(job, number, encoder)


STAGES = {
  'judge': Stage(lambda job: job.n_parts, _plain(judge.judge), 'judging'),
  'mark': Stage(mark.n_ranges, _plain(mark.mark), 'finding duplicates'),
  'tokenizer': Stage(lambda job: 1, _plain(tokenizer.choose), 'tokenizer'),
  'encode': Stage(lambda job: job.n_parts, _make_encode, 'encoding'),
  'join': Stage(join.n_files, _plain(join.join), 'joining'),
}


def stages_of(job):
  """Return the names of the stages that a job has, in their order."""
  recipe, unused = job.reading.recipe, set()
  if not recipe.filters and not job.excluded:
    unused.add('judge')
  if not segment_keys.kinds(recipe):
    unused.add('mark')
  return [name for name in STAGES if name not in unused]


def run_all(job, run_stage):
  """Run what is left of all stages; returns the manifest.

  Args:
    job: Job.
    run_stage: function of (job, name of the stage, numbers) that calls `Task(job, name)(number)` for each of
      the numbers, in any processes on any machines and in any order, and returns when all of them are done.
  """
  for name in stages_of(job):
    _run_numbers(job, name, range(STAGES[name].count(job)), run_stage)
  return join.write_manifest(job)


def run_task(job, name, task, tasks, n_workers):
  """Run the share of task `task` of `tasks` in a stage; returns the manifest if it is the last of all tasks.

  Raises:
    InputError: the job has no such stage, or the stage before is not complete.
  """
  if name not in stages_of(job):
    raise InputError(f'--stage={name}: this corpus has the stages {", ".join(stages_of(job))}')
  count = STAGES[name].count(job)
  first, end = (-(-number * count // tasks) for number in (task, task + 1))  # the first tasks have one more
  with processes(job, n_workers) as run_stage:
    _run_numbers(job, name, range(first, end), run_stage)
  return join.write_manifest(job) if name == 'join' else None


def status(job, tasks):
  """Return what is complete of each stage, as a table with the tasks that are left if there are `tasks`."""
  rows = [('stage', 'results', 'complete', f'left of {tasks} tasks')]
  for name in stages_of(job):
    try:
      count = STAGES[name].count(job)
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
  if name == 'tokenizer':
    return [] if tokenizer.is_chosen(job) else list(numbers)
  complete = work.complete(job.work / name)
  return [number for number in numbers if f'{number:05d}' not in complete]


def has_results(job):
  """Return whether any result is complete."""
  return tokenizer.is_chosen(job) or any(work.complete(job.work / name) for name in STAGES)


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
  if name == 'tokenizer':  # one task, in this process, with bars of its own
    Task(job, name)(*numbers)
    return
  by_part = name in ('judge', 'encode')
  sizes = parts.text_bytes(job) if by_part else collections.defaultdict(lambda: 1)
  unit = {'unit': 'B', 'unit_scale': True} if by_part else {'unit': 'file' if name == 'join' else 'range'}
  total = sum(sizes[number] for number in numbers)
  with bars.bar(shown=job.progress, desc=STAGES[name].what, total=total, **unit) as bar:
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
      self._function = STAGES[self._name].make(self._job)
    self._function(number)

  def __reduce__(self):
    return Task, (self._job, self._name)
