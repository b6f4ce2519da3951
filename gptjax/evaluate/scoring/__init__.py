"""How a model answers: likelihoods, generated text, and how answers are compared.

  answers  How answers are compared: SQuAD's normalisation, exact match and F1, as its and CoQA's official
           scripts.
  buckets  Scores by how much of an example was in the training corpus, so that contamination shows in the
           metric.
  scores   How likely a model finds tokens after others: one implementation for every task that compares or
           sums.
  subject  What is evaluated: a model, its tokenizer, and how a task asks it.
  writing  Texts that the model writes after prompts, for the tasks that read them.
"""
