"""LAMBADA: the last word of a passage (GPT-2 paper, section 3.3).

Reproductions dispute what was scored, so each reading has a name: the last token, the last word (all its
tokens must be the likeliest), and the last word where stop words are out of the race, at each token.
"""

import math

import numpy as np

from gptjax.evaluate import sources
from gptjax.evaluate.detokenize import BOOKS, detokenize
from gptjax.evaluate.stopwords import STOPWORDS
from gptjax.evaluate.subject import Found, Task, request, scored

FILE, URL = 'lambada_test.jsonl', 'https://openaipublic.blob.core.windows.net/gpt-2/data/lambada_test.jsonl'
OPENAI, ORIGINAL = "OpenAI's file", 'original'
STRAIGHT = str.maketrans({'\u201c': '"', '\u201d': '"'})
READINGS = ('accuracy_last_token', 'accuracy_last_word', 'accuracy_last_word_filtered', 'perplexity',
            'perplexity_last_token')
PAPERS = ('accuracy_last_word_filtered', 'perplexity')


def read(data):
  """[{'openai': str or None, 'original': str or None}], each the passages of a file or of TFDS."""
  path, of_tfds = sources.find(data, FILE, 'lambada_test.jsonl'), sources.from_tfds(data, 'lambada', 'test')
  if not path and not of_tfds:
    raise sources.NotRun(sources.where('LAMBADA', URL, FILE, tfds='lambada'))
  found = {}
  if path:
    found[OPENAI] = data.some([record['text'] for record in sources.read_jsonl(path, ['text'])])
  if of_tfds:
    found[ORIGINAL] = [record['passage'] for record in of_tfds]
  return found


def forms(passages):
  """{form of the text: function of a passage}; the first is the one for the paper's numbers.

  The second is what an author has said to have done (openai/gpt-2, issue 131).
  """
  if passages == OPENAI:
    return {OPENAI: str, f'{OPENAI}, a line break first and straight quotes':
            lambda text: '\n' + text.translate(STRAIGHT).strip()}
  return {f'{ORIGINAL}, de-tokenized': lambda text: detokenize(text, BOOKS), ORIGINAL: str}


def evaluate(subject, found):
  """Found of {kind of file: [passage]}: metrics of the first form, and with `subject.grid` cells of all."""
  barred = stop_tokens(subject)
  chosen = [(form, list(map(change, passages))) for kind, passages in found.items()
            for form, change in forms(kind).items()][:None if subject.grid else 1]
  texts = {form: [text.rstrip() for text in changed] for form, changed in chosen}
  scores = {form: scored(subject, f'lambada {form}', [request(subject, *parted(text)) for text in passages],
                         barred) for form, passages in texts.items()}
  metrics = {form: summary(values) for form, values in scores.items()}
  cells = tuple({'text': form, 'stride': None, 'unit': reading, 'value': values[reading],
                 'paper': form == chosen[0][0] and reading in PAPERS}
                for form, values in metrics.items() for reading in READINGS)
  first = chosen[0][0]
  examples = tuple({'text': text, 'nats': -score.total, 'correct': score.allowed,
                    'correct_last_word': score.greedy, 'correct_last_token': score.last_greedy}
                   for text, score in zip(texts[first], scores[first]))
  protocol = (f'{first}; the word after the last space is scored with that space, given all before it. '
              'perplexity: exp of the mean loss of the word. Filtered: none of the 179 stop words of NLTK is '
              'in the race, at any token of the word.')
  return Found(metrics[first], protocol, cells=cells, examples=examples)


def parted(text):
  """(text before the last word, the word with the space before it)."""
  before, _, word = text.rpartition(' ')
  return before, ' ' + word


def summary(scores):
  """{metric: value} of the Scores of all last words."""
  n = len(scores)
  counts = {'correct_last_token': sum(score.last_greedy for score in scores),
            'correct_last_word': sum(score.greedy for score in scores),
            'correct_last_word_filtered': sum(score.allowed for score in scores)}
  mean = lambda values: math.exp(min(-math.fsum(values) / n, 700))
  return {**{name.replace('correct', 'accuracy'): count / n for name, count in counts.items()},
          'perplexity': mean(score.total for score in scores),
          'perplexity_last_token': mean(score.last for score in scores), **counts, 'examples': n}


def stop_tokens(subject):
  """bool[n_vocab]: tokens that are, but for a space, a stop word."""
  barred = np.zeros(subject.model.n_vocab, bool)
  for token in range(min(subject.tokenizer.n_vocab, len(barred))):
    barred[token] = subject.tokenizer.decode([token]).strip().lower() in STOPWORDS
  return barred


TASKS = Task('lambada', 'LAMBADA', read, evaluate),
