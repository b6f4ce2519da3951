"""Documents from files, archives, tables, TensorFlow Datasets and corpora.

  columns          Documents from tables: Parquet, and Arrow as the library `datasets` writes it.
  corpus           Documents from a corpus that `gptjax.data.prepare` wrote, decoded from its tokens.
  decoded          The text of the tokens of a long document, in parts of bounded size.
  decompression    Decompresses files while they are read: .gz, .zst, .bz2 and .xz, in bounded memory.
  documents        Reads documents from sources: text, JSON lines, tables, TFDS, corpora, Python's own
                   documentation.
  fields           Looks up fields of records by name or dotted name, and the fields that describe a
                   document's origin.
  file_access      Finds files and opens them: local or remote (fsspec), plain or compressed; errors have one
                   line.
  file_signatures  Recognizes files that are not UTF-8 text by their first bytes or a NUL byte.
  files            Documents, in pieces of bounded size, from text files and from text in memory.
  hub_revisions    Pins URLs of the Hugging Face Hub to a commit.
  jsonl            Documents from files of JSON objects, one per line.
  python           English text that ships with Python: the language reference and the docstrings of the
                   standard library.
  tar              Documents from tar archives: a file in the archive is one document, or several with
                   separators.
  tfds             Documents from TensorFlow Datasets, which it can also prepare.
  tfds_folder      Finds folders of prepared TensorFlow Datasets by name, and validates them before TFDS reads
                   them.
  warc             Documents from web archives: the text of each HTML page (pip install 'gptjax[webtext]').
  unit             A unit: a part of a source that is read from its beginning.
"""
