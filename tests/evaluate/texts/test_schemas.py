"""Published sets can be evaluated; damaged records raise errors before scoring."""

import copy
import json
import math
import re

import pytest
import zero_shot_sets as published
from conftest import SHARED, mesh_of, train
from corpus_files import write_corpus
from task_judge import make

from configs import gpt2_zero_shot
from gptjax.errors import InputError
from gptjax.evaluate import percent
from gptjax.evaluate.run import evaluate
from gptjax.evaluate.tasks import held_out, question_answering, suite, summarization, translation
from gptjax.evaluate.texts import sources

TASK_OF = {'lambada_test.jsonl': 'lambada', 'wsc273.jsonl': 'winograd',
           'nq_open_dev.jsonl': 'natural_questions', 'cnn_dailymail/test.jsonl': 'cnn_dailymail'}


def read(task, folder, note=sources.ignore_note):
  return suite.TASKS[task].read(sources.DataOptions(str(folder), '', 0, note=note))


@pytest.fixture
def folder(tmp_path, monkeypatch):
  published.mock_tfds(monkeypatch)
  return published.write(tmp_path / 'data')


@pytest.mark.ci
def test_the_whole_suite_runs_on_sets_as_they_are_published(folder, tmp_path, monkeypatch, capfd):
  if not SHARED.is_dir():
    pytest.skip(f'needs the data folder {SHARED}')
  for module, name in ((translation, 'TOKENS'), (summarization, 'TOKENS'),
                       (question_answering, 'ANSWER_TOKENS'), (question_answering, 'SHORT_ANSWER_TOKENS')):
    monkeypatch.setattr(module, name, 4)
  with mesh_of():
    weights = make(tmp_path, SHARED)
  config = gpt2_zero_shot.get_config()
  config.init_from = str(weights)
  config.eval.update(dict(data_dir=str(folder), batch_size=4))
  assert evaluate(config, tmp_path / 'run') == 0
  found = json.loads((tmp_path / 'run' / 'results.json').read_text())
  assert found['tasks'].keys() == suite.TASKS.keys() - {'held_out'} and found['version'] == 2
  for task, metrics in found['tasks'].items():
    for name, value in metrics.items():
      assert math.isfinite(value), (task, name)
      own_scale = name.startswith(('rouge', 'bleu', 'perplexity', 'bits', 'nats', 'threshold', 'relative'))
      fraction = percent.display_scale(name, value) == 100
      assert -1 <= value <= 1 if fraction else isinstance(value, int) or own_scale, (task, name)
  assert found['tasks']['lambada']['ceiling_accuracy_last_word_filtered'] == pytest.approx(2 / 3)
  units = {cell['unit'] for cell in found['grids']['lambada']}
  assert {'accuracy_last_word_filtered', 'accuracy_last_word_filtered_by_token'} <= units
  said, table = capfd.readouterr().out, (tmp_path / 'run' / 'results.md').read_text()
  for task, words in (('race', '2 of the texts are blank'), ('cnn_dailymail', '1 of the texts is blank'),
                      ('cbt_cn', 'not have 10 candidates: 1'),
                      ('coqa', 'conversations, the published set 500'),
                      ('lambada', 'is not the published file'), ('wikitext2', 'the published file 245,569')):
    assert words in ' '.join(found['notes'][task]) and words in table and f'{task}: note: ' in said, task


WRONG = (7, None, True, ['a', ['b']], {'a': 1}, '', ' ')


@pytest.mark.parametrize('file', TASK_OF)
def test_a_field_of_another_kind_is_refused_with_its_line(folder, file):
  lines = published.LINES[file]
  for field in lines[0].keys() - {'idx', 'id'}:
    for wrong in (*WRONG, 'missing'):
      if (file, field, wrong) in ((file, 'article', ''), (file, 'article', ' '), (file, 'pre', ''),
                                  (file, 'pre', ' '), ('wsc273.jsonl', 'pronoun', 'missing'),
                                  ('wsc273.jsonl', 'pre', 'missing'), ('wsc273.jsonl', 'post', 'missing')):
        continue
      broken = copy.deepcopy(lines)
      broken[1][field] = wrong
      if wrong == 'missing':
        del broken[1][field]
      (folder / file).write_text(''.join(json.dumps(line) + '\n' for line in broken))
      with pytest.raises(InputError, match=f'{file}:2: ') as error:
        read(TASK_OF[file], folder)
      assert field in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize('change, says', [
  (lambda story: story.update(story=3), r'data\[0\]: story = 3 must be a text'),
  (lambda story: story['questions'].append(7), r'data\[0\]: questions\[2\] = 7 must be an object'),
  (lambda story: story['answers'].pop(), "2 questions, but 1 answers of the annotator 'answers'"),
  (lambda story: story['additional_answers']['1'][0].update(input_text=None),
   r'additional_answers\.1\[0\]\.input_text = None must be')])
