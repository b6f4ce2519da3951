"""The published data of CORE: the bundle with its settings, or a folder of its JSON lines.

    core.yaml            for each task label, dataset_uri, num_fewshot, icl_task_type, continuation_delimiter
    eval_meta_data.csv   for each task its random baseline, per cent
    eval_data/           JSON lines, at the dataset_uri of each task

The settings are those of `gptjax.evaluate.core.tasks`; other ones of a bundle are used, with a note.
"""

import csv
import random

import yaml

from gptjax.errors import InputError
from gptjax.evaluate.core.types import TYPES
from gptjax.evaluate.texts import schema, sources

SETTINGS, BASELINES, DATA = 'core.yaml', 'eval_meta_data.csv', 'eval_data'
URL = 'https://karpathy-public.s3.us-west-2.amazonaws.com/eval_bundle.zip'
SHUFFLE_SEED = 1337
TASK = schema.Schema('tasks', {
  'label': schema.text(), 'dataset_uri': schema.text(),
  'num_fewshot': schema.list_of(schema.integer(0, 1000)), 'icl_task_type': schema.one_of(*TYPES),
  'continuation_delimiter': schema.text(blank=True)._replace(optional=True)})


def read(task, data):
  """Return (the CoreTask with the settings of the bundle, its items in shuffled order, cut to the limit).

  Raises:
    NotRun: the file of the task is missing.
    InputError: a file is damaged.
  """
  task = with_settings(task, data)
  path = sources.find_file(data, f'{DATA}/{task.file}', task.file, task.file.rpartition('/')[2])
  if path is None:
    raise sources.NotRun(sources.not_found_message(f'{task.name} of CORE', URL, f'{DATA}/{task.file}'))
  kind = TYPES[task.type]
  items = sources.read_jsonl(data, path, schema.Schema('examples', kind.fields, task.n_items))
  for number, item in enumerate(items, 1):
    if kind.options and item['gold'] >= len(item[kind.options]):
      raise InputError(f'{path}: example {number}: gold = {item["gold"]} must be less than the number of '
                       f'{kind.options}, {len(item[kind.options])}: get the published file again')
  random.Random(SHUFFLE_SEED).shuffle(items)
  items = [{field: item[field] for field in kind.fields} for item in data.limited(items)]
  if len(items) <= task.n_shots:
    data.note(f'{len(items) - 1} few-shot examples, not {task.n_shots}: there are no more under the limit')
  return task, items


def with_settings(task, data):
  """Return the CoreTask with the settings that the bundle in data_dir has for it; notes those that differ."""
  settings = _settings(data).get(task.label, {}) | _baseline(task, data)
  changed = {name: value for name, value in settings.items() if value != getattr(task, name)}
  for name, value in changed.items():
    data.note(f'{name} = {value!r} in the bundle, {getattr(task, name)!r} in the published one')
  return task._replace(**changed)


def _settings(data):
  """{label: {field of CoreTask: value}} of core.yaml; {} without one."""
  path = sources.find_file(data, SETTINGS)
  if path is None:
    return {}
  text = sources.read_text(path)
  try:
    entries = yaml.safe_load(text)
    entries = entries['icl_tasks']
    for i, entry in enumerate(entries):
      schema.check_record(TASK, entry, f'{path}: icl_tasks[{i}]')
  except (yaml.YAMLError, TypeError, KeyError) as error:
    raise InputError(f'{path} is not the list of tasks of a CORE bundle ({type(error).__name__}: {error}): '
                     'get the bundle again') from None
  return {entry['label']: {
    'file': entry['dataset_uri'], 'n_shots': entry['num_fewshot'][0], 'type': entry['icl_task_type'],
    'delimiter': entry.get('continuation_delimiter', ' ')} for entry in entries}


def _baseline(task, data):
  """{'baseline': per cent} of a task in eval_meta_data.csv; {} without one."""
  path = sources.find_file(data, BASELINES)
  if path is None:
    return {}
  lines = sources.read_text(path).splitlines()
  try:
    rows = {row['Eval Task']: row['Random baseline'] for row in csv.DictReader(lines)}
    if task.label not in rows:
      return {}
    baseline = float(rows[task.label])
  except (KeyError, TypeError, ValueError) as error:
    raise InputError(f'{path} has no random baseline of {task.label} ({error}): get the bundle '
                     'again') from None
  if not 0 <= baseline < 100:  # nor NaN
    raise InputError(f'{path} has the random baseline {baseline:g} of {task.label}, which is not from 0 to '
                     'less than 100: get the bundle again')
  return {'baseline': baseline}
