"""Corpora: sources, cleaning, tokenizers, and the data that training reads.

  blocks      Pieces of documents in the order of the sources, from any position on, in blocks for workers.
  clean       The WebText recipe (GPT-2, section 2.1)
  corpus      A prepared corpus: its files, and which windows of it each batch reads.
  encode      Pieces of documents to token ids, and to the split that they belong to.
  inspect     Shows a corpus: counts, damage, lengths of documents, and the text of a document or a batch.
  prepare     Writes a corpus: documents from any source, tokenized, in shards with a manifest.
  progress    The bar of `prepare`: how much text, how fast, and the time that is left as far as it can be
              told.
  sources     Documents from files, archives, tables, TensorFlow Datasets and corpora.
  summary     What `gptjax.data.prepare` prints of a corpus that it has written.
  tokenizers  Text to token ids and back
  workers     Work on a sequence in several processes, with the results in the order of the sequence.
"""
