"""LAMBADA: the last word of a passage (GPT-2 paper, section 3.3).

Reproductions disagree about what was scored, so each protocol has a metric: the last token; the last word,
all tokens of which must be the most likely; and the last word with a filter of stop words. The paper's filter
is about words: candidate last words that are stop words are excluded. A token is excluded where it completes
a stop word together with the earlier tokens of the word, or where it ends a word that is one. Others have
filtered tokens instead: tokens that spell a stop word are excluded everywhere, so that words that contain
such a token, like "T" or "y", can never be correct.
"""

import math

import numpy as np

from gptjax.evaluate.scoring.evaluated_model import Task, TaskResult, make_request, score_with_journal
from gptjax.evaluate.scoring.scores import ExcludedTokens
from gptjax.evaluate.tasks.stopwords import STOPWORDS
from gptjax.evaluate.texts import schema, sources
from gptjax.evaluate.texts.detokenize import BOOKS, detokenize

FILE, URL = 'lambada_test.jsonl', 'https://openaipublic.blob.core.windows.net/gpt-2/data/lambada_test.jsonl'
PASSAGES = schema.Schema('passages', {'text': schema.text_of_words(2)}, count=5153,
                         sha256='4aa8d02cd17c719165fc8a7887fddd641f43fcafa4b1c806ca8abc31fabdb226')
TFDS_PASSAGES = schema.Schema('passages', {'passage': schema.text_of_words(2)}, count=5153)
OPENAI, ORIGINAL = "OpenAI's file", 'original'
STRAIGHT = str.maketrans({'\u201c': '"', '\u201d': '"'})
FILTERED, BY_TOKEN = 'accuracy_last_word_filtered', 'accuracy_last_word_filtered_by_token'
METRICS = ('accuracy_last_token', 'accuracy_last_word', FILTERED, 'perplexity', 'perplexity_last_token')
PAPER_METRICS = (FILTERED, 'perplexity')


def read(data):
  """Return {OPENAI: [passage] of the file, ORIGINAL: [passage] of TFDS}, at least one of them."""
  path, of_tfds = sources.find_file(data, FILE), sources.read_tfds(data, 'lambada', 'test', TFDS_PASSAGES)
  if not path and not of_tfds:
    raise sources.NotRun(sources.not_found_message('LAMBADA', URL, FILE, tfds='lambada'))
  passages = {}
  if path:
    passages[OPENAI] = data.limited([record['text'] for record in sources.read_jsonl(data, path, PASSAGES)])
  if of_tfds:
    passages[ORIGINAL] = [record['passage'] for record in of_tfds]
  return passages


def forms(kind):
  """Return {form of the text: function of a passage}; the first form is for the paper's numbers.

  The second form of OpenAI's file is the one that an author described (openai/gpt-2, issue 131).
  """
  if kind == OPENAI:
    return {OPENAI: str, f'{OPENAI}, a line break first and straight quotes':
            lambda text: '\n' + text.translate(STRAIGHT).strip()}
  return {f'{ORIGINAL}, de-tokenized': lambda text: detokenize(text, BOOKS), ORIGINAL: str}


def evaluate(evaluated, passages_by_kind):
  """Return the TaskResult of {kind of file: [passage]}.

  Metrics are those of the first form; with `evaluated.grid` there are cells of all forms.
  """
  chosen = [(form, [convert(passage).rstrip() for passage in passages])
            for kind, passages in passages_by_kind.items()
            for form, convert in forms(kind).items()][:None if evaluated.grid else 1]
  vocabulary, scores, values = token_texts(evaluated), {}, {}
  for form, texts in chosen:
    requests = [make_request(evaluated, *split_last_word(text)) for text in texts]
    scores[form], possible = score_filtered(f'lambada {form}, filtered by word', evaluated, requests,
                                            exclude_stop_words(vocabulary, requests))
    values[form] = metrics_of(scores[form]) | {f'ceiling_{FILTERED}': mean(possible)}
    if evaluated.grid:
      by_token, possible = score_filtered(f'lambada {form}, filtered by token', evaluated, requests,
                                          exclude_stop_tokens(vocabulary, requests))
      values[form] |= {BY_TOKEN: mean(score.is_greedy_allowed for score in by_token),
                       f'ceiling_{BY_TOKEN}': mean(possible)}
  first, texts = chosen[0]
  cells = tuple({'text': form, 'stride': None, 'unit': metric, 'value': values[form][metric],
                 'paper': form == first and metric in PAPER_METRICS}
                for form in values for metric in (*METRICS, *[BY_TOKEN] * evaluated.grid))
  examples = tuple({'text': text, 'nats': -score.log_prob, 'correct': score.is_greedy_allowed,
                    'correct_last_word': score.is_greedy, 'correct_last_token': score.last_is_greedy}
                   for text, score in zip(texts, scores[first], strict=True))
  return TaskResult(values[first], _protocol(first, values[first]), cells=cells, examples=examples)


