"""Natural Questions' baseline: the most common answer to questions of the same type (GPT-2 paper, 3.8).

The paper names the types "who, what, where, etc." and gives 1.0 % for the baseline. Chosen here: the type of
a question is the first of `QUESTION_WORDS` in it (with "how many" and "how much" apart from "how"), else
`OTHER`; alternative answers of a question count once each, and answers are counted as they are compared,
normalised.
"""

import collections
import re

from gptjax.evaluate.scoring.answers import normalize
from gptjax.evaluate.texts import schema, sources

FILES, TFDS = ('nq_open_train.jsonl', 'NQ-open.train.jsonl'), 'natural_questions_open'
TRAINING = schema.Schema('questions', {
  'question': schema.text(), 'answer': schema.list_of(schema.text())}, count=87_925)
QUESTION_WORDS = ('who', 'whose', 'whom', 'what', 'where', 'when', 'which', 'why', 'how many', 'how much',
                  'how')
OTHER = 'other'
_TYPE = re.compile(rf'\b({"|".join(QUESTION_WORDS)})\b')


def read(data):
  """Return {type of question: its most common answer} of the training questions; {} if they are not there.

  All training questions are read, also with a limit.

  Args:
    data: sources.DataOptions.
  """
  everything = data._replace(limit=0)
  path = sources.find_file(data, *FILES)
  records = (sources.read_jsonl(everything, path, TRAINING) if path else
             sources.read_tfds(everything, TFDS, 'train', TRAINING))
  return most_common((record['question'], record['answer']) for record in records or ())


def question_type(question):
  """Return the type of a question: one of QUESTION_WORDS or OTHER."""
  match = _TYPE.search(question.lower())
  return match[1] if match else OTHER


def most_common(questions):
  """Return {type: answer} of (question, [answers]); of equally common ones the first to be seen.

  The type OTHER has the most common answer of all questions if none of them is of that type.
  """
  counts, spelling = collections.defaultdict(collections.Counter), {}
  for question, answers in questions:
    for key in dict.fromkeys(map(normalize, answers)):
      spelling.setdefault(key, next(answer for answer in answers if normalize(answer) == key))
      counts[question_type(question)][key] += 1
  if counts and OTHER not in counts:
    counts[OTHER] = sum(counts.values(), collections.Counter())
  return {kind: spelling[counter.most_common(1)[0][0]] for kind, counter in counts.items()}


def answer(common, question):
  """Return the answer of the baseline to a question: that of its type, else of OTHER."""
  return common.get(question_type(question), common[OTHER])
