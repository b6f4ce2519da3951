"""Chooses what runs the tasks of all stages, as the flags of a command say."""

import functools

from gptjax.errors import InputError

ALL, STATUS = 'all', 'status'  # values of --stage that are not the name of one


def split_flags(arguments):
  """Return (arguments of the command, those of the engine): what precedes `--`, and what follows it."""
  end = arguments.index('--') if '--' in arguments else len(arguments)
  return arguments[:end], arguments[end + 1:]


def require_share(stage, task, tasks):
  """Raise InputError unless `task` is one of `tasks` shares of a stage; ALL has only one."""
  if not 0 <= task < tasks:
    raise InputError(f'--task={task} --tasks={tasks}: tasks are numbered from 0, so --task must be less than '
                     '--tasks')
  if stage == ALL and tasks > 1:
    raise InputError(f'--task={task} --tasks={tasks}: tasks are shares of one stage: give --stage too')


def share_line(stage, task, tasks):
  """Return the line that a share of a stage ends with."""
  return f'task {task} of {tasks} of --stage={stage} is complete'


def choose(name, stage, engine_flags):
  """Return `run_stage` of `run.run_all` for an engine; None: processes of this machine.

  Args:
    name: of the engine.
    stage: value of --stage.
    engine_flags: the flags of the engine itself.
  """
  if name == 'local':
    if engine_flags:
      raise InputError(f'{engine_flags[0]} is after --, where the flags of --engine=beam are')
    return None
  if stage != ALL:
    raise InputError(f'--stage={stage}: --engine={name} runs all stages, remove one of the two')
  try:
    from gptjax.data.stages import beam
  except ModuleNotFoundError as missing:
    raise InputError(f"--engine={name} needs Apache Beam: pip install 'gptjax[beam]' "
                     f'(the module {missing.name} is missing)') from None
  return functools.partial(beam.run_stage, engine_flags)
