"""The four input transformations and their truncation."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from gptjax.finetune.tasks import transforms

MARKS = transforms.task_tokens(1000)
S, D, E = MARKS
TEXT = st.lists(st.integers(0, 99), min_size=1, max_size=30).map(np.array)


def lists(*arguments, longest=100, answers=()):
  kind, *texts = arguments
  made, cut = transforms.make_sequences(kind, [np.array(t) for t in texts], [np.array(a) for a in answers],
                                        MARKS, longest)
  return [row.tolist() for row in made], cut


def test_as_the_paper_draws_them():
  assert MARKS == (1000, 1001, 1002)
  assert lists('classification', [1, 2]) == ([[S, 1, 2, E]], False)
  assert lists('entailment', [1, 2], [3]) == ([[S, 1, 2, D, 3, E]], False)
  assert lists('similarity', [1, 2], [3]) == ([[S, 1, 2, D, 3, E], [S, 3, D, 1, 2, E]], False)
  assert lists('choice', [1, 2], [3], answers=([4], [5, 6])) == (
    [[S, 1, 2, 3, D, 4, E], [S, 1, 2, 3, D, 5, 6, E]], False)
  assert lists('choice', [1, 2], answers=([4], [5])) == ([[S, 1, 2, D, 4, E], [S, 1, 2, D, 5, E]], False)


def test_truncation():
  assert lists('classification', [1, 2, 3, 4], longest=4) == ([[S, 1, 2, E]], True)
  assert lists('entailment', [1, 2, 3], [4, 5], longest=6) == ([[S, 1, D, 4, 5, E]], True)
  assert lists('similarity', [1, 2, 3, 4], [5], longest=6)[0][0] == [S, 1, 2, D, 5, E]
  assert lists('similarity', [1, 2, 3, 4], [5, 6, 7, 8], longest=7)[0][1] == [S, 5, 6, D, 1, 2, E]
  made, cut = lists('choice', [1, 2, 3], [4, 5], answers=([6], [7, 8]), longest=8)
  assert made == [[S, 1, 4, 5, D, 6, E], [S, 1, 4, 5, D, 7, 8, E]] and cut


@settings(max_examples=200, deadline=None)
@given(TEXT, TEXT, st.lists(TEXT, min_size=2, max_size=4), st.integers(8, 70),
       st.sampled_from(transforms.KINDS))
def test_hypotheses_answers_and_task_tokens_are_kept(a, b, answers, longest, kind):
  texts = [a] if kind == 'classification' else [a, b]
  made, cut = transforms.make_sequences(kind, texts, answers if kind == 'choice' else [], MARKS, longest)
  for k, row in enumerate(made):
    assert len(row) <= longest and row[0] == S and row[-1] == E and (row == E).sum() == 1
    assert (row == D).sum() == (kind != 'classification')
    if kind in ('entailment', 'choice'):
      kept = row[np.flatnonzero(row == D)[0] + 1:-1]
      wanted = b if kind == 'entailment' else answers[k]
      assert kept.tolist() == wanted[:longest - 3].tolist()
  if kind == 'choice':
    firsts = [row[:np.flatnonzero(row == D)[0]].tolist() for row in made]
    assert all(first == firsts[0] for first in firsts), 'all answers see the same document'
  lost = max(sum(map(len, texts)) + (len(answers[k]) if kind == 'choice' else 0)
             - int(np.isin(row, MARKS, invert=True).sum()) for k, row in enumerate(made))
  assert cut == (lost > 0)


def test_in_similarity_both_texts_keep_half():
  rows, _ = lists('similarity', list(range(50)), list(range(100, 180)), longest=43)
  assert len(rows[0]) == 43 and rows[0].index(D) == 21


def test_a_question_goes_on_with_its_document_after_a_space(shared_data):
  from types import SimpleNamespace

  from gptjax.data.tokenizers import loading
  from gptjax.finetune import data
  from gptjax.finetune.tasks import examples, published
  race = published.find('race')
  example = examples.Example(('They left at nine.', 'When did they leave?'),
                             ('at nine', 'no', 'yes', 'never'), 0, 0)
  for spec in 'gpt2', 'gpt1':
    tokenizer = loading.load(f'{spec}:{shared_data / "bpe" / spec}')
    config = SimpleNamespace(model=SimpleNamespace(n_vocab=tokenizer.n_vocab),
                             data=SimpleNamespace(seq_len=64, special_tokens=()))
    marks = transforms.task_tokens(tokenizer.n_vocab)
    made = data.encode_examples(race, [example], tokenizer, config, 0, '')
    row = np.asarray(made.tokens)[:int(made.lengths[0, 0])].tolist()
    given = tokenizer.encode('They left at nine. When did they leave?').tolist()
    assert row == [marks.start, *given, marks.delimiter, *tokenizer.encode('at nine').tolist(), marks.end]