def test_a_damaged_conversation_is_refused_with_its_place(folder, change, says):
  stories = copy.deepcopy(published.COQA)
  change(stories[0])
  (folder / 'coqa-dev-v1.0.json').write_text(json.dumps({'data': stories}))
  with pytest.raises(InputError, match=f'coqa-dev-v1.0.json: .*{says}'):
    read('coqa', folder)


def test_a_damaged_record_of_tfds_is_refused_with_its_number(folder, monkeypatch):
  for name, task, field, wrong in (
      ('glue/sst2', 'sst2', 'label', 2), ('glue/cola', 'cola', 'sentence', b' '),
      ('race/high', 'race', 'answers', [b'A', b'E']), ('race/high', 'race', 'options', [[b'a']]),
      ('definite_pronoun_resolution', 'dprd', 'candidates', [b'one']),
      ('lambada', 'lambada', 'passage', b'x')):
    records = copy.deepcopy(published.TFDS)
    for of_split in records[name].values():
      of_split[0] = {**of_split[0], field: wrong}
    published.mock_tfds(monkeypatch, records)
    with pytest.raises(InputError, match=f'data set {name}, split .*, record 0: {field}'):
      read(task, folder)


@pytest.mark.parametrize('task, file', [
  ('wikitext2', 'wikitext-2-raw/wiki.test.raw'), ('1bw', 'news.en.heldout-00000-of-00050'),
  ('enwik8', 'enwik8'), ('text8', 'text8'),
  ('cbt_cn', 'CBTest/data/cbtest_CN_valid_2000ex.txt'), ('coqa', 'coqa-dev-v1.0.json'),
  ('wmt14_en_fr', 'newstest2014.en'), *((task, file) for file, task in TASK_OF.items())])
def test_an_empty_file_or_one_that_is_not_text_is_refused(folder, task, file):
  path = folder / file
  whole = path.read_bytes()
  for content in b'', b' \n \n', b'\xff\xfea\0', whole[:-3] + b'\0' + whole[-2:]:
    path.write_bytes(content)
    with pytest.raises(InputError, match=path.name):
      read(task, folder)


@pytest.mark.parametrize('task, file', [
  ('wikitext2', 'wikitext-2-raw/wiki.test.raw'), ('ptb', 'ptb.test.txt'), ('enwik8', 'enwik8'),
  ('1bw', 'news.en.heldout-00000-of-00050'), ('cbt_ne', 'CBTest/data/cbtest_NE_valid_2000ex.txt'),
  ('wmt14_fr_en', 'newstest2014.fr'), ('lambada', 'lambada_test.jsonl')])
def test_a_copy_with_other_line_ends_or_a_mark_is_read_as_the_published_file(folder, task, file):
  path, notes = folder / file, []
  whole, before = path.read_bytes(), read(task, folder)
  path.write_bytes(whole.replace(b'\n', b'\r\n'))
  assert read(task, folder, notes.append) == before
  assert task == 'lambada' or any('CRLF' in note for note in notes)
  if task != 'enwik8':
    path.write_bytes(b'\xef\xbb\xbf' + whole)
    assert read(task, folder) == before


def test_a_lone_carriage_return_belongs_to_the_text():
  assert sources.with_lf_line_ends('f', 'a\rb\nc\r', sources.ignore_note) == 'a\rb\nc\r'


@pytest.mark.parametrize('text, some', [
  ('a\r\nb\r\n', ''), ('a\r\nb\n\n', '1 of 3 '), ('a\nb\r\n\rc', '1 of 2 ')])
