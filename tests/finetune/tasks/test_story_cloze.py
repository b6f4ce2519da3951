"""Story Cloze: the split of GPT-1's released code, and its CSV files."""

import csv
import hashlib
from types import SimpleNamespace

import numpy as np
import pytest

from gptjax.finetune.tasks import examples, published, story_cloze

FIELDS = ['InputStoryid', *story_cloze.SENTENCES, *story_cloze.ENDINGS, story_cloze.LABEL]


def write(path, n, fields=FIELDS):
  rows = [{'InputStoryid': f'id-{i}', **{name: f'"{name}", {i}.' for name in fields[1:-1]},
           story_cloze.LABEL: 1 + i % 2} for i in range(n)]
  with path.open('w', newline='') as file:
    made = csv.DictWriter(file, fields, extrasaction='ignore')
    made.writeheader()
    made.writerows(rows)


def config_of(folder, split='released'):
  finetune = SimpleNamespace(data_dir=str(folder), story_cloze_split=split)
  return SimpleNamespace(finetune=finetune, data=SimpleNamespace(tfds_dir='/nowhere', tfds_download=False))


def read(folder, split):
  task = published.find('story_cloze')
  return examples.read('story_cloze', task, examples.Stories(split), config_of(folder), require_labels=True)


def test_the_split_is_that_of_scikit_learn():
  """Recorded of 1.9.1: `train_test_split(np.arange(1871), test_size=374, random_state=3535999445)`."""
  training, validation = story_cloze.released_split()
  assert (len(training), len(validation)) == (1497, 374)
  assert sorted([*training, *validation]) == list(range(1871))
  assert [*training[:8]] == [187, 1591, 1646, 169, 1870, 1416, 496, 575]
  assert [*training[-3:]] == [1838, 26, 1820]
  assert [*validation[:8]] == [1058, 198, 1174, 806, 127, 918, 152, 898]
  digests = [hashlib.sha256(rows.astype('<i8').tobytes()).hexdigest() for rows in (training, validation)]
  assert digests == ['e31177471ac05d52f616232f7e59c0c988cc1db4615e33bfee90c318fd6d5662',
                     '84ea86ca283f0e8bdf0762db5c34f2b66db184f450413870d0928fe901517973']


@pytest.mark.parametrize('names', [0, 1], ids=['as TFDS wants them', 'as downloaded'])
def test_stories_are_read_from_the_published_files(tmp_path, names):
  write(tmp_path / story_cloze.LABELLED[names], 1871)
  write(tmp_path / story_cloze.TEST[names], 5)
  training, validation, test = (read(tmp_path, split)[0] for split in ('train', 'validation', 'test'))
  np.testing.assert_array_equal([example.index for example in training], story_cloze.released_split()[0])
  assert (len(training), len(validation), [example.index for example in test]) == (1497, 374, [0, 1, 2, 3, 4])
  assert all(example.label == example.index % 2 for example in (*training, *validation, *test))
  example = test[3]
  assert example.texts == (' '.join(f'"InputSentence{k}", 3.' for k in range(1, 5)),)
  assert example.answers == ('"RandomFifthSentenceQuiz1", 3.', '"RandomFifthSentenceQuiz2", 3.')


def test_other_numbers_of_stories_and_damaged_files_are_refused(tmp_path):
  with pytest.raises(ValueError, match=r'spring2016\.csv is not in config\.finetune\.data_dir'):
    read(tmp_path, 'train')
  path = tmp_path / story_cloze.LABELLED[0]
  write(path, 1870)
  with pytest.raises(ValueError, match=r'has 1,870 stories, but the split .* is of the 1,871 published'):
    read(tmp_path, 'train')
  write(path, 1871, FIELDS[:3] + FIELDS[4:])
  with pytest.raises(ValueError, match="story 1: the field 'InputSentence3' is missing"):
    read(tmp_path, 'train')
  write(path, 1871)
  whole = path.read_text()
  for damaged, says in ((whole.replace(',2\n', ',3\n'), "story 2: .* = '3' is not"),
                        (whole[:5000], 'not as many columns|not a CSV file')):
    path.write_text(damaged)
    with pytest.raises(ValueError, match=says):
      read(tmp_path, 'validation')


def test_the_copy_in_tfds_is_another_source(tmp_path):
  task, config = published.find('story_cloze'), config_of(tmp_path, 'tfds')
  with pytest.raises(ValueError, match='data set story_cloze/2016 is not in /nowhere'):
    examples.read('story_cloze', task, examples.Stories('train'), config, require_labels=True)
  splits = [source.in_tfds.split for source in (*task.train, *task.validation.values(), *task.test.values())]
  assert splits == ['validation[:80%]', 'validation[80%:]', 'test']
