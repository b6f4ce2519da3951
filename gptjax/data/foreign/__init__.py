"""Files of tokens that other projects write, in the layouts of their own.

  datatrove  datatrove's `.ds` files, with the ends of the documents beside them in `.ds.index`.
  files      The files of other projects: found by names in one folder, here or in a bucket.
  formats    The formats by the name with which `gptjax.data.adopt` is called.
  layout     What a format declares: the names of its files, and where their ids and documents begin.
  llmc       The shards of llm.c and modded-nanogpt: a header of 256 int32, then the ids.
  megatron   Megatron-LM's indexed data sets: ids in `.bin`, sequences and documents in `.idx`.
  nanogpt    nanoGPT's `train.bin` and `val.bin`: ids, nothing else.
  npy        NumPy's own files, as build-nanogpt writes them.
  raw        Ids without a header, as OLMo's: files to be memory-mapped, whatever their names end with.
  recorded   An adopted corpus that is there already: is it complete, have its files moved or changed?
  scan       Reads the files of a split once: digests, ids, bytes of text, and document starts.

A new format is a module with a `layout.Format`, and a line in `formats`. Ids without a header need nothing
else:

    def _layout(file, options):
      return layout.headerless(file, 'uint16')

    FORMAT = layout.Format(('*.tokens',), _layout, validation='valid*')

A header is read with `file.head(n_bytes)`, and `layout.Layout(dtype, offset, n_tokens)` says where the ids
begin; `scan` checks the size of the file. If another file lists the documents, `Format.starts` yields their
first tokens; else a document begins after each end-of-text token.
"""
