"""Documents from files, archives, tables, TensorFlow Datasets and corpora.

  corpus           Documents from a corpus that `gptjax.data.prepare` wrote, decoded from its tokens.
  documents        Reads documents from sources: text, JSON lines, Parquet, TFDS, corpora, Python's own
                   documentation.
  fields           Looks up fields of records by name or dotted name, and the fields that describe a
                   document's origin.
  file_access      Finds files and opens them: local or remote (fsspec), plain, .gz or .zst; errors have one
                   line.
  file_signatures  Recognizes files that are not UTF-8 text by their first bytes or a NUL byte.
  files            Documents, in pieces of bounded size, from text files and from text in memory.
  jsonl            Documents from files of JSON objects, one per line.
  parquet          Documents from Parquet files, one per row.
  parquet_pages    Checks the pages of Parquet files while they are read, and rejects a large page before
                   decompression.
  python           English text that ships with Python: the language reference and the docstrings of the
                   standard library.
  tar              Documents from tar archives: a file in the archive is one document, or several with
                   separators.
  tfds             Documents from TensorFlow Datasets, which it can also prepare.
  tfds_folder      Finds folders of prepared TensorFlow Datasets by name, and validates them before TFDS reads
                   them.
  unit             A unit: a part of a source that is read from its beginning.
"""
