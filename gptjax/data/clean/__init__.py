"""The WebText recipe (GPT-2, section 2.1): python -m gptjax.data.clean

  clean_examples  Examples for each filter of the WebText recipe.
  duplicates      Filters all documents before a corpus is written: the filters of the recipe, then
                  duplicates.
  near_duplicates Signatures of documents, and whether two are near duplicates.
  webtext         The WebText recipe (GPT-2, section 2.1), as far as it applies to text without its web page.
"""
