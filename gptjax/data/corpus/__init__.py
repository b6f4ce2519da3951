"""A prepared corpus: its files, and the windows that each batch reads.

  corpus_manifest  The manifest of a corpus: the content of its files, with digests. It is validated before
                   any use.
  held_out         Chooses the text that a corpus holds out for validation: nothing, or at least one window,
                   but never all.
  local_shards     Memory maps of the files of a corpus on this machine, and their verification.
  mixture          The mixture of corpora that a run reads: opened, validated, and sampled by weight.
  ngrams           Baselines for a language model: unigram and bigram losses on the same text.
  order            Maps sample numbers to windows of corpora: pure arithmetic, without state or files.
  packing          Packing: the documents that share a row of a batch, kept apart (`config.data.packing`).
  pipeline         Prefetches batches for the training loop, with tf.data or a thread, over a pure function of
                   the step.
  reader           Reads a corpus: its folder, its token stream, and the windows of each batch.
  remote_shards    Shards of a corpus in a bucket, copied to this machine in the order of the batches.
  shard_queue      Downloads shards in the background: those for which a reader waits before those planned.
  tree             The digest of a token stream: a tree, so that its parts can be hashed by many machines.
"""
