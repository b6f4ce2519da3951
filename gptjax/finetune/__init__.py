"""GPT-1's second stage (Radford et al. 2018, from section 3.2): fine-tuning of a pretrained model on tasks.

  batches     Padding widths, and the examples of each batch
  data        A task's examples as token sequences
  glue        A submission to the GLUE benchmark: written and checked
  job         The job: all tasks with all seeds
  model       The language model with a classification head
  report      Log lines of a run
  results     Scores, tables and predictions
  run         One task with one seed
  step        The loss L3 and the training step as a pure function
  studies     Table 5 and Figure 2 (left) of the paper
  tasks/      Definitions of the tasks, their examples and metrics
  trainable   Which weights are trained: full, last or lora
  weights     Initial weights of a run, and export of its language model
  zero_shot   Figure 2 (right) of the paper
"""
