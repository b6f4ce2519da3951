"""The texts of evaluation sets: where they come from, their schemas, and text as people write it.

  detokenize  Invertible de-tokenizers: natural text from the tokenized text of data sets, and back.
  schema      Schemas of published data sets, declared beside the reader of each set and checked before
              scoring.
  sentences   Splitting text into sentences; the papers do not say how they did it.
  sources     Sources of the examples of tasks: prepared TFDS folders and the published files of data sets.
  spelling    Respelling of text for comparison with a corpus of a lossy tokenizer.
"""
