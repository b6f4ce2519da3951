"""Summaries of news: CNN and Daily Mail (GPT-2 paper, section 3.6 and Table 4)."""

import math
import random

import numpy as np

from gptjax.data.tokenizers import special
from gptjax.evaluate.scoring.evaluated_model import Task, TaskResult
from gptjax.evaluate.scoring.generation import generate_with_journal, max_prompt_tokens
from gptjax.evaluate.tasks.translation import require_package
from gptjax.evaluate.texts import schema, sources
from gptjax.evaluate.texts.sentences import sentences

FILE = 'cnn_dailymail/test.jsonl'
URL = 'https://cs.nyu.edu/~kcho/DMQA (made into lines of {"article": ..., "highlights": ...})'
ARTICLES = schema.Schema('articles', {
  'article': schema.text(blank=True), 'highlights': schema.text()}, count=11_490)
HINT = '\nTL;DR:'
TOKENS, TOP_K, SUMMARY_SENTENCES = 100, 2, 3
ROUGE = {'rouge1': 'rouge_1', 'rouge2': 'rouge_2', 'rougeLsum': 'rouge_l'}


def read(data):
  """Return [(article, its highlights, one per line)] of the test set."""
  require_package('rouge_score')
  path = sources.find_file(data, FILE)
  records = (sources.read_jsonl(data, path, ARTICLES) if path else
             sources.read_tfds(data, 'cnn_dailymail', 'test', ARTICLES))
  if records is None:
    raise sources.NotRun(sources.not_found_message('CNN/Daily Mail', URL, FILE, tfds='cnn_dailymail'))
  return data.limited([(record['article'], record['highlights']) for record in records])


def rouge(pairs):
  """Return {'rouge_1', 'rouge_2', 'rouge_l', 'rouge_mean'}: mean F1 times 100 of (reference, summary) pairs.

  Texts have one sentence per line; rouge_l is summary-level, as in the Perl script, and words are stemmed.
  """
  from rouge_score import rouge_scorer
  scorer = rouge_scorer.RougeScorer(list(ROUGE), use_stemmer=True)
  scores = [scorer.score(reference, summary) for reference, summary in pairs]
  means = {name: 100 * math.fsum(score[kind].fmeasure for score in scores) / len(scores)
           for kind, name in ROUGE.items()}
  return {**means, 'rouge_mean': sum(means.values()) / 3}


def evaluate(evaluated, articles):
  """Return the TaskResult: ROUGE with the hint, without it, and of simple summaries."""
  hint = np.asarray(evaluated.tokenizer.encode(HINT), np.int32)
  longest = max_prompt_tokens(evaluated, TOKENS) - len(hint)
  ids = [special.after_prefix(evaluated.tokenizer, evaluated.tokenizer.encode(article.strip()))[:longest]
         for article, _ in articles]
  prompts_by_name = {'hint': [np.append(article_ids, hint) for article_ids in ids], 'no hint': ids}
  summaries = {}
  for name, prompts in prompts_by_name.items():
    texts = generate_with_journal(evaluated, f'cnn_dailymail, {name}', prompts, TOKENS, stop=(), top_k=TOP_K)
    summaries[name] = ['\n'.join(sentences(text)[:SUMMARY_SENTENCES]) for text, _ in texts]
  article_sentences, rng = [sentences(article) for article, _ in articles], random.Random(evaluated.seed)
  summaries['lead 3'] = ['\n'.join(split[:SUMMARY_SENTENCES]) for split in article_sentences]
  sampled = [sorted(rng.sample(range(len(split)), min(SUMMARY_SENTENCES, len(split))))
             for split in article_sentences]
  summaries['random 3'] = ['\n'.join(split[i] for i in places)
                           for split, places in zip(article_sentences, sampled)]
  scores = {name: rouge([(highlights, text) for (_, highlights), text in zip(articles, texts)])
            for name, texts in summaries.items()}
  metrics = {**scores['hint'], 'examples': len(articles)}
  for name in ('no hint', 'lead 3', 'random 3'):
    metrics |= {f'{metric}_{name.replace(" ", "_")}': value for metric, value in scores[name].items()}
  rows = (('summary', 'ROUGE-1', 'ROUGE-2', 'ROUGE-L', 'mean'),
          *((name, *values.values()) for name, values in scores.items()))
  examples = tuple({'text': article, 'answer': text, 'references': [highlights]}
                   for (article, highlights), text in zip(articles, summaries['hint']))
  protocol = (f'Test set; the article, truncated on the right, then {HINT!r}; {TOKENS} tokens, sampled from '
              f'the {TOP_K} most likely; the first {SUMMARY_SENTENCES} sentences of them. ROUGE F1 '
              'by rouge-score, stemmed; summary-level ROUGE-L.')
  return TaskResult(metrics, protocol, rows=rows, examples=examples)


TASKS = Task('cnn_dailymail', 'CNN/Daily Mail', read, evaluate),
