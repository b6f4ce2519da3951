"""How much of test sets is in a training corpus (GPT-2, section 4): python -m gptjax.evaluate.overlap

  bloom       Bloom filters of 8-grams, in files that can be larger than the memory.
  build       Builds a filter of all 8-grams of sources, in several processes, in memory that does not grow
              with them.
  eightgrams  The 8-grams of texts as 64-bit keys (GPT-2, section 4).
  study       Which 8-grams of test sets are in a training corpus, set by set.
"""
