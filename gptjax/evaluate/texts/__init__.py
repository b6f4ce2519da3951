"""The texts of evaluation sets: where they come from, their schemas, and text as people write it.

  detokenize  De-tokenizers that can be undone: text as people write it, from text as data sets store it,
              and back.
  schema      What a published data set looks like: declared beside the reader of each set, checked before
              scoring.
  sentences   Where sentences end; the papers do not say how they told.
  sources     Where the examples of a task come from: TFDS folders that are prepared, and the sets' own files.
  spelling    The words of a corpus whose tokenizer does not give its text back, for comparison with other
              text.
"""
