"""The flags of commands whose work consists of stages: which share of it this process runs, and on what."""

from gptjax.command.flag_types import WORKERS as MOST_WORKERS
from gptjax.command.flag_types import integer

ENGINES = 'local', 'beam'
WORKERS = integer(1, MOST_WORKERS)


def add(flags, stages):
  """Add --stage, --task, --tasks and --engine to a parser.

  Args:
    flags: run.Parser.
    stages: names of the stages.
  """
  add = flags.add_argument
  add('--stage', choices=('all', *stages, 'status'), default='all',
      help='all (default), or one stage, of which this command runs its share; status: print what is '
           'complete, and which tasks are left')
  add('--task', type=integer(0), default=0, help='number of this share, from 0')
  add('--tasks', type=integer(1), default=1, help='number of shares of the stage (default 1)')
  add('--engine', choices=ENGINES, default='local',
      help='what runs the tasks of all stages: local (default), --workers processes of this machine; or '
           'beam, Apache Beam, whose own flags follow after --')
