"""Runs the stages of `prepare`: all of them here, over processes, or the share of one task in one stage."""

import functools
from typing import Any, NamedTuple

from gptjax.command import bars
from gptjax.data import workers
from gptjax.data.stages import encode_part, join, judge, mark, parts, tokenizer, work
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
  return [name for name in STAGES if job.reading.recipe.filters or name not in ('judge', 'mark')]


def run_all(job, n_workers):
  """Run what is left of all stages; returns the manifest."""
  with _workers(job, n_workers) as map_items:
    for name in stages_of(job):
      one_task = name == 'tokenizer'  # in this process
      run_numbers(job, name, _left(job, name, range(STAGES[name].count(job))),
                  _mapped_here(job) if one_task else map_items)
  return join.write_manifest(job)


def run_task(job, name, task, tasks, n_workers):
  """Run the share of task `task` of `tasks` in a stage; returns the manifest if it is the last of all tasks.

  Raises:
    InputError: the job has no such stage, or the stage before is not complete.
  """
  if name not in stages_of(job):
    raise InputError(f'--stage={name}: this corpus has the stages {", ".join(stages_of(job))}')
  count = STAGES[name].count(job)
  share = range(task * count // tasks, (task + 1) * count // tasks)
  with _workers(job, n_workers) as map_items:
    run_numbers(job, name, _left(job, name, share), map_items)
  return join.write_manifest(job) if name == 'join' else None


def _left(job, name, numbers):
  if name == 'tokenizer':
    return [] if tokenizer.is_chosen(job) else [0]
  complete = work.complete(job.work / name)
  return [number for number in numbers if f'{number:05d}' not in complete]


def has_results(job):
  """Return whether any result is complete."""
  return tokenizer.is_chosen(job) or any(work.complete(job.work / name) for name in STAGES)


def _workers(job, n_workers):
  """Return a context manager of a function that maps (item, (stage, number)); see `workers.pool`.

  The processes serve all stages, because each takes seconds to start.
  """
  return workers.pool(make_task, [job], min(n_workers, job.n_parts))


def _mapped_here(job):
  task = make_task(job)
  return lambda items: ((item, task(payload)) for item, payload in items)


def run_numbers(job, name, numbers, map_items):
  """Write the results of these numbers in a stage."""
  access.make_folder(job.work / name)
  if not numbers:
    return
  by_part = name in ('judge', 'encode')
  size = (lambda number: parts.text_bytes(job, number)) if by_part else lambda number: 1
  unit = {'unit': 'B', 'unit_scale': True} if by_part else {'unit': 'file' if name == 'join' else 'range'}
  with bars.bar(shown=job.progress, desc=STAGES[name].what, total=sum(map(size, numbers)), **unit) as bar:
    for number, _ in map_items((number, (name, number)) for number in numbers):
      bar.update(size(number))


def make_task(job):
  """Return the function of a worker: of (stage, number), it writes a result."""
  make = functools.cache(lambda name: STAGES[name].make(job))
  return lambda item: make(item[0])(item[1])


def run_one(job, name, number):
  """Write one result of a stage, in this process: for the drivers of other engines."""
  access.make_folder(job.work / name)
  make_task(job)((name, number))