def test_converted_line_ends_are_read_as_published_and_noted_even_if_only_some_are(text, some):
  for whole, end in ((text, '\r\n'), (text.encode(), b'\r\n')):
    notes = []
    assert sources.with_lf_line_ends('f', whole, notes.append) == whole.replace(end, end[-1:])
    assert notes == [f'f has {some}CRLF line ends; the published file has LF, so they are read as LF']


def test_the_shared_files_are_the_published_ones(shared_data):
  notes = []
  for task in 'lambada', 'wikitext2', 'winograd', 'natural_questions', 'wmt14_en_fr':
    suite.TASKS[task].read(sources.DataOptions(str(shared_data), str(shared_data / 'tfds'), 0,
                                               note=notes.append))
  # Its training split has other questions.
  note, = notes
  assert note.startswith('data set natural_questions_open, split train, has 1,800 questions, the published')


def test_no_few_shot_example_is_a_question_of_the_set(shared_data):
  small = {*re.findall(r'\w+', 'the a an is of in to what who when where did does do was how many which')}
  words = lambda text: set(text.lower().split()) - small
  lines = (shared_data / 'eval' / 'nq_open_dev.jsonl').read_text().splitlines()
  asked = [words(json.loads(line)['question']) for line in lines]
  for question, _ in question_answering.EXAMPLES:
    own = words(question)
    assert max(len(own & other) for other in asked) < 0.75 * len(own), question


@pytest.mark.ci
def test_held_out_reproduces_the_loss_of_training(corpus_folder, tmp_path):
  done = train(corpus_folder, tmp_path / 'run', '--config.train.steps=2', '--config.data.seq_len=16')
  assert done.returncode == 0, done.stderr
  records = [json.loads(line) for line in (tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines()]
  loss = [record['eval/loss'] for record in records if 'eval/loss' in record][-1]
  for name, changes in (('own', {}), ('named', {'corpus': str(corpus_folder), 'seq_len': 16})):
    config = gpt2_zero_shot.get_config()
    config.init_from, config.eval.tasks = str(tmp_path / 'run'), 'held_out'
    config.data.update(changes)
    assert evaluate(config, tmp_path / name) == 0
    found = json.loads((tmp_path / name / 'results.json').read_text())['tasks']['held_out']
    assert found['nats_per_token'] == pytest.approx(loss, rel=1e-5)
    assert found['perplexity'] == pytest.approx(math.exp(loss), rel=1e-4)
    split = json.loads((corpus_folder / 'manifest.json').read_text())['splits']['validation']
    assert found['bits_per_byte'] == pytest.approx(
      loss / math.log(2) * split['tokens'] / split['bytes'], rel=1e-5)


@pytest.mark.ci
def test_an_evaluation_without_any_runnable_task_fails(corpus_folder, tmp_path):
  done = train(corpus_folder, tmp_path / 'run', '--config.train.steps=2')
  assert done.returncode == 0, done.stderr
  config = gpt2_zero_shot.get_config()
  config.init_from, config.eval.tasks = str(tmp_path / 'run'), 'ptb,cbt_cn'
  with pytest.raises(InputError, match=r'none of the tasks can be run \(ptb, cbt_cn\): Penn Treebank'):
    evaluate(config, tmp_path / 'none')
  config = gpt2_zero_shot.get_config()
  config.init_from, config.eval.tasks = str(tmp_path / 'run'), 'ptb,held_out'
  assert evaluate(config, tmp_path / 'some') == 0


def test_a_held_out_split_of_one_token_is_ignored(tmp_path):
  """One token has no target; two tokens have one."""
  held = lambda *folders: held_out.read(sources.DataOptions('', '', 0, [(folder, 1.0) for folder in folders],
                                                            24, note=notes.append))
  one, two = (write_corpus(tmp_path / f'{n}', [[1, 2, 3]], validation=[range(n)]) for n in (1, 2))
  notes = []
  with pytest.raises(sources.NotRun, match=f'{one}: no held-out text'):
    held(one)
  assert notes == [f'corpus {one} has 1 token held out, none of which can be predicted']
  _, found, _ = held(one, two)
  (_, _, corpus), = found
  (request,) = held_out.windows(corpus, 24)
  assert request.ids.tolist() == [0, 1] and request.start == 1
