"""Multiple choice by log-likelihood: Children's Book Test and Winograd schemas (GPT-2 paper, 3.2, 3.4)."""

import functools
import re
from typing import NamedTuple

from gptjax import domains
from gptjax.errors import InputError
from gptjax.evaluate.scoring.evaluated_model import Task, TaskResult, make_request, score_with_journal
from gptjax.evaluate.texts import schema as layout
from gptjax.evaluate.texts import sources
from gptjax.evaluate.texts.detokenize import BOOKS, PLAIN, detokenize

BLANK = 'XXXXX'
CBT_URL = 'https://www.thespermwhale.com/jaseweston/babi/CBTest.tgz'
STORY_SENTENCES, N_CANDIDATES = 20, 10  # sentences before a question, candidate words
CBT = layout.Schema('questions', {}, count=2000)
TEXT = layout.text()
WSC = layout.Schema('schemas', {  # wsc273.jsonl; a pronoun may begin the sentence
  'pre': layout.text(blank=True), 'pronoun': TEXT, 'post': TEXT, 'answers': layout.list_of(TEXT, 2, 2),
  'correct': layout.integer(0, 1)}, count=273)
WSC_TFDS = layout.Schema('schemas', {
  'text': TEXT, 'pronoun_text': TEXT, 'pronoun_start': layout.integer(0, 10**6),
  'pronoun_end': layout.integer(0, 10**6), 'option1': TEXT, 'option2': TEXT,
  'label': layout.integer(0, 1), 'idx': layout.integer(0, 10**6)}, count=273)
SENTENCE_END, PUNCTUATION = re.compile(r'[.?!]["\u201d]?$'), tuple(".,;:?!'")
POSSESSIVE = frozenset(('my', 'your', 'his', 'her', 'its', 'our', 'their'))
# First words of candidates that are lower case inside a sentence.
LOWERCASE_INSIDE = frozenset(('The', 'A', 'An', 'My', 'Your', 'His', 'Her', 'Its', 'Our', 'Their', 'He',
                              'She', 'It', 'We', 'They', 'You'))


class Cloze(NamedTuple):
  """A question of the Children's Book Test.

  story: the twenty sentences before the question.
  question: sentence with XXXXX in place of a word.
  candidates: ten words.
  answer: the correct candidate.
  """
  story: tuple
  question: str
  candidates: tuple
  answer: str


def read_cbt(kind, data):
  """Return [Cloze] of the validation set, which the paper reports (WebText has a book of the test set)."""
  name = f'cbtest_{kind}_valid_2000ex.txt'
  path = sources.find_file(data, f'CBTest/data/{name}', name)
  if not path:
    raise sources.NotRun(sources.not_found_message(f"the Children's Book Test ({kind})", CBT_URL,
                                                   f'CBTest/data/{name}'))
  questions = parse_cbt(sources.read_text(path, data.note), path)
  layout.check_count(CBT, len(questions), 0, path, data.note)
  n_odd = sum(len(question.candidates) != N_CANDIDATES for question in questions)
  if n_odd:
    data.note(f'{path}: questions that do not have {N_CANDIDATES} candidates: {n_odd:,}')
  return data.limited(questions)


def parse_cbt(text, path):
  """Return [Cloze] of a published file: numbered lines, every 21st with TAB answer TAB TAB candidates.

  Raises:
    InputError: a line is out of order or is not a question; the message has its number.
  """
  questions, story = [], []
  for number, line in enumerate(text.split('\n'), 1):
    if not line.strip():
      continue
    index, _, rest = line.partition(' ')
    question, tab, tail = rest.partition('\t')
    if index != str(len(story) + 1) or bool(tab) != (len(story) == STORY_SENTENCES):
      raise InputError(f'{path}:{number}: expected line {len(story) + 1} of a block, found '
                       f'{domains.format_value(line)}: lines 1 to {STORY_SENTENCES} are sentences, '
                       f'{STORY_SENTENCES + 1} is the question')
    if not tab:
      story.append(rest)
      continue
    answer, *_, candidates = tail.split('\t')
    candidates = tuple(candidates.strip().split('|'))
    if BLANK not in question or answer not in candidates or len(candidates) < 2:
      raise InputError(f'{path}:{number}: not a CBT question: it must contain {BLANK}, and its answer '
                       f'{answer!r} must be one of its candidates')
    questions.append(Cloze(tuple(story), question, candidates, answer))
    story = []
  if story:
    raise InputError(f'{path} ends after {len(story)} of {STORY_SENTENCES + 1} lines of a block: it is '
                     'truncated, get it again')
  return questions


def evaluate_cbt(name, evaluated, questions):
  """Return the TaskResult of one kind of question.

  Each candidate is scored with the rest of the sentence, given the story and the text before it.
  """
  forms = {'de-tokenized': BOOKS} | ({'raw': PLAIN} if evaluated.grid else {})
  chosen = {form: choose_candidates(f'{name} {form}', evaluated, questions, style)
            for form, style in forms.items()}
  n_correct = {form: sum(word == question.answer for word, question in zip(words, questions))
               for form, words in chosen.items()}
  cells = tuple({'text': form, 'stride': None, 'unit': 'accuracy', 'value': count / len(questions),
                 'paper': form == 'de-tokenized'} for form, count in n_correct.items())
  examples = tuple({'text': ' '.join((*question.story, question.question)), 'answer': question.answer,
                    'chosen': word, 'correct': word == question.answer}
                   for question, word in zip(questions, chosen['de-tokenized']))
  protocol = ('Validation set, de-tokenized; P(candidate and the rest of the sentence | story and the '
              'sentence up to it); the most likely of ten is the answer.')
  correct = n_correct['de-tokenized']
  metrics = {'accuracy': correct / len(questions), 'correct': correct, 'examples': len(questions)}
  return TaskResult(metrics, protocol, cells=cells, examples=examples)


