"""The words that texts have in common: their n-grams as keys.

  key_set  A set of keys in memory, in which those of a stream of text are looked up.
  keys     The n-grams of texts as 64-bit keys; GPT-2, section 4, has n = 8.
  windows  The n-grams of documents that are read in pieces, and where they are.
"""
