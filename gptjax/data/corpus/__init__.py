"""A prepared corpus: its files, and the windows that each batch reads.

  corpus_manifest  The manifest of a corpus: what its files hold, with digests; checked before anything of it
                   is used.
  held_out         What a corpus holds out for validation: nothing, or at least one window, and never all of
                   it.
  mixture          What a run reads: the corpora that its config names, opened, checked, and shared out by
                   weight.
  ngrams           What a model must beat: unigram and bigram losses of the same text.
  order            Which window each row of each batch reads: arithmetic on sample numbers, no state, no
                   files.
  pipeline         Reads batches ahead of the training loop: tf.data over a pure function of the step.
  reader           Reads a corpus: its folder, its token stream, and which windows of it make up each batch.
  shards           The files of a corpus while it is being written: only ever longer, and cut back after a
                   kill.
"""
