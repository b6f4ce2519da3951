"""How a model answers: likelihoods, generated text, and how answers are compared.

  answers          Comparison of answers: normalisation, exact match and F1 as in the official SQuAD and CoQA
                   scripts.
  evaluated_model  The model under evaluation, its tokenizer, and how a task queries it.
  generation       Generation of continuations of prompts, for the tasks that score generated text.
  overlap_scores   Scores by the overlap of an example with the training corpus, which show the effect of
                   contamination.
  scores           Log-likelihoods of tokens under a model: one implementation for every task that compares or
                   sums them.
  shared_prefix    Log-likelihoods of texts that begin with the same tokens, which are computed once.
"""
