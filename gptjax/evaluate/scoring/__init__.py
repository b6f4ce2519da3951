"""How a model answers: likelihoods, generated text, and how answers are compared.

  answers          How answers are compared: SQuAD's normalisation, exact match and F1, as its and CoQA's
                   official scripts.
  evaluated_model  The model under evaluation, its tokenizer, and how a task queries it.
  generation       Texts that the model generates after prompts, for the tasks that read them.
  overlap_scores   Scores by how much of an example was in the training corpus, so that contamination shows in
                   the metric.
  scores           How likely a model finds tokens after others: one implementation for every task that
                   compares or sums.
"""
