"""Text to token ids and back: python -m gptjax.data.tokenizers

  byte_bpe         Byte-level BPE (GPT-2, section 2.2): encoding, decoding and training.
  gpt1_text        GPT-1's tokenizer: 40,000 merges over lower-case words (the released `text_utils.py`).
  gpt1_words       Words as GPT-1's tokenizer saw them: the English rules of spaCy, as rules of our own.
  hf_folder        What the files of a Hugging Face folder say about its tokenizer, as transformers 5 reads
                   them.
  hf_tokenizer     The tokenizer of a Hugging Face folder: as one of ours where its files are those, else by
                   `tokenizers`.
  loading          Opens the tokenizer that a text like `bpe:DIR` names.
  long_words       Text whose words are cut where they are too long to train a tokenizer on.
  native           Calls into libraries written in Rust and C++ with files and text of others.
  sentence_piece   Tokenizers of the sentencepiece library, and their training.
  special          Texts in which some names are special tokens.
  tokenizer_files  What all tokenizers share: digests of their files, end tokens, and saving.
  training         Trains a tokenizer on the texts of sources.
"""
