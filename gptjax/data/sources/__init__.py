"""Documents from files, archives, tables, TensorFlow Datasets and corpora.

  corpus           Documents from a corpus that `gptjax.data.prepare` wrote, decoded from its tokens.
  documents        Documents from where they lie: text, JSON lines, Parquet, TFDS, corpora, Python's own
                   documentation.
  fields           Fields of records, by their name or by a dotted one, and where a document comes from.
  file_signatures  What a file that should be UTF-8 text is instead, as far as its first bytes or a NUL byte
                   show.
  files            Files of documents: plain, .gz or .zst, local or remote; and documents from files of text.
  jsonl            Documents from files of JSON objects, one a line.
  parquet          Documents from Parquet files, a row each.
  parquet_pages    Parquet files whose pages are looked at while they are read: a large one is refused before
                   it is unpacked.
  python           The English that ships with every Python: its language reference, the docstrings of its
                   library.
  tar              Documents from tar archives: a file in the archive is a document, or several between
                   separators.
  tfds             Documents from TensorFlow Datasets, prepared or not yet.
  tfds_folder      Folders of prepared TensorFlow Datasets: found by name, and checked before TFDS reads them.
  unit             A part of a source that one worker reads.
"""
