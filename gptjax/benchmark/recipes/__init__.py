"""The modern recipe compared with GPT-2 and AdamW; the command is `gptjax.benchmark.subjects.recipes`.

  budgets      FLOPs of a run: those of the model, and those of Muon's orthogonalization, which the usual
               count omits
  comparison   The runs of a size: both ends at several budgets, and the recipe without single ingredients
  contenders   What is compared: GPT-2 with AdamW, the modern recipe, and the modern recipe without single
               ingredients
  report       The table, the figure and the result file of the comparison
  runs         Training runs that are measured once: each result is in a journal, and a restart continues
               after it
  training     Trains a config from random weights in this process; configs that differ in rate or seed
               compile once
"""
