"""Natural Questions' baseline: the most common training answer per question word."""

import json

import numpy as np
import pytest
import zero_shot_sets

from gptjax.evaluate.tasks import common_answers, question_answering
from gptjax.evaluate.texts import sources

TRAIN = [  # (question, answers): of "who" The Queen wins by her three spellings, of "when" 1999 by two
  ('who rules the sea', ['The Queen', 'the queen!']), ('who rules the land', ['queen']),
  ('Who sails', ['Ann', 'a Queen']), ('in the song who sings', ['Ann']),
  ('when was it', ['1999']), ('in which year was it', ['2001']), ('so when will it end', ['May', '1999']),
  ('how many are there', ['two']), ('name the ship', ['Argo'])]
DEV = [('who rules', ['Queen']), ('who sank', ['Bob']), ('when did they go', ['in 1999', '1999']),
       ('how many', ['Two']), ('how is it made', ['argo']), ('the ship', ['none'])]


def write(path, questions):
  path.write_text(''.join(json.dumps({'question': question, 'answer': answers}) + '\n'
                          for question, answers in questions))


@pytest.mark.parametrize('question, kind', [
  ('who is it', 'who'), ('Whose is it', 'whose'), ('in which year', 'which'), ('how many', 'how many'),
  ('how is it', 'how'), ('the whole of whatever', 'other'), ('when and where was it', 'when')])
def test_the_type_of_a_question_is_its_first_question_word(question, kind):
  assert common_answers.question_type(question) == kind


def test_an_answer_counts_once_for_each_question_however_it_is_spelled():
  common = common_answers.most_common(TRAIN)
  assert common == {'who': 'The Queen', 'when': '1999', 'which': '2001', 'how many': 'two', 'other': 'Argo'}
  assert common_answers.most_common(TRAIN[:4])['other'] == 'The Queen'
  assert common_answers.most_common([]) == {}


def test_the_baseline_is_the_exact_match_of_these_answers(tmp_path):
  """Right: who rules, when did they go, how many; and "how is it made", a type without training questions."""
  write(tmp_path / 'nq_open_train.jsonl', TRAIN)
  write(tmp_path / 'nq_open_dev.jsonl', DEV)
  for limit, right in ((0, 4 / 6), (2, 1 / 2)):
    notes = []
    questions, common = question_answering.read_nq(
      sources.DataOptions(str(tmp_path), str(tmp_path / 'none'), limit, note=notes.append))
    assert len(questions) == (limit or 6) and common['when'] == '1999', 'all training questions, always'
    assert question_answering._baseline(questions, common)['exact_match_baseline'] == pytest.approx(right)
    assert any('9 questions, the published set 87,925' in note for note in notes)


def test_training_questions_of_tfds(tmp_path, monkeypatch):
  as_bytes = lambda answers: np.array([answer.encode() for answer in answers], object)
  records = [{'question': question.encode(), 'answer': as_bytes(answers)} for question, answers in TRAIN]
  zero_shot_sets.mock_tfds(monkeypatch, {'natural_questions_open': {'train': records, 'validation': records}})
  found = common_answers.read(sources.DataOptions('', '', 1))
  assert found == common_answers.most_common(TRAIN)


def test_the_task_reports_the_baseline_beside_the_model(tmp_path, monkeypatch):
  monkeypatch.setattr(question_answering, 'generate_with_journal', lambda *_, **__: [('x', [])] * len(DEV))
  monkeypatch.setattr(question_answering, 'answer_tokens', lambda *_: [])
  monkeypatch.setattr(question_answering, 'encode_prompt', lambda *_: [1])
  monkeypatch.setattr(question_answering, 'score_with_journal', lambda *_: [])
  class Evaluated:
    tokenizer = None
  found = question_answering.evaluate_nq(Evaluated, (DEV, common_answers.most_common(TRAIN)))
  assert found.metrics['exact_match'] == 0 and found.metrics['exact_match_baseline'] == pytest.approx(4 / 6)
  assert 'when: 1999' in found.protocol


def test_the_shared_training_split_gives_a_low_baseline(shared_data):
  """With 1,800 other questions in place of 87,925, the baseline is about the paper's 1.0 %."""
  questions, common = question_answering.read_nq(
    sources.DataOptions(str(shared_data), str(shared_data / 'tfds'), 0))
  found = question_answering._baseline(questions, common)['exact_match_baseline']
  assert len(questions) == 3610 and 0 < found < 0.03
