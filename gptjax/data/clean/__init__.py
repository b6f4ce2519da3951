"""The WebText recipe (GPT-2, section 2.1): python -m gptjax.data.clean

  clean_examples   Examples for each filter of the WebText recipe.
  duplicates       Filters all documents before a corpus is written: the filters of the recipe, then
                   duplicates.
  near_duplicates  Near duplicates by MinHash and locality-sensitive hashing (Broder 1997; Leskovec et al.,
                   MMDS, chapter 3).
  near_presets     The presets of near duplicates (--near), and the flags that change their numbers.
  webtext          The WebText recipe (GPT-2, section 2.1), as far as it applies to text without its web page.
"""
