"""All tasks, in the order in which they run and are listed in the table.

TASKS are those of both papers; the table has a row for each of them, beside the paper's figure. MORE_TASKS
are those of CORE and of its kind, which have tables of their own. `core` stands for the tasks of CORE, and
for their mean.
"""

from gptjax.errors import InputError
from gptjax.evaluate.core import multiple_choice, summary
from gptjax.evaluate.core import tasks as core
from gptjax.evaluate.tasks import (
  cloze,
  gpt1,
  held_out,
  lambada,
  language_modelling,
  question_answering,
  summarization,
  translation,
)
from gptjax.text import words

TASKS = {task.name: task for task in (
  *lambada.TASKS, *cloze.TASKS, *language_modelling.TASKS, *question_answering.TASKS, *translation.TASKS,
  *summarization.TASKS, *gpt1.TASKS, *held_out.TASKS)}


MORE_TASKS = {task.name: task for task in (*core.TASKS, *core.MORE_TASKS, *multiple_choice.TASKS)}
ALL_TASKS = TASKS | MORE_TASKS
TITLES = {name: task.title for name, task in ALL_TASKS.items()} | {summary.NAME: summary.TITLE}


def parse_tasks(names, field='eval.tasks'):
  """Return [Task] of a comma-separated list of names in a field (raises ValueError for an unknown name)."""
  tasks = {}
  for name in _split(names):
    if name not in TITLES:
      raise InputError(f'config.{field} has {name!r}, which is not a task'
                       + words.suggestion(name, TITLES, 'the tasks are'))
    tasks |= {task.name: task for task in (core.TASKS if name == summary.NAME else [ALL_TASKS[name]])}
  return list(tasks.values())


def summaries(names, results):
  """Return {name: TaskResult} of the means over tasks that are named: `core`, if one of its tasks was run.

  Args:
    names: as for `parse_tasks`.
    results: {name of a task: metrics}.
  """
  result = summary.summarize(results) if summary.NAME in _split(names) else None
  return {summary.NAME: result} if result else {}


def _split(names):
  return list(filter(None, (name.strip() for name in names.split(','))))
