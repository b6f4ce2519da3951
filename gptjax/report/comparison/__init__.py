"""Comparison of models: over size, and of their losses with published ones.

  loss_over_tokens  Held-out loss over training tokens beside published losses of the same text.
  published_losses  Published losses by training text.
  sizes             The table of results over size: one row for each model.
"""
