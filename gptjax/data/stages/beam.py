"""The stages of `prepare` on Apache Beam (pip install 'gptjax[beam]'), which only this module imports."""

import logging
import re
import traceback

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from gptjax import errors
from gptjax.data.stages import run
from gptjax.errors import InputError

RUNNER = '--runner=FnApiRunner'  # Beam's default may download another one, Prism
# An error of a task, in the text of what Beam makes of it.
RAISED = re.compile(r"gptjax\.errors\.(\w+): ((?:(?!gptjax\.errors\.).)*?) \[while running '", re.DOTALL)


def run_stage(flags, job, name, numbers):
  """Run one pipeline, whose end is the barrier before the next stage; see `run.run_all`.

  Args:
    flags: of Beam.
    job, name, numbers: see `run.run_all`.

  Raises:
    InputError: Beam refuses the flags, or a task has raised it.
  """
  try:
    pipeline = beam.Pipeline(options=PipelineOptions([RUNNER, *flags]))
  except (ValueError, ImportError) as error:
    raise InputError(f'Apache Beam refuses its flags {" ".join(flags)}: {error}') from None
  try:
    with pipeline:
      pipeline | beam.Create(numbers) | beam.Reshuffle() | name >> beam.Map(_run_one, run.Task(job, name))
  except Exception as error:
    if raised := RAISED.search(''.join(traceback.format_exception_only(error))):
      raise getattr(errors, raised[1], InputError)(raised[2]) from None
    raise


def _run_one(number, task):
  try:
    task(number)
  except InputError:
    raise
  except Exception as error:
    if described := errors.describe(error, ''):  # of this worker's machine, such as a full disk
      raise InputError(described[0]) from error
    raise


def _is_new(record):
  return not (isinstance(record.exc_info and record.exc_info[1], InputError) or
              RAISED.search(record.getMessage()))


for logger in 'common', 'worker.sdk_worker':  # which log errors, with their stacks, that they also raise
  logging.getLogger(f'apache_beam.runners.{logger}').addFilter(_is_new)
