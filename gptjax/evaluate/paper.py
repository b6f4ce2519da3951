"""Published results for comparison: the GPT-2 paper's, and measurements of the released weights by others.

Keys are the sizes of the released weights; the paper calls them 117M, 345M, 762M and 1542M.
"""

from typing import NamedTuple

from gptjax.evaluate import percent

SIZES = {'124M': (12, 768), '355M': (24, 1024), '774M': (36, 1280), '1558M': (48, 1600)}  # n_layer, n_embd
PAPER_SIZES = {'124M': '117M', '355M': '345M', '774M': '762M', '1558M': '1542M'}


class PaperResult(NamedTuple):
  """One metric of the paper.

  task, metric: as in results.json.
  title: of the row; it mentions the set if the paper's number is not of a test set.
  sota: the earlier state of the art, None if the paper has none.
  sizes: {size: number}; sizes that the paper shows only in a figure are missing.
  """
  task: str
  metric: str
  title: str
  sota: float | None
  sizes: dict

  @property
  def scale(self):
    """The factor from the value in results.json to the paper's number."""
    return percent.display_scale(self.metric)


def _sizes(*numbers):
  return dict(zip(SIZES, numbers, strict=True))


# Table 3; then sections 3.4 to 3.8 and Table 4, which show most sizes only in figures. For Winograd schemas
# the paper prints one number, and both ways of scoring are near it in its Figure 3.
PAPER_RESULTS = (
  PaperResult('lambada', 'perplexity', 'LAMBADA, perplexity', 99.8, _sizes(35.13, 15.60, 10.87, 8.63)),
  PaperResult('lambada', 'accuracy_last_word_filtered', 'LAMBADA, accuracy (last word, no stop words)', 59.23,
              _sizes(45.99, 55.48, 60.12, 63.24)),
  PaperResult('lambada', 'accuracy_last_word', 'LAMBADA, accuracy (last word)', None, {'1558M': 52.66}),
  PaperResult('lambada', 'accuracy_last_token', 'LAMBADA, accuracy (last token)', None, {}),
  PaperResult('cbt_cn', 'accuracy', 'CBT common nouns, validation accuracy', 85.7,
              _sizes(87.65, 92.35, 93.45, 93.30)),
  PaperResult('cbt_ne', 'accuracy', 'CBT named entities, validation accuracy', 82.3,
              _sizes(83.4, 87.1, 88.0, 89.05)),
  PaperResult('wikitext2', 'perplexity', 'WikiText-2, perplexity', 39.14, _sizes(29.41, 22.76, 19.93, 18.34)),
  PaperResult('ptb', 'perplexity', 'Penn Treebank, perplexity', 46.54, _sizes(65.85, 47.33, 40.31, 35.76)),
  PaperResult('enwik8', 'bits_per_byte', 'enwik8, bits per byte', 0.99, _sizes(1.16, 1.01, 0.97, 0.93)),
  PaperResult('text8', 'bits_per_character', 'text8, bits per character', 1.08,
              _sizes(1.17, 1.06, 1.02, 0.98)),
  PaperResult('wikitext103', 'perplexity', 'WikiText-103, perplexity', 18.3,
              _sizes(37.50, 26.37, 22.05, 17.48)),
  PaperResult('1bw', 'perplexity', '1 Billion Words, perplexity', 21.8, _sizes(75.20, 55.72, 44.575, 42.16)),
  PaperResult('winograd', 'accuracy_partial', 'Winograd, accuracy (partial)', 63.7, {'1558M': 70.70}),
  PaperResult('winograd', 'accuracy_full', 'Winograd, accuracy (full)', 63.7, {}),
  PaperResult('coqa', 'f1', 'CoQA, development F1', None, {'1558M': 55}),
  PaperResult('natural_questions', 'exact_match', 'Natural Questions, development exact match', None,
              {'1558M': 4.1}),
  PaperResult('natural_questions', 'exact_match_confident', 'Natural Questions, the most confident 1 %', None,
              {'1558M': 63.1}),
  PaperResult('natural_questions', 'exact_match_baseline',
              '... of the most common answer per type of question', None, _sizes(*[1.0] * 4)),
  PaperResult('wmt14_en_fr', 'bleu', 'WMT-14 English to French, BLEU', None, {'1558M': 5}),
  PaperResult('wmt14_fr_en', 'bleu', 'WMT-14 French to English, BLEU', 33.5, {'1558M': 11.5}),
  PaperResult('cnn_dailymail', 'rouge_1', 'CNN/Daily Mail, ROUGE-1', 41.22, {'1558M': 29.34}),
  PaperResult('cnn_dailymail', 'rouge_2', 'CNN/Daily Mail, ROUGE-2', 18.68, {'1558M': 8.27}),
  PaperResult('cnn_dailymail', 'rouge_l', 'CNN/Daily Mail, ROUGE-L', 38.34, {'1558M': 26.58}),
  PaperResult('cnn_dailymail', 'rouge_mean', 'CNN/Daily Mail, mean ROUGE', 32.75, {'1558M': 21.40}),
  PaperResult('cnn_dailymail', 'rouge_mean_no_hint', '... without the hint', None, {'1558M': 15.03}),
  PaperResult('cnn_dailymail', 'rouge_mean_lead_3', '... of the first three sentences', None,
              _sizes(*[31.55] * 4)),
  PaperResult('cnn_dailymail', 'rouge_mean_random_3', '... of three random sentences', None,
              _sizes(*[20.98] * 4)),
)


