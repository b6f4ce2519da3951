"""What the GPT-2 paper reports, and what others get from the released weights (Radford et al. 2019).

Metrics have the names under which `results.json` has them. Sizes are in the paper's order; None: not printed.
Shares are per cent here, 0 to 1 there. What was read by eye off a plot says so.
"""

from typing import NamedTuple

SIZES = ('117M', '345M', '762M', '1542M')                                  # as the paper calls them
PARAMETERS = (124_439_808, 354_823_168, 774_030_080, 1_557_611_200)        # as they are


class Figure(NamedTuple):
  """One metric of one task."""
  task: str
  metric: str
  title: str              # of the row
  gpt2: tuple             # of the four sizes
  best: float | None      # state of the art before, zero-shot or not
  lower: bool = False     # whether less is better
  others: tuple = (None,) * 4   # what the community gets from the released weights by `protocol`
  protocol: str = ''
  reach: tuple = ()       # ((name, value), ...): other systems of Figure 1
  note: str = ''


_LAST = (None, None, None)
FIGURES = (
  # Table 3.
  Figure('lambada', 'perplexity', 'LAMBADA, perplexity', (35.13, 15.60, 10.87, 8.63), 99.8, lower=True,
         others=(40.06, 18.3, 13.0, 10.63), protocol='whole last word, OpenAI\'s file'),
  Figure('lambada', 'accuracy_last_word_filtered', 'LAMBADA, accuracy', (45.99, 55.48, 60.12, 63.24), 59.23,
         others=(32.56, 43.0, 47.7, 51.21), protocol='whole last word, no stop-word filter'),
  Figure('cbt_cn', 'accuracy', 'CBT common nouns, accuracy', (87.65, 92.35, 93.45, 93.30), 85.7,
         others=(84.35, *_LAST), protocol='validation set'),
  Figure('cbt_ne', 'accuracy', 'CBT named entities, accuracy', (83.4, 87.1, 88.0, 89.05), 82.3,
         others=(73.65, *_LAST), protocol='validation set'),
  Figure('wikitext2', 'perplexity', 'WikiText-2, perplexity', (29.41, 22.76, 19.93, 18.34), 39.14, lower=True,
         others=(37.37, None, None, 17.48), protocol='de-tokenized, per original word, stride 1024'),
  Figure('ptb', 'perplexity', 'Penn Treebank, perplexity', (65.85, 47.33, 40.31, 35.76), 46.54, lower=True,
         others=(79.65, *_LAST), protocol='per word'),
  Figure('enwik8', 'bits_per_byte', 'enwik8, bits a byte', (1.16, 1.01, 0.97, 0.93), 0.99, lower=True),
  Figure('text8', 'bits_per_character', 'text8, bits a character', (1.17, 1.06, 1.02, 0.98), 1.08, lower=True),
  Figure('wikitext103', 'perplexity', 'WikiText-103, perplexity', (37.50, 26.37, 22.05, 17.48), 18.3, lower=True,
         others=(37.37, None, None, 17.48), protocol='de-tokenized, per original word, stride 1024'),
  Figure('1bw', 'perplexity', '1BW, perplexity', (75.20, 55.72, 44.575, 42.16), 21.8, lower=True),
  # Section 3.4 and Figure 3, by partial scoring. The others are read off the figure.
  Figure('winograd', 'accuracy_partial', 'Winograd schemas, accuracy', (58.0, None, None, 70.70), 63.7,
         note='117M read off Figure 3'),
  # Sections 3.5 to 3.8 and Figure 1, which prints the largest size only.
  Figure('coqa', 'f1', 'CoQA, F1', (*_LAST, 55.0), 89.0,
         reach=(('PGNet', 45.4), ('DrQA', 52.6), ('DrQA+PGNet', 65.1), ('human', 88.8))),
  Figure('wmt14_fr_en', 'bleu', 'WMT-14 French to English, BLEU', (*_LAST, 11.5), 33.5,
         reach=(('unsupervised SMT', 33.5),)),
  Figure('wmt14_en_fr', 'bleu', 'WMT-14 English to French, BLEU', (*_LAST, 5.0), None),
  Figure('cnn_dailymail', 'rouge_1', 'CNN/Daily Mail, ROUGE-1', (*_LAST, 29.34), 41.22),
  Figure('cnn_dailymail', 'rouge_2', 'CNN/Daily Mail, ROUGE-2', (*_LAST, 8.27), 18.68),
  Figure('cnn_dailymail', 'rouge_l', 'CNN/Daily Mail, ROUGE-L', (*_LAST, 26.58), 38.34),
  Figure('cnn_dailymail', 'rouge_mean', 'CNN/Daily Mail, mean ROUGE', (*_LAST, 21.40), 32.75,
         reach=(('Random-3', 20.98), ('Seq2Seq + Attn', 23.99), ('Lead-3', 31.55))),
  Figure('natural_questions', 'exact_match', 'Natural Questions, exact match', (0.8, None, None, 4.1), 50.0,
         reach=(('most frequent answer', 1.0), ('open-domain systems', 30.0)), note='117M derived from 5.3 times'),
  Figure('natural_questions', 'most_confident', 'Natural Questions, the most confident 1 %', (*_LAST, 63.1), None),
)

# Figure 1: four panels over the model's size.
FIGURE_1 = (('coqa', 'f1'), ('wmt14_fr_en', 'bleu'), ('cnn_dailymail', 'rouge_mean'),
            ('natural_questions', 'exact_match'))

# Figure 4: perplexity on WebText, a token; read off, good to one or two points.
WEBTEXT_PERPLEXITY = {'train': (16.0, None, None, 9.0), 'test': (17.0, None, None, 11.0)}

# Table 4: ROUGE-1, -2, -L and their mean.
SUMMARIES = {
  'Bottom-Up Sum': (41.22, 18.68, 38.34, 32.75), 'Lede-3': (40.38, 17.66, 36.62, 31.55),
  'Seq2Seq + Attn': (31.33, 11.81, 28.83, 23.99), 'GPT-2 TL;DR:': (29.34, 8.27, 26.58, 21.40),
  'Random-3': (28.78, 8.63, 25.52, 20.98), 'GPT-2 no hint': (21.58, 4.03, 19.47, 15.03)}

# Table 6: per cent of a test set's 8-grams that are also in (its own training split, WebText's).
OVERLAP = {'ptb': (2.67, 0.88), 'wikitext2': (0.66, 1.63), 'enwik8': (7.50, 6.31), 'text8': (2.34, 3.94),
           'wikitext103': (9.09, 2.42), '1bw': (13.19, 3.75)}


def figures_of(task):
  """[Figure] of a task, none where the paper has none."""
  return [figure for figure in FIGURES if figure.task == task]
