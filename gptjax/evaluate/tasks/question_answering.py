"""Question answering by generation: CoQA and Natural Questions (GPT-2 paper, 3.5 and 3.8)."""

import math

import numpy as np

from gptjax.errors import InputError
from gptjax.evaluate.scoring import answers
from gptjax.evaluate.scoring.evaluated_model import Task, TaskResult, score_with_journal
from gptjax.evaluate.scoring.generation import answer_tokens, encode_prompt, generate_with_journal
from gptjax.evaluate.scoring.scores import Request
from gptjax.evaluate.tasks import common_answers
from gptjax.evaluate.texts import schema, sources

COQA, COQA_URL = 'coqa-dev-v1.0.json', 'https://nlp.stanford.edu/data/coqa/coqa-dev-v1.0.json'
NQ, NQ_URL = 'nq_open_dev.jsonl', 'https://github.com/google-research-datasets/natural-questions (nq_open)'
UTTERANCES = schema.list_of(schema.record({'input_text': schema.text(blank=True)}))
CONVERSATIONS = schema.Schema('conversations', {
  'source': schema.text(), 'story': schema.text(), 'questions': UTTERANCES, 'answers': UTTERANCES,
  'additional_answers': schema.dict_of(UTTERANCES, optional=True)}, count=500)
QUESTIONS = schema.Schema('questions', {
  'question': schema.text(), 'answer': schema.list_of(schema.text())}, count=3610)
ANSWER_TOKENS = 32     # of CoQA; some answers of annotators are longer, most have three words
SHORT_ANSWER_TOKENS = 16
CONFIDENT_FRACTION = 0.01       # of the questions
TABLE_ROWS = 30             # as in the paper's Table 5

# Few-shot examples for Natural Questions; the paper does not print its own. The answers are short and of the
# expected kinds; no question of the data set asks for the same facts.
EXAMPLES = (
  ('who painted the girl with a pearl earring', 'Johannes Vermeer'),
  ('what is the capital of finland', 'Helsinki'),
  ('when did the berlin wall come down', '1989'),
  ('who wrote crime and punishment', 'Fyodor Dostoevsky'),
  ('where is mount kilimanjaro located', 'Tanzania'),
  ('how many strings does a violin have', 'four'),
  ('what is the chemical symbol for gold', 'Au'),
  ('who discovered penicillin', 'Alexander Fleming'),
  ('what language is spoken in brazil', 'Portuguese'),
  ('which planet is closest to the sun', 'Mercury'),
)


def read_coqa(data):
  """Return [(text before the answer, [answers of all annotators], domain)], one per turn of a conversation.

  It reads the published file, because the TFDS set lacks the additional annotators.
  """
  path = sources.find_file(data, COQA)
  if not path:
    raise sources.NotRun(sources.not_found_message('CoQA', COQA_URL, COQA))
  stories = sources.read_json(path)
  if not isinstance(stories, dict) or not isinstance(stories.get('data'), list):
    raise InputError(f'{path} does not have the layout of {COQA}: it must be an object with a list "data"')
  stories, blanks = stories['data'], 0
  for i, story in enumerate(stories):
    blanks += schema.check_record(CONVERSATIONS, story, f'{path}: data[{i}]')
    _check_turns(story, f'{path}: data[{i}]')
  schema.check_count(CONVERSATIONS, len(stories), blanks, path, data.note)
  return data.limited([turn for story in stories for turn in turns(story)])


def _check_turns(story, location):
  """Raise InputError unless every question has an answer of each annotator."""
  n = len(story['questions'])
  by_annotator = {'answers': story['answers'], **story.get('additional_answers', {})}
  for name, replies in by_annotator.items():
    if len(replies) != n:
      raise InputError(f'{location}: {n} questions, but {len(replies)} answers of the annotator {name!r}')


def turns(story):
  """Yield the turns of one conversation, with the first annotator's answers in the text before each."""
  before = story['story'].strip() + '\n\n'
  others = story.get('additional_answers', {}).values()
  for i, question in enumerate(story['questions']):
    before += f'Q: {question["input_text"].strip()}\nA:'
    references = [annotator[i]['input_text'] for annotator in (story['answers'], *others)]
    yield before, references, story['source']
    before += f' {references[0].strip()}\n'


