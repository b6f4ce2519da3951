"""The data of CORE: the bundle as it is published, a folder of its files, and what is missing or damaged."""

import json
import random

import core_bundle
import pytest

from gptjax.errors import InputError
from gptjax.evaluate.core.tasks import TABLE
from gptjax.evaluate.tasks import suite
from gptjax.evaluate.texts import sources


def read(name, folder, limit=0, notes=None):
  note = sources.ignore_note if notes is None else notes.append
  return suite.ALL_TASKS[name].read(sources.DataOptions(str(folder), '', limit, note=note))


def odd_only(notes):
  """The notes that are not about the small number of invented items."""
  return [note for note in notes if 'few-shot' not in note and 'published set' not in note]


def test_the_bundle_as_published_has_the_settings_of_the_table(tmp_path):
  folder = core_bundle.write(tmp_path / 'eval_bundle')
  for place in (folder, tmp_path):  # in the bundle, or in the folder above it
    for task in TABLE:
      notes = []
      found, items = read(task.name, place, notes=notes)
      assert found == task and not odd_only(notes)
      wanted = core_bundle.items(task.type)
      random.Random(1337).shuffle(wanted)
      assert items == wanted and read(task.name, place, 3)[1] == wanted[:3]


@pytest.mark.parametrize('flat', [False, True])
def test_a_folder_of_the_json_lines_is_enough(tmp_path, flat):
  core_bundle.write(tmp_path / 'bundle')
  folder = tmp_path / 'bundle' / 'eval_data'
  if flat:
    folder = tmp_path / 'flat'
    folder.mkdir()
    for path in (tmp_path / 'bundle' / 'eval_data').rglob('*.jsonl'):
      path.rename(folder / path.name)
  for task in TABLE:
    found, items = read(task.name, folder)
    assert found == task and len(items) == 8


def test_other_settings_of_a_bundle_are_used_and_noted(tmp_path):
  core_bundle.write(tmp_path, piqa={'num_fewshot': [3], 'continuation_delimiter': '\nA: '})
  table = (tmp_path / 'eval_meta_data.csv').read_text()
  (tmp_path / 'eval_meta_data.csv').write_text(table.replace('piqa,x,50', 'piqa,x,40.5'))
  notes = []
  task, _ = read('piqa', tmp_path, notes=notes)
  assert (task.n_shots, task.delimiter, task.baseline) == (3, '\nA: ', 40.5)
  assert odd_only(notes) == ['n_shots = 3 in the bundle, 10 in the published one',
                             r"delimiter = '\nA: ' in the bundle, '\nAnswer: ' in the published one",
                             'baseline = 40.5 in the bundle, 50 in the published one']


def test_a_limit_below_the_number_of_examples_is_noted(tmp_path):
  notes = []
  read('piqa', core_bundle.write(tmp_path), 4, notes)
  assert '3 few-shot examples, not 10: there are no more under the limit' in notes


def test_a_task_without_data_is_not_run_and_says_where_to_get_it(tmp_path):
  with pytest.raises(sources.NotRun, match=r'core_coqa of CORE is missing: put eval_data/\S+coqa.jsonl from '
                                           r'https://\S+eval_bundle.zip into'):
    read('core_coqa', tmp_path)


@pytest.mark.parametrize('line, says', [
  ({'query': 'a', 'choices': ['b', 'c'], 'gold': 2}, 'gold = 2 must be less than the number of choices, 2'),
  ({'query': 'a', 'choices': ['b'], 'gold': 0}, 'choices'), ({'query': 'a', 'choices': ['b', 'c']}, 'gold'),
  ({'query': 1, 'choices': ['b', 'c'], 'gold': 0}, 'query = 1 must be a text')])
def test_a_damaged_example_is_refused(tmp_path, line, says):
  (tmp_path / 'copa.jsonl').write_text(json.dumps(line) + '\n')
  with pytest.raises(InputError, match=says):
    read('copa', tmp_path)


@pytest.mark.parametrize('name, text, says', [
  ('core.yaml', 'a: [', 'not the list of tasks of a CORE bundle'),
  ('core.yaml', 'icl_tasks: 1', 'not the list of tasks of a CORE bundle'),
  ('core.yaml', 'icl_tasks: [{label: copa}]',
   r'icl_tasks\[0\]: .* must be an object with the field .dataset_uri.'),
  ('core.yaml', 'icl_tasks: [{label: copa, dataset_uri: x, num_fewshot: [a], icl_task_type: schema}]',
   r'num_fewshot\[0\] = .a. must be a whole number'),
  ('core.yaml', 'icl_tasks: [{label: copa, dataset_uri: x, num_fewshot: [0], icl_task_type: qa}]',
   "icl_task_type = 'qa' must be one of multiple_choice, schema, language_modeling"),
  ('eval_meta_data.csv', 'Eval Task,Random baseline\ncopa,half\n', 'no random baseline of copa'),
  ('eval_meta_data.csv', 'Eval Task,Random baseline\ncopa,100\n', 'baseline 100 of copa, which is not'),
  ('eval_meta_data.csv', 'Eval Task,Random baseline\ncopa\n', 'no random baseline of copa'),
  ('eval_meta_data.csv', 'task,baseline\ncopa,50\n', 'no random baseline of copa')])
def test_damaged_settings_are_refused(tmp_path, name, text, says):
  core_bundle.write(tmp_path)
  (tmp_path / name).write_text(text)
  with pytest.raises(InputError, match=says):
    read('copa', tmp_path)