def _protocol(form, values):
  text = (f'{form}; the word after the last space is scored with that space, given the text before '
          'it. perplexity: exp of the mean loss of the word. Filtered: candidate last words that are among '
          f'the 179 stop words of NLTK are excluded; {values[f"ceiling_{FILTERED}"]:.2%} of the targets '
          'are not stop words and can be correct.')
  if BY_TOKEN in values:
    text += (' Filtered by token: tokens that spell a stop word are excluded at every position of a word; '
             f'{values[f"ceiling_{BY_TOKEN}"]:.2%} of the targets have no such token and can be correct.')
  return text


def score_filtered(name, evaluated, requests, exclusion):
  """Return ([Score of each Request], [whether its target can be correct]); others count as incorrect."""
  excluded, possible = exclusion
  scores = score_with_journal(evaluated, name, requests, excluded)
  return [score._replace(is_greedy_allowed=score.is_greedy_allowed and is_possible)
          for score, is_possible in zip(scores, possible, strict=True)], possible


def token_texts(evaluated):
  """Return the text of each token of the model's vocabulary; '' for padding."""
  n = min(evaluated.tokenizer.n_vocab, evaluated.model.n_vocab)
  return [evaluated.tokenizer.decode([token]) for token in range(n)] + [''] * (evaluated.model.n_vocab - n)


def is_stop_word(text):
  return text.strip().lower() in STOPWORDS


def exclude_stop_tokens(vocabulary, requests):
  """Filter by token: (ExcludedTokens that spell a stop word, [whether each target has none of them])."""
  stop = np.array([is_stop_word(piece) for piece in vocabulary])
  words = [np.asarray(ids[start:]) for ids, start in requests]
  return (ExcludedTokens(stop[None], [np.zeros(len(word), np.int32) for word in words]),
          [not stop[word].any() for word in words])


def exclude_stop_words(vocabulary, requests):
  """Filter by word: (ExcludedTokens that complete or end a stop word, [whether each target is allowed])."""
  mask_of_prefix, masks = {}, [np.zeros(len(vocabulary), bool)]  # mask 0 excludes nothing
  mask_indices, possible = [], []
  for ids, start in requests:
    prefix, indices = '', []
    for token in ids[start:]:
      if prefix not in mask_of_prefix:
        mask = excluded_next_tokens(prefix, vocabulary)
        mask_of_prefix[prefix] = len(masks) if mask.any() else 0
        masks += [mask] if mask.any() else []
      indices.append(mask_of_prefix[prefix])
      prefix = (prefix + vocabulary[token]).lstrip().lower()
    mask_indices.append(np.array(indices, np.int32))
    possible.append(not is_stop_word(prefix))
  return ExcludedTokens(np.array(masks), mask_indices), possible


def excluded_next_tokens(prefix, vocabulary):
  """Return bool[n_vocab]: the tokens that complete or follow a stop word that begins with `prefix`."""
  if not any(word.startswith(prefix) for word in STOPWORDS):
    return np.zeros(len(vocabulary), bool)
  prefix_is_stop_word = bool(prefix) and is_stop_word(prefix)
  return np.array([is_stop_word(prefix + piece) if not prefix or continues_word(piece)
                   else prefix_is_stop_word
                   for piece in vocabulary])


def continues_word(piece):
  """Whether a token continues the previous word; a partial character, decoded to U+FFFD, does."""
  return piece[:1].isalnum() or piece[:1] in ("'", '’', '�')


def split_last_word(text):
  """Return (text before the last word, the word with the space before it)."""
  before, _, word = text.rpartition(' ')
  return before, ' ' + word


def mean(values):
  """Return the mean of numbers or booleans."""
  values = list(values)
  return math.fsum(values) / len(values)


def metrics_of(scores):
  """Return {metric: value} from the Scores of all last words."""
  n = len(scores)
  counts = {'correct_last_token': sum(score.last_is_greedy for score in scores),
            'correct_last_word': sum(score.is_greedy for score in scores),
            'correct_last_word_filtered': sum(score.is_greedy_allowed for score in scores)}
  perplexity = lambda log_probs: math.exp(min(-mean(log_probs), 700))
  return {**{name.replace('correct', 'accuracy'): count / n for name, count in counts.items()},
          'perplexity': perplexity(score.log_prob for score in scores),
          'perplexity_last_token': perplexity(score.last_log_prob for score in scores), **counts,
          'examples': n}


TASKS = Task('lambada', 'LAMBADA', read, evaluate),
