"""Documents from files, archives, tables, TensorFlow Datasets and corpora.

  corpus_source   Documents from a corpus that `gptjax.data.prepare` wrote, decoded from its tokens.
  documents       Documents from where they lie: text, JSON lines, Parquet, TFDS, corpora, Python's own
                  documentation.
  fields          Fields of records, by their name or by a dotted one, and where a document comes from.
  files           Files of documents: plain, .gz or .zst, local or remote; and documents from files of text.
  jsonl_source    Documents from files of JSON objects, one a line.
  kinds_of_bytes  What a file that should be UTF-8 text is instead, as far as its first bytes or a NUL byte
                  show.
  parquet_pages   Parquet files whose pages are looked at while they are read: a large one is refused before
                  it is unpacked.
  parquet_source  Documents from Parquet files, a row each.
  python_source   The English that ships with every Python: its language reference, the docstrings of its
                  library.
  tar_source      Documents from tar archives: a file in the archive is a document, or several between
                  separators.
  tfds_folder     Folders of prepared TensorFlow Datasets: found by name, and checked before TFDS reads them.
  tfds_source     Documents from TensorFlow Datasets, prepared or not yet.
  unit            A part of a source that one worker reads.
"""
