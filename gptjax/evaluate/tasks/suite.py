"""All tasks, in the order in which they run and are listed in the table."""

from gptjax.errors import InputError
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


def parse_tasks(names, field='eval.tasks'):
  """Return [Task] of a comma-separated list of names in a field (raises ValueError for an unknown name)."""
  tasks = []
  for name in filter(None, (name.strip() for name in names.split(','))):
    if name not in TASKS:
      raise InputError(f'config.{field} has {name!r}, which is not a task'
                       + words.suggestion(name, TASKS, 'the tasks are'))
    if TASKS[name] not in tasks:
      tasks.append(TASKS[name])
  return tasks
