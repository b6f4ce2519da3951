"""HellaSwag as llm.c and lm-evaluation-harness score it; ARC, PIQA, BoolQ and BLiMP without examples.

The published figures of HellaSwag differ by what is scored: for the released 124M weights llm.c has 0.2955,
the harness 0.2892 (acc) and 0.3114 (acc_norm). So each task is named after its scorer:

  llmc     context and ending are encoded apart, without an end-of-text token; the ending with the lowest mean
           loss (`accuracy`; by the sum: `accuracy_sum`).
  harness  the harness's text; the choice with the largest log p (`accuracy`, its acc), or the largest per
           character (`accuracy_norm`, its acc_norm) or byte (`accuracy_bytes`, its acc_bytes) of the choice.
"""

import functools
import math
import re
from typing import NamedTuple

import numpy as np

from gptjax.errors import InputError
from gptjax.evaluate.core.types import mean_loss
from gptjax.evaluate.scoring.evaluated_model import Task, TaskResult, make_request, truncate_request
from gptjax.evaluate.scoring.scores import Request
from gptjax.evaluate.scoring.shared_prefix import score_groups
from gptjax.evaluate.texts import schema, sources

_MARK = re.compile(r'\[.*?\]')
TEXT, ANY_TEXT = schema.text(), schema.text(blank=True)
TRUE_OR_FALSE = schema.Kind(lambda value: None if isinstance(value, bool) else schema.Fault(
  '', value, 'true or false'))
HELLASWAG = schema.Schema('examples', {
  'activity_label': ANY_TEXT, 'ctx_a': ANY_TEXT, 'ctx_b': ANY_TEXT, 'ctx': TEXT,
  'endings': schema.list_of(ANY_TEXT, 4, 4), 'label': schema.integer(0, 3)}, count=10_042)
ARC = schema.Schema('questions', {'question': schema.record({
  'stem': TEXT, 'choices': schema.list_of(schema.record({'text': TEXT, 'label': TEXT}), 2)}),
  'answerKey': TEXT})
PIQA = schema.Schema('goals', {'goal': TEXT, 'sol1': ANY_TEXT, 'sol2': ANY_TEXT}, count=1838)
BOOLQ = schema.Schema('questions', {'question': TEXT, 'passage': TEXT, 'answer': TRUE_OR_FALSE}, count=3270)
BLIMP = schema.Schema('pairs', {'sentence_good': TEXT, 'sentence_bad': TEXT})
BLIMP_FILES = 67  # of 1,000 pairs each


class Question(NamedTuple):
  """A question with several choices.

  before: the text before each choice.
  choices: texts, with the space before them.
  gold: index of the correct one.
  kind: the group of the question in the table of results; '' for none.
  """
  before: str
  choices: tuple
  gold: int
  kind: str = ''


def read_hellaswag(convert, data):
  """Return [Question] of HellaSwag's validation set, each made from a record by `convert`."""
  path = _require(data, 'HellaSwag', 'https://github.com/rowanz/hellaswag', 'hellaswag_val.jsonl')
  return data.limited([Question(*convert(record), record['label'])
                       for record in sources.read_jsonl(data, path, HELLASWAG)])


def llmc_text(record):
  """(context, endings) of a record of HellaSwag, as llm.c scores them."""
  return record['ctx'], tuple(f' {ending}' for ending in record['endings'])


def harness_text(record):
  """(context, endings) of a record of HellaSwag, as the harness scores them.

  Activity and context, the second part of which is capitalized; WikiHow's marks in brackets are removed.
  """
  context = f'{record["activity_label"]}: {record["ctx_a"]} {record["ctx_b"].capitalize()}'
  return without_marks(context), tuple(f' {without_marks(ending)}' for ending in record['endings'])