def evaluate_coqa(evaluated, turns):
  """Return the TaskResult: F1 as the official script counts it."""
  prompts = [encode_prompt(evaluated, before, ANSWER_TOKENS) for before, *_ in turns]
  generated = [text.strip() for text, _ in generate_with_journal(evaluated, 'coqa', prompts, ANSWER_TOKENS)]
  scores = [answers.coqa_f1(text, references) for text, (_, references, _) in zip(generated, turns)]
  domains = {domain: [score for score, turn in zip(scores, turns) if turn[2] == domain]
             for domain in sorted({turn[2] for turn in turns})}
  metrics = {'f1': math.fsum(scores) / len(scores), 'examples': len(scores),
             **{f'f1_{domain}': math.fsum(domain_scores) / len(domain_scores)
                for domain, domain_scores in domains.items()}}
  examples = tuple({'text': before, 'answer': text, 'references': references, 'f1': score}
                   for (before, references, _), text, score in zip(turns, generated, scores))
  protocol = ('Development set; the document, an empty line, the conversation so far as "Q: ...", "A: ..." '
              "with the first annotator's answers, then \"A:\"; truncated on the left; greedy, to the end of "
              f'the line, at most {ANSWER_TOKENS} tokens. F1 against all annotators but one, '
              'averaged.')
  return TaskResult(metrics, protocol, examples=examples)


def read_nq(data):
  """Return ([(question, [answers])] of the development set, {type of question: answer of the baseline}).

  The second is {} if the training questions are not there: they are not needed for anything else.
  """
  path = sources.find_file(data, NQ, 'NQ-open.dev.jsonl', 'NQ-open.efficientqa.dev.1.1.jsonl')
  records = (sources.read_jsonl(data, path, QUESTIONS) if path else
             sources.read_tfds(data, 'natural_questions_open', 'validation', QUESTIONS))
  if records is None:
    raise sources.NotRun(sources.not_found_message('Natural Questions', NQ_URL, NQ,
                                                   tfds='natural_questions_open'))
  questions = data.limited([(record['question'], list(record['answer'])) for record in records])
  return questions, common_answers.read(data)


def few_shot_prompt():
  """Return the example questions and answers that precede each question."""
  return ''.join(f'Q: {question}?\nA: {answer}\n\n' for question, answer in EXAMPLES)


def evaluate_nq(evaluated, examples):
  """Return the TaskResult: exact match of all answers, of the most confident ones, and of the baseline."""
  questions, common = examples
  prompts = [encode_prompt(evaluated, f'{few_shot_prompt()}Q: {question}?\nA:', SHORT_ANSWER_TOKENS)
             for question, _ in questions]
  outputs = generate_with_journal(evaluated, 'natural_questions', prompts, SHORT_ANSWER_TOKENS)
  answer_ids = [answer_tokens(evaluated.tokenizer, ids, text) for text, ids in outputs]
  answered = [i for i, ids in enumerate(answer_ids) if ids]
  scores = score_with_journal(evaluated, 'natural_questions, how sure', [  # a key in existing journals
    Request(np.append(prompts[i], answer_ids[i]), len(prompts[i])) for i in answered])
  probabilities = dict.fromkeys(range(len(outputs)), 0.0) | {
    i: math.exp(score.log_prob) for i, score in zip(answered, scores)}
  generated = [text.strip() for text, _ in outputs]
  correct = [answers.exact_match(text, references) for text, (_, references) in zip(generated, questions)]
  order = sorted(probabilities, key=lambda i: (-probabilities[i], i))
  most_confident = order[:max(1, round(CONFIDENT_FRACTION * len(order)))]
  metrics = {'exact_match': sum(correct) / len(correct), 'correct': sum(correct),
             'exact_match_confident': sum(correct[i] for i in most_confident) / len(most_confident),
             'confident': len(most_confident), 'examples': len(correct), **_baseline(questions, common)}
  rows = (('question', 'answer', 'correct', 'probability'),
          *((questions[i][0], generated[i], correct[i], probabilities[i]) for i in order[:TABLE_ROWS]))
  results = tuple({'text': questions[i][0], 'answer': generated[i], 'references': questions[i][1],
                   'correct': correct[i], 'probability': probabilities[i]} for i in range(len(generated)))
  protocol = (f'Development set; greedy after {len(EXAMPLES)} examples, to the end of the line, '
              f"at most {SHORT_ANSWER_TOKENS} tokens; exact match with SQuAD's normalisation; confidence: "
              f"the probability of the answer's tokens; the most confident {CONFIDENT_FRACTION:.0%} are "
              f'{len(most_confident)}. {_describe_baseline(common)} The context:\n{few_shot_prompt()}')
  return TaskResult(metrics, protocol, rows=rows, examples=results)


def _baseline(questions, common):
  """Return the exact match of the most common training answer per type of question; {} without these."""
  if not common:
    return {}
  correct = [answers.exact_match(common_answers.answer(common, question), references)
             for question, references in questions]
  return {'exact_match_baseline': sum(correct) / len(correct)}


def _describe_baseline(common):
  if not common:
    return ('Baseline: not computed, because the training questions are missing: put '
            f'{" or ".join(common_answers.FILES)} into the folder --config.eval.data_dir.')
  return ('Baseline: the most common answer to training questions with the same question word: '
          + '; '.join(f'{kind}: {answer}' for kind, answer in common.items()) + '.')


TASKS = (Task('coqa', 'CoQA', read_coqa, evaluate_coqa),
         Task('natural_questions', 'Natural Questions', read_nq, evaluate_nq))
