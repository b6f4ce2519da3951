"""The tasks of both papers, a file for each kind.

  cloze               Multiple choice by log-likelihood: Children's Book Test and Winograd schemas (GPT-2
                      paper, 3.2, 3.4).
  common_answers      Natural Questions' baseline: the most common answer to questions of the same type
                      (GPT-2 paper, 3.8).
  gpt1                GPT-1's zero-shot heuristics as tasks (GPT-1 paper, section 5); Figure 2 uses the same
                      tasks.
  held_out            Held-out loss: the validation split of a prepared corpus, read as pretraining reads it.
  heuristics          GPT-1's zero-shot heuristics (section 5, Figure 2 right): tasks without any training on
                      them.
  lambada             LAMBADA: the last word of a passage (GPT-2 paper, section 3.3).
  language_modelling  Perplexity and bits per character of whole texts (GPT-2 paper, section 3.1 and Table 3).
  pronouns            Position of the pronoun in sentences of the Definite Pronoun Resolution set, and what
                      replaces it.
  question_answering  Question answering by generation: CoQA and Natural Questions (GPT-2 paper, 3.5 and 3.8).
  stopwords           Stop words that the LAMBADA filter excludes as last words: the English list of NLTK 3,
                      179 words.
  suite               All tasks, in the order in which they run and are listed in the table.
  summarization       Summaries of news: CNN and Daily Mail (GPT-2 paper, section 3.6 and Table 4).
  translation         Translation after a few examples: WMT-14 English and French (GPT-2 paper, section 3.7).
"""