def without_marks(text):
  """Return a text of WikiHow without [title], [step] and the like."""
  lines = [line.rpartition(']') for line in text.strip().replace(' [title]', '. ').split('\n')]
  # Before the last "]" of a line each "[" has its end, so the search takes linear time.
  text = '\n'.join(_MARK.sub('', before + bracket) + after for before, bracket, after in lines)
  return text.replace('  ', ' ')


def read_arc(name, data):
  """Return [Question] of a test set of ARC, 'Easy' or 'Challenge'."""
  path = _require(data, f'ARC ({name})', 'https://allenai.org/data/arc', f'ARC-{name}-Test.jsonl')
  questions = []
  for number, record in enumerate(sources.read_jsonl(data, path, ARC), 1):
    labels = [choice['label'] for choice in record['question']['choices']]
    if record['answerKey'] not in labels:
      raise InputError(f'{path}: question {number}: answerKey = {record["answerKey"]!r} must be one of '
                       f'{", ".join(labels)}')
    choices = tuple(f' {choice["text"]}' for choice in record['question']['choices'])
    questions.append(Question(f'Question: {record["question"]["stem"]}\nAnswer:', choices,
                              labels.index(record['answerKey'])))
  return data.limited(questions)


def read_piqa(data):
  """Return [Question] of PIQA's validation set."""
  url, names = 'https://yonatanbisk.com/piqa/', ('piqa/valid.jsonl', 'piqa/valid-labels.lst')
  path, labels_path = (_require(data, 'PIQA', url, name) for name in names)
  records, labels = sources.read_jsonl(data, path, PIQA), sources.read_text(labels_path, data.note).split()
  if len(records) != len(labels) or set(labels) - {'0', '1'}:
    raise InputError(f'{labels_path} must have 0 or 1 for each of the {len(records):,} lines of {path.name}')
  return data.limited([Question(f'Question: {record["goal"]}\nAnswer:',
                                (f' {record["sol1"]}', f' {record["sol2"]}'), int(label))
                       for record, label in zip(records, labels, strict=True)])


def read_boolq(data):
  """Return [Question] of BoolQ's development set."""
  path = _require(data, 'BoolQ', 'https://github.com/google-research-datasets/boolean-questions',
                  'boolq/dev.jsonl')
  return data.limited([Question(f'{record["passage"]}\nQuestion: {record["question"]}?\nAnswer:',
                                (' no', ' yes'), int(record['answer']))
                       for record in sources.read_jsonl(data, path, BOOLQ)])


def read_blimp(data):
  """Return [Question] of BLiMP: pairs of sentences, of which the first is grammatical.

  Each follows a space, as in the versions 0.4 of the harness; later ones leave it out.

  A limit applies to each of the 67 files.
  """
  files = sources.find_files(data, 'blimp/*.jsonl')
  if not files:
    raise sources.NotRun(sources.not_found_message('BLiMP', 'https://github.com/alexwarstadt/blimp',
                                                   'blimp/*.jsonl'))
  if len(files) != BLIMP_FILES:
    data.note(f'{len(files)} files, the published set has {BLIMP_FILES}: results are not comparable with '
              'published ones')
  return [Question('', (f' {record["sentence_good"]}', f' {record["sentence_bad"]}'), 0, path.stem)
          for path in files for record in data.limited(sources.read_jsonl(data, path, BLIMP))]


def _require(data, title, url, name):
  path = sources.find_file(data, name)
  if path is None:
    raise sources.NotRun(sources.not_found_message(title, url, name))
  return path


def evaluate_llmc(evaluated, questions):
  """Return the TaskResult of llm.c's scorer."""
  encode = lambda text: np.asarray(evaluated.tokenizer.encode(text), np.int32)
  def request(before, choice):
    before = encode(before)
    return truncate_request(Request(np.concatenate([before, encode(choice)]), len(before)),
                            evaluated.model.n_ctx)
  spans = _score(evaluated, 'llm.c', request, questions)
  scores = {'accuracy': [[-mean_loss(span) if span.n else -math.inf for span in own] for own in spans],
            'accuracy_sum': [[span.log_prob for span in own] for own in spans]}
  return _result(questions, scores, 'As llm.c: context, a space and the ending, without an end-of-text '
                 'token; the ending with the lowest mean loss is the answer. accuracy_sum: by the sum.')


