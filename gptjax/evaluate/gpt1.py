"""GPT-1's zero-shot heuristics as tasks (GPT-1 paper, section 5 and Figure 2)."""

import re

import numpy as np

from gptjax.evaluate import heuristics, scoring, sources
from gptjax.evaluate.scoring import Request
from gptjax.evaluate.sources import NotRun
from gptjax.evaluate.subject import Found, Task


def _tfds(data, title, name, split):
  records = sources.from_tfds(data, name, split)
  if records is None:
    raise NotRun(sources.where(title, '', tfds=name))
  return records


def _asked(subject):
  """(score, encode, start) as `heuristics` wants them; sequences that are too long lose their beginning."""
  n_ctx, end = subject.model.n_ctx, subject.tokenizer.end_of_text

  def score(sequences):
    requests = [Request(ids[-n_ctx - 1:], 1) for ids in sequences]
    return scoring.scores(subject.model, requests, subject.batch_size, made=lambda log_probs, *_: log_probs,
                          pulse=subject.pulse, name='heuristic', show=subject.show)
  return score, subject.tokenizer.encode, () if end is None else (end,)


def _found(task, protocol, metrics, value, texts, right):
  """Found, with how far from chance (0) to the then state of the art (1) the value in per cent is."""
  return Found({**metrics, 'relative': heuristics.relative(task, 100 * value), 'examples': len(texts)}, protocol,
               examples=tuple({'text': text, 'correct': bool(hit)} for text, hit in zip(texts, right)))


def read_cola(data):
  """{'train', 'validation'}: [(sentence, whether acceptable)]."""
  return {split: [(one['sentence'], one['label']) for one in _tfds(data, 'CoLA', 'glue/cola', split)]
          for split in ('train', 'validation')}


def evaluate_cola(subject, found):
  score, encode, start = _asked(subject)
  values, labels = {}, {}
  for split, examples in found.items():
    values[split] = heuristics.acceptability(score, encode, [sentence for sentence, _ in examples], start)
    labels[split] = np.array([label for _, label in examples])
  cut = heuristics.threshold(values['train'], labels['train'])
  said, truth = values['validation'] > cut, labels['validation'] == 1
  tp, tn, fp, fn = ((said & truth).sum(), (~said & ~truth).sum(), (said & ~truth).sum(), (~said & truth).sum())
  below = float(np.sqrt(float(tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)))
  matthews = float(float(tp) * tn - float(fp) * fn) / below if below else 0.0
  return _found('acceptability', 'Mean token log-probability of the sentence above a threshold, which is the best '
                'one for the training set.', {'matthews': matthews, 'threshold': float(cut)}, matthews,
                [sentence for sentence, _ in found['validation']], said == truth)


def read_sst2(data):
  """[(sentence, whether positive)]."""
  return [(one['sentence'], one['label']) for one in _tfds(data, 'SST-2', 'glue/sst2', 'validation')]


def evaluate_sst2(subject, examples):
  texts = [text for text, _ in examples]
  right = heuristics.sentiment(*_asked(subject)[:2], texts, _asked(subject)[2]) == [one for _, one in examples]
  return _found('sentiment', 'The token "very" after the sentence; " positive" or " negative" is likelier then.',
                {'accuracy': float(right.mean())}, right.mean(), texts, right)


def read_race(data):
  """[(document, question, [answer], which one is right)] of the development sets, middle and high."""
  return data.some([
    (one['article'], question, options, 'ABCD'.index(answer))
    for level in ('middle', 'high') for one in _tfds(data, 'RACE', f'race/{level}', 'dev')
    for question, options, answer in zip(one['questions'], one['options'], one['answers'])])


def evaluate_race(subject, examples):
  score, encode, start = _asked(subject)
  chosen = heuristics.question_answering(score, encode, [item[:3] for item in examples], subject.model.n_ctx,
                                         start)
  right = chosen == [answer for *_, answer in examples]
  return _found('question answering', 'The answer of the highest mean token log-probability after document and '
                'question.', {'accuracy': float(right.mean())}, right.mean(),
                [f'{document} {question}' for document, question, *_ in examples], right)


def read_dprd(data):
  """[(text before the pronoun, two referents, text after it, which one is meant)] of the test set."""
  found = []
  for one in _tfds(data, 'definite pronoun resolution', 'definite_pronoun_resolution', 'test'):
    *_, place = re.finditer(rf'\b{re.escape(one["pronoun"])}\b', one['sentence'])
    found.append((one['sentence'][:place.start()], one['candidates'], one['sentence'][place.end():],
                  one['label']))
  return found


def evaluate_dprd(subject, examples):
  score, encode, start = _asked(subject)
  right = heuristics.winograd(score, encode, [item[:3] for item in examples], start) == [
    answer for *_, answer in examples]
  return _found('winograd', 'Each referent in the place of the pronoun; the rest of the sentence has the higher mean '
                'token log-probability after the one that is meant.', {'accuracy': float(right.mean())},
                right.mean(), [before + after for before, _, after, _ in examples], right)


TASKS = (Task('cola', 'CoLA by GPT-1\'s heuristic', read_cola, evaluate_cola),
         Task('sst2', 'SST-2 by GPT-1\'s heuristic', read_sst2, evaluate_sst2),
         Task('race', 'RACE by GPT-1\'s heuristic', read_race, evaluate_race),
         Task('dprd', 'Pronouns by GPT-1\'s heuristic', read_dprd, evaluate_dprd))