class Reproduction(NamedTuple):
  """A published measurement of the released weights.

  task: as in results.json.
  protocol: description.
  sizes: {size: number}.
  source: who measured it.
  grid_key: (text, stride as 'n_ctx' or a number or None, unit) of the grid cell with the most similar
    protocol; None: no cell is comparable.
  metric: of the task, which is comparable itself, if it has no grid.
  """
  task: str
  protocol: str
  sizes: dict
  source: str
  grid_key: tuple | None
  metric: str = ''

  @property
  def is_comparable(self):
    """Whether a value of ours is comparable with the number."""
    return bool(self.metric or self.grid_key)

  @property
  def scale(self):
    """The factor from our value to the number."""
    measured = self.metric or (self.grid_key and self.grid_key[2])
    return percent.display_scale(measured) if measured else 1


_OPENAI, _DETOKENIZED, _RAW = "OpenAI's file", 'de-tokenized', 'raw'
REPRODUCTIONS = (
  Reproduction('lambada', 'last token, accuracy', {'124M': 46.67}, 'cybertronai/bflm',
               (_OPENAI, None, 'accuracy_last_token')),
  Reproduction('lambada', 'last token, a line break first and straight quotes, accuracy', {'124M': 46.89},
               'cybertronai/bflm', (f'{_OPENAI}, a line break first and straight quotes', None,
                                    'accuracy_last_token')),
  Reproduction('lambada', 'last word, stop words excluded at every token, accuracy', {'124M': 41.98},
               'cybertronai/bflm', (_OPENAI, None, 'accuracy_last_word_filtered_by_token')),
  Reproduction('lambada', 'last word, accuracy', {'124M': 32.56, '1558M': 51.21},
               'lm-evaluation-harness#911, #2159', (_OPENAI, None, 'accuracy_last_word')),
  Reproduction('lambada', 'last word, perplexity', {'124M': 40.06, '1558M': 10.63},
               'lm-evaluation-harness#911, #2159', (_OPENAI, None, 'perplexity')),
  Reproduction('wikitext2', 'raw, per token, stride n_ctx', {'124M': 29.94, '774M': 19.44},
               'huggingface/transformers#13761 and its documentation', (_RAW, 'n_ctx', 'token')),
  Reproduction('wikitext2', 'raw, per token, stride n_ctx / 2', {'774M': 16.45},
               'documentation of transformers', (_RAW, 'n_ctx / 2', 'token')),
  Reproduction('wikitext2', 'by article, de-tokenized (Megatron-LM), per word, line ends not counted',
               {'124M': 37.37}, 'lm-evaluation-harness',
               (_DETOKENIZED, 'n_ctx', 'word (line ends not counted)')),
  Reproduction('wikitext2', 'the same, line ends counted (derived)', {'124M': 35.1}, 'lm-evaluation-harness',
               (_DETOKENIZED, 'n_ctx', 'word')),
  Reproduction('wikitext2', 'raw, per word, line ends counted (derived)', {'124M': 53.6},
               'huggingface/transformers#13761', (_RAW, 'n_ctx', 'word')),
  Reproduction('wikitext103', 'validation set (here: the test set), raw, per token',
               _sizes(30.59, 22.35, 19.33, 17.46), 'llm.c#340', None),
  Reproduction('ptb', 'test, per token', {'124M': 52.53}, 'huggingface/transformers#13786',
               (_RAW, 'n_ctx', 'token')),
  Reproduction('ptb', 'test, per word', {'124M': 79.65}, 'huggingface/transformers#13786',
               (_RAW, 'n_ctx', 'word')),
  Reproduction('cbt_cn', 'accuracy', {'124M': 84.35}, 'huggingface/transformers#13761',
               (_DETOKENIZED, None, 'accuracy')),
  Reproduction('cbt_ne', 'accuracy', {'124M': 73.65}, 'huggingface/transformers#13761',
               (_DETOKENIZED, None, 'accuracy')),
  Reproduction('1bw', 'unit unclear', {'124M': 45.88}, 'huggingface/transformers#13761', None),
  Reproduction('hellaswag_llmc', 'lowest mean loss, accuracy', _sizes(29.45, 37.52, 43.20, 48.89),
               'llm.c, dev/vislog.ipynb', None, 'accuracy'),
  Reproduction('hellaswag_harness', 'acc, accuracy', {'124M': 28.92, '1558M': 40.04},
               'llm.c, dev/data/hellaswag.py', None, 'accuracy'),
  Reproduction('hellaswag_harness', 'acc_norm, accuracy', {'124M': 31.14, '1558M': 50.89},
               'llm.c, dev/data/hellaswag.py', None, 'accuracy_norm'),
)


def released_size(model):
  """Return the released size with this shape, or None; GPT-1 has the shape of 124M but is not a GPT-2.

  Args:
    model: {field: value} of `config.model`.
  """
  shape = model['n_layer'], model['n_embd']
  return next((size for size, released_shape in SIZES.items() if shape == released_shape
               and model.get('norm') != 'after'), None)
