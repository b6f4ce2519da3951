"""How much of test sets is in a training corpus (GPT-2, section 4): python -m gptjax.evaluate.overlap

  bloom       Bloom filters of 8-grams, in files that may be larger than memory.
  build       Builds a filter of all 8-grams of sources, with several processes and in constant memory.
  eightgrams  The 8-grams of texts as 64-bit keys (GPT-2, section 4).
  study       The overlap study (GPT-2, section 4): the share of 8-grams of each test set that a training
              corpus has.
"""
