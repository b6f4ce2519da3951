"""The WebText recipe (GPT-2, section 2.1): python -m gptjax.data.clean

  clean_examples  For each filter of the WebText recipe a document that it, and none before it, removes, and
                  one that all filters keep. A document is (text, fields of its record).
  duplicates      Judging all documents before a corpus is written: the filters of the recipe, then
                  duplicates.
  webtext         The WebText recipe (GPT-2, section 2.1), as far as it can be done on text in hand.
"""
