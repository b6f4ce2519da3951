"""Documents from tables: Parquet, and Arrow as the library `datasets` writes it.

  arrow            Documents from Arrow files, one per row.
  arrow_messages   Checks the messages of Arrow files while they are read, and rejects a large record batch
                   before it is read or decompressed.
  datasets_folder  Finds the Arrow files of folders that the library `datasets` wrote.
  parquet          Documents from Parquet files, one per row.
  parquet_pages    Checks the pages of Parquet files while they are read, and rejects a large page before
                   decompression.
  rows             What readers of tables have in common: limits, messages, and the documents of rows.
"""
