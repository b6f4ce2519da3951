"""GPT-1's zero-shot heuristics as tasks (GPT-1 paper, section 5); Figure 2 uses the same tasks."""

import numpy as np

from gptjax.evaluate.scoring import scores
from gptjax.evaluate.scoring.evaluated_model import Task, TaskResult
from gptjax.evaluate.scoring.scores import Request
from gptjax.evaluate.tasks import heuristics, pronouns
from gptjax.evaluate.texts import schema as layout
from gptjax.evaluate.texts import sources
from gptjax.evaluate.texts.sources import NotRun

COLA = ('Mean token log-probability of the sentence above a threshold: the best one for {:,} sentences of '
        'the training set (the paper does not say how it chooses one).')
SST2 = 'The token "very" after the sentence; whether " positive" or " negative" is more likely next.'
RACE = 'The answer of the highest mean token log-probability after document and question.'
DPRD = ('Each referent replaces the pronoun, the first one in the clause after the conjunction, '
        "with 's if it is possessive; the answer is the referent after which the rest of the sentence has "
        'the higher mean token log-probability.')


CLASS, NAME = layout.integer(0, 1), layout.text(max_length=pronouns.MAX_LENGTH)
RACE_FIELDS = {'article': layout.text(), 'questions': layout.list_of(layout.text(blank=True)),
               'options': layout.list_of(layout.list_of(layout.text(blank=True), 4, 4)),
               'answers': layout.list_of(layout.one_of(*'ABCD'))}
SCHEMAS = {  # of TFDS sets; RACE has empty options
  'glue/cola': layout.Schema('sentences', {'sentence': layout.text(), 'label': CLASS}),
  'glue/sst2': layout.Schema('sentences', {'sentence': layout.text(), 'label': CLASS}),
  'race/middle': layout.Schema('articles', RACE_FIELDS), 'race/high': layout.Schema('articles', RACE_FIELDS),
  'definite_pronoun_resolution': layout.Schema('sentences', {
    'sentence': layout.text(), 'pronoun': NAME, 'candidates': layout.list_of(NAME, 2, 2), 'label': CLASS})}


def _tfds(data, name, split):
  records = sources.read_tfds(data, name, split, SCHEMAS[name])
  if records is None:
    raise NotRun(sources.not_found_message(name, '', tfds=name))
  return records


def heuristic_inputs(evaluated):
  """Return (score, encode, start) for `heuristics`; sequences that are too long are truncated on the left."""
  n_ctx, first = evaluated.model.n_ctx, evaluated.tokenizer.start_of_text

  def score(sequences):
    requests = [Request(ids[-n_ctx - 1:], 1) for ids in sequences]
    return scores.score_requests(evaluated.model, requests, evaluated.batch_size,
                                 make_result=lambda log_probs, *_: log_probs,
                                 after_batch=evaluated.after_batch, name='heuristic',
                                 show_progress=evaluated.show_progress)
  return score, evaluated.tokenizer.encode, () if first is None else (first,)


def _task_result(scale, protocol, texts, correct, metrics):
  """Return the TaskResult; `relative` scales the first metric from chance (0) to the earlier best (1)."""
  value = 100 * next(iter(metrics.values()))
  metrics |= {'relative': heuristics.relative_performance(scale, value), 'examples': len(texts)}
  return TaskResult(metrics, protocol, examples=tuple(
    {'text': text, 'correct': bool(hit)} for text, hit in zip(texts, correct)))


def read_cola(data):
  """Return {'train', 'validation'}: [(sentence, whether it is acceptable)]."""
  return {split: [(record['sentence'], record['label']) for record in _tfds(data, 'glue/cola', split)]
          for split in ('train', 'validation')}


def evaluate_cola(evaluated, splits):
  """Return the TaskResult: Matthews correlation."""
  score, encode, start = heuristic_inputs(evaluated)
  values = {split: heuristics.acceptability(score, encode, [sentence for sentence, _ in examples], start)
            for split, examples in splits.items()}
  labels = {split: np.array([label for _, label in examples]) for split, examples in splits.items()}
  threshold = heuristics.threshold(values['train'], labels['train'])
  predictions, targets = values['validation'] > threshold, labels['validation']
  deviations = predictions.std() * targets.std()  # Matthews' is the correlation of two lists of 0 and 1
  covariance = (predictions * targets).mean() - predictions.mean() * targets.mean()
  matthews = covariance / deviations if deviations else 0.0
  return _task_result('acceptability', COLA.format(len(values['train'])),
                      [text for text, _ in splits['validation']],
                      predictions == targets, {'matthews': float(matthews), 'threshold': float(threshold)})


def read_sst2(data):
  """Return [(sentence, whether it is positive)]."""
  return [(record['sentence'], record['label']) for record in _tfds(data, 'glue/sst2', 'validation')]


def evaluate_sst2(evaluated, examples):
  """Return the TaskResult: accuracy."""
  score, encode, start = heuristic_inputs(evaluated)
  texts = [text for text, _ in examples]
  correct = heuristics.sentiment(score, encode, texts, start) == [label for _, label in examples]
  return _task_result('sentiment', SST2, texts, correct, {'accuracy': float(correct.mean())})


def read_race(data):
  """Return [(document, question, [answer], correct index)] of the development sets, middle and high."""
  return data.limited([(record['article'], question, options, 'ABCD'.index(answer))
                       for level in ('middle', 'high') for record in _tfds(data, f'race/{level}', 'dev')
                       for question, options, answer in zip(
                         record['questions'], record['options'], record['answers'])])


def evaluate_race(evaluated, examples):
  """Return the TaskResult: accuracy."""
  score, encode, start = heuristic_inputs(evaluated)
  correct = heuristics.question_answering(score, encode, [item[:3] for item in examples],
                                          evaluated.model.n_ctx, start) == [answer for *_, answer in examples]
  texts = [f'{document} {question}' for document, question, *_ in examples]
  return _task_result('question answering', RACE, texts, correct, {'accuracy': float(correct.mean())})


def read_dprd(data):
  """Return [(sentence, (before, referents, after), index of the referent)] of the test set.

  The triple is that of `pronouns.substitute_candidates`; None where the pronoun is not in the sentence.
  """
  examples = []
  for record in _tfds(data, 'definite_pronoun_resolution', 'test'):
    span = pronouns.find_pronoun(record['sentence'], record['pronoun'], record['candidates'])
    parts = pronouns.substitute_candidates(record['sentence'], span, record['candidates']) if span else None
    examples.append((record['sentence'], parts, record['label']))
  return examples


def evaluate_dprd(evaluated, examples):
  """Return the TaskResult: accuracy, and the number of sentences skipped because they lack the pronoun."""
  score, encode, start = heuristic_inputs(evaluated)
  usable = [example for example in examples if example[1] is not None]
  if not usable:
    raise NotRun('the Definite Pronoun Resolution set has no sentence with its pronoun')
  correct = heuristics.winograd(score, encode, [parts for _, parts, _ in usable], start) == [
    answer for *_, answer in usable]
  left_out = {'left_out': len(examples) - len(usable)} if len(usable) < len(examples) else {}
  return _task_result('winograd', DPRD, [text for text, *_ in usable], correct,
                      {'accuracy': float(correct.mean()), **left_out})


TASKS = (Task('cola', "CoLA by GPT-1's heuristic", read_cola, evaluate_cola),
         Task('sst2', "SST-2 by GPT-1's heuristic", read_sst2, evaluate_sst2),
         Task('race', "RACE by GPT-1's heuristic", read_race, evaluate_race),
         Task('dprd', "Definite pronouns by GPT-1's heuristic", read_dprd, evaluate_dprd))
