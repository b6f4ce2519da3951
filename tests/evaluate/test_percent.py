"""What is a fraction in files and in per cent in tables."""

import pytest

from gptjax.evaluate import paper, percent, table
from gptjax.evaluate.scoring import overlap_scores

FRACTIONS = ('accuracy', 'accuracy/m', 'test/accuracy/all', 'accuracy_last_word_filtered', 'f1', 'f1_news',
             'ceiling_accuracy_last_word', 'exact_match', 'exact_match_confident', 'exact_match_baseline',
             'matthews', 'pearson', 'spearman', 'eval/cola/matthews')
OTHERS = ('perplexity', 'perplexity_last_token', 'bits_per_byte', 'nats_per_token', 'bleu', 'rouge_1',
          'rouge_mean_no_hint', 'threshold', 'relative', 'word', 'byte', 'token', 'examples', 'score')


@pytest.mark.parametrize('metric', FRACTIONS)
def test_fractions_are_shown_in_per_cent(metric):
  assert percent.to_display(metric, 0.25) == 25 and percent.to_display(metric, 1) == 100
  assert percent.to_display(metric, None) is None


@pytest.mark.parametrize('metric', OTHERS)
def test_other_scales_are_shown_as_they_are(metric):
  assert percent.to_display(metric, 0.25) == 0.25 and percent.to_display(metric, 7) == 7


def test_what_is_correct_is_a_count_or_a_share():
  assert percent.to_display('correct', 7) == 7 and percent.to_display('correct_full', 0.5) == 50


def test_the_papers_figures_are_on_the_scale_that_is_printed():
  for one in paper.PAPER_RESULTS:
    assert (one.scale == 100) == (one.metric in FRACTIONS or 'accuracy' in one.metric), one
  assert {one.scale for one in paper.REPRODUCTIONS if 'accuracy' in one.protocol} == {100}
  assert {one.scale for one in paper.REPRODUCTIONS if 'accuracy' not in one.protocol} == {1}


RESULTS = {
  'model': {'name': 'm', 'n_layer': 2, 'n_embd': 8, 'n_ctx': 16, 'parameters': 9, 'compute_dtype': 'float32'},
  'limit': 0, 'not_run': {}, 'rows': {}, 'protocols': {},
  'tasks': {'cola': {'matthews': 0.0647, 'threshold': -5.5, 'examples': 200}, 'sst2': {'accuracy': 0.545},
            'winograd': {'accuracy_partial': 0.505, 'accuracy_full': 0.25}},
  'grids': {'lambada': [{'text': 'raw', 'stride': None, 'unit': unit, 'value': value, 'paper': value < 0.2}
                        for unit, value in (('accuracy_last_word', 0.125), ('perplexity', 0.5))]}}


def test_all_tables_of_an_evaluation_are_in_per_cent():
  made = table.markdown(RESULTS)
  for shown in ('| matthews 6.47, threshold -5.5, examples 200 |', '| accuracy 54.5 |', '| **12.5** | 0.5 |',
                '| Winograd, accuracy (partial) | 50.5 |', percent.PERCENT_NOTE):
    assert shown in made, made
  by = [{'bucket': 'all', 'examples': 2, 'correct': 0.5, 'f1': 0.25, 'perplexity': 3.5}]
  assert overlap_scores.table('coqa', by).split('\n')[1].split() == ['all', '2', '50', '25', '3.5']


@pytest.mark.parametrize('limit, limits, says', [
  (0, {}, ''), (3, {}, 'the first 3 examples of each task'), (1, {}, 'the first 1 example of each task'),
  (0, {'cola': 5}, 'the first examples of some tasks (5 of cola)'),
  (0, {'cola': 5, 'sst2': 5, 'winograd': 5}, 'the first 5 examples of each task'),
  (9, {'cola': 0, 'sst2': 5}, 'the first examples of some tasks (5 of sst2, 9 of winograd)')])
def test_which_examples_were_taken_is_said_by_task(limit, limits, says):
  results = {**RESULTS, 'limit': limit, 'limits': limits}
  assert table.describe_limit(results) == says and ('Only' in table.markdown(results)) == bool(says)
