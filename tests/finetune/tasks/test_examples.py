"""Declarations of tasks agree with their data sets; invalid rows are refused."""

import types

import numpy as np
import pytest

from gptjax.finetune.tasks import examples, published, transforms
from gptjax.finetune.tasks.metrics import METRICS

CONFIG = types.SimpleNamespace(data=types.SimpleNamespace(tfds_dir='', tfds_download=False))
OF_TFDS = [name for name, task in published.TASKS.items() if isinstance(task.train[0], examples.PUBLISHED)]


def test_they_are_the_papers_twelve_and_wnli():
  assert set(OF_TFDS) == {'snli', 'mnli', 'qnli', 'rte', 'scitail', 'race', 'story_cloze', 'mrpc', 'qqp',
                          'stsb', 'sst2', 'cola'} | {'wnli'}
  for task in map(published.find, OF_TFDS):
    assert task.kind in transforms.KINDS and set(task.metrics) <= set(METRICS)
    assert all(figure.partition('/')[0] == task.metrics[0] for figure in task.paper)
    assert task.paper or task.note


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('name', OF_TFDS)
def test_a_declaration_agrees_with_its_data_set(name, tmp_path):
  import tensorflow_datasets as tfds
  task = published.find(name)
  with tfds.testing.mock_data(num_examples=1):
    for source in (*task.train, *task.validation.values(), *task.test.values()):
      source = getattr(source, 'in_tfds', source)
      features = tfds.builder(source.name, data_dir=str(tmp_path)).info.features
      record = dict.fromkeys(features, 'x')
      if name == 'race':
        record = {**record, 'questions': ['q'], 'options': [['a']], 'answers': ['A']}
      if name == 'story_cloze':
        record['label'] = 1
      record, = task.unfold(record)
      assert {*task.texts, *task.answers, task.label} <= set(record)
      label = dict(features.items()).get(task.label)
      if isinstance(label, tfds.features.ClassLabel):
        assert label.names == list(task.classes)


@pytest.mark.ci
@pytest.mark.parametrize('name, sizes', [
  ('cola', (8551, 1043)), ('rte', (2490, 277)), ('stsb', (5749, 1500))])
def test_whole_splits_are_read(shared_data, name, sizes):
  CONFIG.data.tfds_dir = str(shared_data / 'tfds')
  task = published.find(name)
  for source, size in zip((task.train[0], task.validation['']), sizes):
    found, skipped = examples.read(name, task, source, CONFIG, require_labels=True)
    assert (len(found), skipped) == (size, 0)
    assert sorted(example.index for example in found) == list(range(size))
  if name == 'cola':
    assert np.sum([example.label for example in found]) == 721
  if name == 'stsb':
    assert min(e.label for e in found) == 0 and max(e.label for e in found) == 5


def test_a_split_without_labels_is_refused(shared_data):
  CONFIG.data.tfds_dir = str(shared_data / 'tfds')
  with pytest.raises(ValueError, match=r'^task sst2, split test, row 1: no label \(label = -1\)'):
    examples.read('sst2', published.find('sst2'), examples.Tfds('glue/sst2', 'test'), CONFIG,
                  require_labels=True)
  assert len(examples.read('sst2', published.find('sst2'), examples.Tfds('glue/sst2', 'test'), CONFIG,
                           require_labels=False)[0]) == 1821
  with pytest.raises(ValueError, match='data set glue/sst2 has no such split; the splits are test'):
    examples.read('sst2', published.find('sst2'), examples.Tfds('glue/sst2', 'dev'), CONFIG,
                  require_labels=True)


def read_records(monkeypatch, name, records, **changes):
  monkeypatch.setattr(examples, 'read_records', lambda *arguments: records)
  task = published.find(name)._replace(**changes)
  return examples.read(name, task, task.train[0], CONFIG, require_labels=True)


RACE = {'article': 'Long ago.', 'questions': ['When?', 'Who?'], 'options': [['a', 'b', 'c', 'd']] * 2,
        'answers': ['B', 'D']}


def test_an_article_has_many_questions(monkeypatch):
  found, _ = read_records(monkeypatch, 'race', [RACE, RACE])
  assert [(e.texts, e.answers, e.label) for e in found[:2]] == [
    (('Long ago.', 'When?'), ('a', 'b', 'c', 'd'), 1), (('Long ago.', 'Who?'), ('a', 'b', 'c', 'd'), 3)]
  assert len(found) == 4


def test_endings_are_counted_from_one(monkeypatch):
  story = {'context': 'He ran.', 'endings': ['He won.', 'It slept.'], 'label': 2}
  assert read_records(monkeypatch, 'story_cloze', [story])[0][0].label == 1


def test_answers_may_be_fields_of_their_own(monkeypatch):
  story = {'context': 'He ran.', 'one': 'He won.', 'two': 'It slept.', 'label': '1'}
  found, _ = read_records(monkeypatch, 'story_cloze', [story], answers=('one', 'two'), unfold=lambda r: [r])
  assert found[0].answers == ('He won.', 'It slept.') and found[0].label == 0


def test_unlabelled_examples_are_skipped(monkeypatch):
  rows = [{'premise': 'a', 'hypothesis': 'b', 'label': label} for label in (0, -1, 2)]
  found, skipped = read_records(monkeypatch, 'snli', rows)
  assert [e.label for e in found] == [0, 2] and skipped == 1


@pytest.mark.parametrize('name, record, says', [
  ('race', {**RACE, 'options': [['a', 'b', 'c', 'd'], ['a', 'b']]}, 'row 2: 2 answers, but the task has 4'),
  ('race', {**RACE, 'answers': ['B', 'E']}, "row 2: the label 'E' is not one of A, B, C, D"),
  ('sst2', {'sentence': 'x', 'label': 2}, 'row 1: the label 2 is not one of the 2 classes 0 to 1'),
  ('sst2', {'text': 'x', 'label': 1}, "row 1: the field 'sentence' is missing; the fields are label, text"),
  ('sst2', {'sentence': 3, 'label': 1}, "row 1: the field 'sentence' is int, not text"),
  ('stsb', {'sentence1': 'a', 'sentence2': 'b', 'label': 5.5},
   'row 1: the label 5.5 is outside the range 0 to 5'),
  ('stsb', {'sentence1': 'a', 'sentence2': 'b', 'label': 'much'}, "row 1: the label 'much' is not a number"),
  ('stsb', {'sentence1': 'a', 'sentence2': 'b', 'label': -1.0}, 'row 1: no label')])
def test_an_invalid_row_is_reported(monkeypatch, name, record, says):
  with pytest.raises(ValueError, match=rf'^task {name}, split train, row [^\n]*$') as error:
    read_records(monkeypatch, name, [record])
  assert says in str(error.value)


def test_quotation_marks_in_a_tsv_are_text(tmp_path):
  (tmp_path / 'train.tsv').write_text('label\ttext\ngood\tsay "hello" and "go\nbad\tno\n')
  config = types.SimpleNamespace(finetune=types.SimpleNamespace(data_dir=str(tmp_path)))
  found, _ = examples.read('reviews', published.find('reviews'), examples.Tsv('train.tsv'), config,
                           require_labels=True)
  assert [(e.texts, e.label, e.index) for e in found] == [(('say "hello" and "go',), 1, 0), (('no',), 0, 1)]
