"""Story Cloze (spring 2016) as published, and its split in GPT-1's released code.

That code trains on 1,497 of the 1,871 labelled stories of the validation file and chooses the checkpoint on
the other 374, drawn with a fixed seed. The published CSV files have the stories in the order that the split
needs; TensorFlow Datasets stores them in another order and without their identifiers.
"""

import numpy as np

from gptjax.errors import InputError
from gptjax.finetune.tasks import text_files
from gptjax.storage.files import access, cache, paths

N_STORIES, N_VALIDATION, SEED = 1871, 374, 3535999445  # openai/finetune-transformer-lm, datasets.py
# The names for which TensorFlow Datasets asks, and those of the download.
LABELLED = 'cloze_test_val__spring2016.csv', 'cloze_test_val__spring2016 - cloze_test_ALL_val.csv'
TEST = 'cloze_test_test__spring2016.csv', 'cloze_test_test__spring2016 - cloze_test_ALL_test.csv'
SENTENCES = tuple(f'InputSentence{i}' for i in range(1, 5))
ENDINGS, LABEL = ('RandomFifthSentenceQuiz1', 'RandomFifthSentenceQuiz2'), 'AnswerRightEnding'


def released_split():
  """(training, validation) rows of the labelled stories: int64[1497], int64[374].

  scikit-learn's `train_test_split(test_size=374, random_state=SEED)` takes the first 374 numbers of this
  permutation for validation and the rest for training, in this order. NumPy guarantees the stream of
  `RandomState` (NEP 19).
  """
  shuffled = np.random.RandomState(SEED).permutation(N_STORIES)
  return shuffled[N_VALIDATION:], shuffled[:N_VALIDATION]


def records(split, data_dir, location):
  """The records of a split in the form of TensorFlow Datasets: context, endings, label (1, 2), and idx.

  Args:
    split: 'train' or 'validation' of the released split, or 'test'.
    data_dir: `config.finetune.data_dir`, the folder of the CSV files.
    location: of messages.

  Raises:
    InputError: a file is missing or damaged, or has another number of stories than the published one.
  """
  path = _find(TEST if split == 'test' else LABELLED, data_dir, location)
  location = f'{location}: {path}'
  rows = text_files.csv_records(cache.local_file(path), location)
  stories = [_story(row, number, f'{location}, story {number + 1}') for number, row in enumerate(rows)]
  if split == 'test':
    return stories
  if len(stories) != N_STORIES:
    raise InputError(f'{location} has {len(stories):,} stories, but the split of the released code is of the '
                     f'{N_STORIES:,} published ones: restore the file')
  training, validation = released_split()
  return [stories[row] for row in (training if split == 'train' else validation)]


def _find(names, data_dir, location):
  """The path of the first of these files that exists."""
  found = [path for path in (paths.parsed(data_dir) / name for name in names)
           if data_dir and access.is_file(path)]
  if not found:
    raise InputError(f'{location}: {names[0]} is not in config.finetune.data_dir = {data_dir!r}: request it '
                     'at cs.rochester.edu/nlp/rocstories, or use the copy and the split of TensorFlow '
                     'Datasets, --config.finetune.story_cloze_split=tfds')
  return found[0]


def _story(row, number, location):
  """The record of a row."""
  missing = [field for field in (*SENTENCES, *ENDINGS) if field not in row]
  if missing:
    raise InputError(f'{location}: the field {missing[0]!r} is missing')
  label = row.get(LABEL, '-1')
  if label not in ('1', '2', '-1'):
    raise InputError(f'{location}: {LABEL} = {label!r} is not 1 or 2')
  return {'context': ' '.join(row[field] for field in SENTENCES),
          'endings': [row[field] for field in ENDINGS], 'label': int(label), 'idx': number}
