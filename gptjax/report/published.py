"""Numbers in the figures and Table 6 of the GPT-2 paper; its other numbers are in `gptjax.evaluate.paper`."""

# Figure 1: task, metric, title, and the systems whose scores are drawn as lines, most of which the paper
# gives no number for. Sources: CoQA, Reddy et al. 2019 (test sets); translation, the abstract of Artetxe et
# al. 2018, and 2019 as quoted in section 3.7; summaries, Table 4 and, for PGNet, See et al. 2017 (the mean of
# 36.44, 15.66 and 33.42, without coverage; which one is drawn is not stated); Natural Questions, section 3.8.
# The lines "embedding nearest neighbour", "denoising" and "unsupervised statistical MT" of the second panel
# are not here, because their numbers could not be confirmed.
FIGURE_1 = (
  ('coqa', 'f1', 'Reading comprehension\nCoQA, F1 (development; systems: test)',
   (('human', 88.8), ('DrQA + PGNet', 65.1), ('DrQA', 52.6), ('PGNet', 44.1), ('Seq2seq', 26.3))),
  ('wmt14_fr_en', 'bleu', 'Translation\nWMT-14 French to English, BLEU',
   (('best unsupervised', 33.5), ('denoising and\nback-translation', 15.56))),
  ('cnn_dailymail', 'rouge_mean', 'Summarisation\nCNN/Daily Mail, mean of ROUGE-1, -2, -L',
   (('Lead-3', 31.55), ('PGNet', 28.51), ('Seq2Seq + Attn', 23.99), ('Random-3', 20.98))),
  ('natural_questions', 'exact_match', 'Question answering\nNatural Questions, exact match',
   (('retrieval systems, from', 30.0), ('most frequent answer', 1.0))))

# Figure 2: human accuracy on the Children's Book Test, from Bajgar et al. 2016; read from the plot.
HUMAN = {'cbt_cn': 96.0, 'cbt_ne': 92.0}

N_VOCAB = 50_257  # entries of GPT-2's tokenizer

# Figure 4: perplexity per token on WebText; read from the plot, accurate to one or two points.
WEBTEXT = {'train': {'124M': 16.0, '1558M': 9.0}, 'test': {'124M': 17.0, '1558M': 11.0}}

# Table 6: per cent of a test set's 8-grams that are also in (its own training split, WebText's).
OVERLAP = {'ptb': (2.67, 0.88), 'wikitext2': (0.66, 1.63), 'enwik8': (7.50, 6.31), 'text8': (2.34, 3.94),
           'wikitext103': (9.09, 2.42), '1bw': (13.19, 3.75)}

PARAMETERS = {'124M': 124_439_808, '355M': 354_823_168, '774M': 774_030_080, '1558M': 1_557_611_200}