def evaluate_harness(evaluated, questions):
  """Return the TaskResult of the harness's scorer."""
  def request(before, choice):
    text = before.rstrip()  # white space at the end of a question is scored with the choice, as there
    return make_request(evaluated, text, before[len(text):] + choice)
  spans = _score(evaluated, 'harness', request, questions)
  per = lambda length: [[span.log_prob / max(1, length(choice.removeprefix(' ')))
                         for span, choice in zip(own, question.choices, strict=True)]
                        for own, question in zip(spans, questions, strict=True)]
  scores = {'accuracy': per(lambda choice: 1), 'accuracy_norm': per(len),
            'accuracy_bytes': per(lambda choice: len(choice.encode()))}
  return _result(questions, scores, 'As lm-evaluation-harness, without examples: log p of each choice after '
                 'the question, the largest is the answer (acc). accuracy_norm: divided by the characters of '
                 "the choice (acc_norm); accuracy_bytes: by its UTF-8 bytes (acc_bytes).")


def _score(evaluated, name, request, questions):
  """[[Span of each choice] of each question]; `request` makes a Request of (text before, choice)."""
  return score_groups(evaluated, name, [[request(question.before, choice) for choice in question.choices]
                                        for question in questions])


def _result(questions, scores, protocol):
  """The TaskResult for {metric: [[score of each choice, the largest is the answer] of each question]}."""
  correct = {metric: [own.index(max(own)) == question.gold
                      for own, question in zip(values, questions, strict=True)]
             for metric, values in scores.items()}
  metrics = {metric: sum(right) / len(questions) for metric, right in correct.items()}
  metrics |= {'correct': sum(correct['accuracy']), 'examples': len(questions)}
  fields = {metric.replace('accuracy', 'correct'): right for metric, right in correct.items()}
  examples = tuple({'text': question.before + question.choices[question.gold],
                    **{name: right[i] for name, right in fields.items()}}
                   for i, question in enumerate(questions))
  prompt = questions[0].before + questions[0].choices[0]
  return TaskResult(metrics, f'{protocol} A prompt:\n{prompt}', rows=_by_kind(questions, correct['accuracy']),
                    examples=examples)


def _by_kind(questions, correct):
  """A table of the accuracy by the kind of a question; () if there are no kinds."""
  kinds = {}
  for question, right in zip(questions, correct, strict=True):
    kinds.setdefault(question.kind, []).append(right)
  if set(kinds) == {''}:
    return ()
  return (['kind', 'examples', 'accuracy, %'],
          *([kind, len(own), 100 * sum(own) / len(own)] for kind, own in kinds.items()))


TASKS = (
  Task('hellaswag_llmc', 'HellaSwag, llm.c', functools.partial(read_hellaswag, llmc_text), evaluate_llmc),
  Task('hellaswag_harness', 'HellaSwag, lm-evaluation-harness',
       functools.partial(read_hellaswag, harness_text), evaluate_harness),
  Task('arc_easy_harness', 'ARC easy, lm-evaluation-harness', functools.partial(read_arc, 'Easy'),
       evaluate_harness),
  Task('arc_challenge_harness', 'ARC challenge, lm-evaluation-harness',
       functools.partial(read_arc, 'Challenge'), evaluate_harness),
  Task('piqa_harness', 'PIQA, lm-evaluation-harness', read_piqa, evaluate_harness),
  Task('boolq_harness', 'BoolQ, lm-evaluation-harness', read_boolq, evaluate_harness),
  Task('blimp_harness', 'BLiMP, lm-evaluation-harness', read_blimp, evaluate_harness))
