"""What the appendix of the GPT-2 paper shows, for the report.

  figure_5  Figure 5: how much of samples and of real text is in the training text.
  recital   Section 8.2: how far the models recite known texts.
  samples   Tables 7 to 13: completions of held-out contexts, side by side, and the best of several samples.
"""
