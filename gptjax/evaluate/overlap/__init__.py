"""How much of test sets is in a training corpus (GPT-2, section 4): python -m gptjax.evaluate.overlap

  bloom          Bloom filters of 8-grams, in files that may be larger than memory.
  build          The Bloom method: a filter of all 8-grams of sources, built in parts and in constant memory.
  exact          The exact method: the 8-grams of the test sets are in memory, and the training text is read
                 past them.
  lookup         Looks up the 8-grams of test sets, and counts those that a training text has.
  study          The overlap study (GPT-2, section 4): the share of 8-grams of each test set that a training
                 corpus has.
  table          The results of the overlap study: the rows of `overlap.json`, and the table that is printed.
  training_text  Text that a model was trained on, which is read in parts by any number of processes and
                 machines.
"""
