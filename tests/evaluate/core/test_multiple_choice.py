"""HellaSwag by both scorers and the harness's other tasks, against transformers, one choice at a time."""

import json

import numpy as np
import pytest
from conftest import SHARED, mesh_of
from task_judge import Judge, make

import gptjax
from gptjax.errors import InputError
from gptjax.evaluate.core import multiple_choice
from gptjax.evaluate.journal import no_journal
from gptjax.evaluate.scoring.evaluated_model import make_evaluated_model
from gptjax.evaluate.tasks import suite
from gptjax.evaluate.texts import sources

ENDINGS = ['She ran away.', '[step] He stays  here.', 'it rained all day long', 'nobody was seen again, ever']
HELLASWAG = [
  {'activity_label': 'Roof work', 'ctx_a': 'A man is on a roof.', 'ctx_b': 'he', 'label': 2,
   'ctx': 'A man is on a roof. he', 'endings': ENDINGS},
  {'activity_label': 'Home', 'ctx_a': '[header] How to sing [title] Stand up. [step] Breathe.', 'ctx_b': '',
   'ctx': '[header] How to sing [title] Stand up. [step] Breathe.', 'label': 0, 'endings': ENDINGS[::-1]},
  {'activity_label': 'Rain', 'ctx_a': 'The sky is grey.', 'ctx_b': 'the crowd', 'label': 3,
   'ctx': 'The sky is grey. the crowd', 'endings': [f'{ending} It ends.' for ending in ENDINGS]}]
FILES = {
  'hellaswag_val.jsonl': HELLASWAG,
  'ARC-Easy-Test.jsonl': [{'question': {'stem': 'What is red?', 'choices': [
    {'text': 'a fox', 'label': '1'}, {'text': 'the old king', 'label': '2'}, {'text': 'rain', 'label': '3'}]},
    'answerKey': '2'}],
  'piqa/valid.jsonl': [{'goal': 'open a door', 'sol1': 'push it', 'sol2': 'sing to it all day'}],
  'boolq/dev.jsonl': [{'question': 'is it old', 'passage': 'The house is old.', 'answer': True}],
  'blimp/one.jsonl': [{'sentence_good': 'The foxes run.', 'sentence_bad': 'The foxes runs.'}] * 2,
  'blimp/two.jsonl': [{'sentence_good': 'Who ran?', 'sentence_bad': 'Who ran she?'}]}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  if not SHARED.is_dir():
    pytest.skip(f'needs the data folder {SHARED}')
  with mesh_of():
    return make(tmp_path_factory.mktemp('model'), SHARED)


@pytest.fixture
def data(tmp_path):
  for name, lines in FILES.items():
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(''.join(json.dumps(line) + '\n' for line in lines))
  (tmp_path / 'piqa' / 'valid-labels.lst').write_text('1\n')
  return tmp_path


def run(folder, name, data, /, **axes):
  with mesh_of(**axes):
    model, tokenizer = gptjax.load(folder)
    task = suite.ALL_TASKS[name]
    return task.evaluate(make_evaluated_model(model, tokenizer, 4),
                         task.read(sources.DataOptions(str(data), '', 0)))


def test_hellaswag_as_llmc_scores_it(folder, data):
  found, judge = run(folder, 'hellaswag_llmc', data), Judge(folder)
  for example, record in zip(found.examples, HELLASWAG, strict=True):
    context, losses = judge.encode(record['ctx']), []
    for ending in record['endings']:
      ids = judge.encode(' ' + ending)
      log_probs = judge.log_probs(context + ids, len(ids))[np.arange(len(ids)), ids]
      losses.append((-log_probs.mean(), -log_probs.sum()))
    mean, total = (int(np.argmin(values)) for values in zip(*losses))
    assert (example['correct'], example['correct_sum']) == (mean == record['label'], total == record['label'])


@pytest.mark.parametrize('task, questions', [
  ('hellaswag_harness', [
    ('Roof work: A man is on a roof. He', ['She ran away.', ' He stays here.', *ENDINGS[2:]], 2),
    ('Home: How to sing. Stand up. Breathe.', [*ENDINGS[:1:-1], ' He stays here.', ENDINGS[0]], 0)]),
  ('arc_easy_harness', [('Question: What is red?\nAnswer:', ['a fox', 'the old king', 'rain'], 1)]),
  ('piqa_harness', [('Question: open a door\nAnswer:', ['push it', 'sing to it all day'], 1)]),
  ('boolq_harness', [('The house is old.\nQuestion: is it old?\nAnswer:', ['no', 'yes'], 1)])])
def test_tasks_as_the_harness_scores_them(folder, data, task, questions):
  found, judge = run(folder, task, data), Judge(folder)
  for example, (before, choices, gold) in zip(found.examples, questions, strict=False):
    assert example['text'] == f'{before} {choices[gold]}'
    sums = [judge.continuation(before, f' {choice}')[0].sum() for choice in choices]
    lengths = [len(choice) for choice in choices]
    assert example['correct'] == (np.argmax(sums) == gold)
    assert example['correct_norm'] == (np.argmax(np.array(sums) / lengths) == gold)


def test_white_space_at_the_end_of_a_question_is_scored_with_the_choice(folder):
  with mesh_of():
    model, tokenizer = gptjax.load(folder)
    requests = []
    def keep(name, digests):
      return no_journal(name, requests.append(digests))
    evaluated = make_evaluated_model(model, tokenizer, 4)._replace(journal_part=keep)
    for before, choices in (('A man is', ('  here', '  gone')), ('A man is ', (' here', ' gone'))):
      multiple_choice.evaluate_harness(evaluated, [multiple_choice.Question(before, choices, 0)])
  assert requests[0] == requests[1]


def test_an_ending_without_tokens_is_not_the_answer(folder, data):
  with mesh_of():
    model, tokenizer = gptjax.load(folder)
    question = multiple_choice.Question('A man is', ('', ' here'), 1)
    found = multiple_choice.evaluate_llmc(make_evaluated_model(model, tokenizer, 4), [question])
  assert found.metrics['accuracy'] == 1


def test_blimp_compares_whole_sentences(folder, data):
  found, judge = run(folder, 'blimp_harness', data), Judge(folder)
  pairs = [*FILES['blimp/one.jsonl'], *FILES['blimp/two.jsonl']]
  wanted = [judge.whole(f' {pair["sentence_good"]}') > judge.whole(f' {pair["sentence_bad"]}')
            for pair in pairs]
  assert [example['correct'] for example in found.examples] == wanted
  assert [row[:2] for row in found.rows[1:]] == [['one', 2], ['two', 1]]


def test_marks_of_wikihow_are_removed():
  marked = ' [header] How to [title] Go.  Stop [step] now '
  assert multiple_choice.without_marks(marked) == ' How to. Go. Stop now'


def test_answers_that_do_not_fit_are_refused(data):
  read = lambda name: suite.ALL_TASKS[name].read(sources.DataOptions(str(data), '', 0))
  (data / 'piqa' / 'valid-labels.lst').write_text('1\n0\n')
  with pytest.raises(InputError, match='must have 0 or 1 for each of the 1 lines of valid'):
    read('piqa_harness')
  path = data / 'ARC-Easy-Test.jsonl'
  path.write_text(path.read_text().replace('"answerKey": "2"', '"answerKey": "B"'))
  with pytest.raises(InputError, match="question 1: answerKey = 'B' must be one of 1, 2, 3"):
    read('arc_easy_harness')
