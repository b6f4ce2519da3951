"""A small invented bundle of CORE: a few facts, asked in the three types of tasks."""

import csv
import io
import json

import yaml

from gptjax.evaluate.core.tasks import TABLE

COLOURS = {'fox': 'red', 'stone': 'grey', 'tree': 'green', 'rain': 'blue', 'sand': 'yellow', 'coal': 'black',
           'milk': 'white', 'plum': 'purple'}
NAMES = sorted(set(COLOURS.values()))


def items(kind):
  """The items of one type, of which a model that knows COLOURS answers each correctly."""
  found = []
  for i, (thing, colour) in enumerate(COLOURS.items()):
    others = [name for name in NAMES if name != colour]
    options = [others[i % 7], others[(i + 3) % 7]]
    options.insert(i % 3, colour)
    if kind == 'multiple_choice':
      found.append({'query': f'The colour of the {thing} is', 'choices': options, 'gold': i % 3})
    elif kind == 'schema':
      wrong = next(other for other in COLOURS if COLOURS[other] == others[0])
      pair = [f'The colour of the {one} is' for one in ((thing, wrong) if i % 2 else (wrong, thing))]
      found.append({'context_options': pair, 'continuation': colour, 'gold': 1 - i % 2})
    else:
      found.append({'context': f'The colour of the {thing} is ', 'continuation': colour})
  return found


def write(folder, tasks=TABLE, **changed):
  """Write a bundle with the data of these tasks; `changed`: {label: {field of core.yaml: value}}."""
  entries = [{'label': task.label, 'dataset_uri': task.file, 'num_fewshot': [task.n_shots],
              'icl_task_type': task.type, 'continuation_delimiter': task.delimiter,
              **changed.get(task.label, {})} for task in TABLE]
  for entry in entries:  # as published, the default is left out
    if entry['continuation_delimiter'] == ' ':
      del entry['continuation_delimiter']
  folder.mkdir(parents=True, exist_ok=True)
  (folder / 'core.yaml').write_text(yaml.safe_dump({'icl_tasks': entries}))
  table = io.StringIO()
  writer = csv.writer(table)
  writer.writerows([['Eval Task', 'Task Category', 'Random baseline'],
                    *([task.label, 'x', task.baseline] for task in TABLE)])
  (folder / 'eval_meta_data.csv').write_text(table.getvalue())
  for task in tasks:
    path = folder / 'eval_data' / task.file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(''.join(json.dumps(item) + '\n' for item in items(task.type)))
  return folder


def text():
  """A text that states the facts, for training."""
  return ''.join(f'The colour of the {thing} is {colour}\n\n' for thing, colour in COLOURS.items())