def choose_candidates(name, evaluated, questions, style):
  """Return [the most likely candidate of each question]."""
  requests = [make_request(evaluated, *parts) for question in questions
              for parts in completions(question, style)]
  log_probs = iter([score.log_prob for score in score_with_journal(evaluated, name, requests)])
  chosen = []
  for question in questions:
    candidate_scores = [next(log_probs) for _ in question.candidates]
    chosen.append(question.candidates[candidate_scores.index(max(candidate_scores))])
  return chosen


def completions(question, style):
  """Return [(text before, candidate and the rest of the sentence)] for each candidate."""
  story = [detokenize(sentence, style) for sentence in question.story]
  before, _, after = detokenize(question.question, style).partition(BLANK)
  before = ' '.join([*story, before])
  space = ' ' * before.endswith(' ')
  return [(before.removesuffix(' '), space + detokenize(candidate, style) + after)
          for candidate in question.candidates]


class WinogradSchema(NamedTuple):
  """A Winograd schema: `before` PRONOUN `after`, two candidates, and the index of the correct one."""
  before: str
  pronoun: str
  after: str
  candidates: tuple
  answer: int


def read_winograd(data):
  """Return [WinogradSchema] of the 273 schemas."""
  path = sources.find_file(data, 'wsc273.jsonl')
  if path:
    records = sources.read_jsonl(data, path, WSC)
    return data.limited([WinogradSchema(record['pre'], record['pronoun'], record['post'],
                                        tuple(record['answers']), record['correct'])
                         for record in records])
  records = sources.read_tfds(data._replace(limit=0), 'wsc273', 'test', WSC_TFDS)
  if records is None:
    raise sources.NotRun(sources.not_found_message(
      'the Winograd Schema Challenge', 'https://cs.nyu.edu/~davise/papers/WinogradSchemas/WS.html',
      'wsc273.jsonl', tfds='wsc273'))
  records.sort(key=lambda record: record['idx'])  # TFDS stores them in another order
  return data.limited([WinogradSchema(record['text'][:record['pronoun_start']].rstrip(),
                                      record['pronoun_text'], record['text'][record['pronoun_end']:].lstrip(),
                                      (record['option1'], record['option2']),
                                      record['label']) for record in records])


def substitute_pronoun(schema, candidate):
  """Return (text before, the candidate in the form that replaces the pronoun, text after)."""
  first, _, rest = candidate.partition(' ')
  is_inside = schema.before and not SENTENCE_END.search(schema.before)
  if is_inside and first in LOWERCASE_INSIDE:
    candidate = f'{first.lower()} {rest}'.rstrip()
  elif not is_inside:
    candidate = candidate[:1].upper() + candidate[1:]
  if schema.pronoun.lower() in POSSESSIVE:
    candidate += "'s"
  space = '' if schema.after.startswith(PUNCTUATION) else ' '
  return schema.before, candidate, space + schema.after


def evaluate_winograd(evaluated, schemas):
  """Return the TaskResult: which candidate makes the sentence (full), or its rest (partial), more likely."""
  full, partial = [], []
  for schema in schemas:
    for candidate in schema.candidates:
      before, word, after = substitute_pronoun(schema, candidate)
      head = f'{before} {word}'.lstrip()
      full.append(make_request(evaluated, '', head + after))
      partial.append(make_request(evaluated, head, after))
  choices = {}
  for scoring, requests in (('full', full), ('partial', partial)):
    log_probs = [score.log_prob for score in score_with_journal(evaluated, f'winograd {scoring}', requests)]
    choices[scoring] = [int(log_probs[2 * i + 1] > log_probs[2 * i]) for i in range(len(schemas))]
  n_correct = {scoring: sum(a == s.answer for a, s in zip(chosen, schemas))
               for scoring, chosen in choices.items()}
  n = len(schemas)
  metrics = {**{f'accuracy_{scoring}': count / n for scoring, count in n_correct.items()},
             **{f'correct_{scoring}': count for scoring, count in n_correct.items()}, 'examples': n}
  examples = tuple({'text': f'{s.before} {s.pronoun} {s.after}', 'correct': choices['partial'][i] == s.answer,
                    'correct_full': choices['full'][i] == s.answer} for i, s in enumerate(schemas))
  protocol = ("Each candidate replaces the pronoun (Trinh & Le 2018), with 's if that is possessive; "
              'articles and pronouns are lower case inside a sentence. Full: P(sentence). Partial: '
              'P(text after the pronoun | text up to it).')
  return TaskResult(metrics, protocol, examples=examples)


def _cbt(kind, title):
  name = f'cbt_{kind.lower()}'
  return Task(name, title, functools.partial(read_cbt, kind), functools.partial(evaluate_cbt, name))


TASKS = (_cbt('CN', 'CBT common nouns'), _cbt('NE', 'CBT named entities'),
         Task('winograd', 'Winograd schemas', read_winograd, evaluate_winograd))
