"""Text to token ids and back: python -m gptjax.data.tokenizers

  byte_bpe         Byte-level BPE (GPT-2, section 2.2): encoding, decoding and training.
  characters       Character-level tokenizers: each character of the training text is an entry.
  gpt1_text        GPT-1's tokenizer: 40,000 merges over lower-case words (the released `text_utils.py`).
  gpt1_words       Splits text into the words of GPT-1's tokenizer: a reimplementation of the English rules of
                   spaCy.
  hf_folder        Reads the description of a tokenizer from a Hugging Face folder, with the semantics of
                   transformers 5.
  hf_tokenizer     Loads the tokenizer of a Hugging Face folder: natively for GPT-2 and GPT-1, otherwise by
                   `tokenizers`.
  loading          Opens the tokenizer that a text like `bpe:DIR` names.
  long_words       Cuts words that are too long for training a tokenizer.
  native           Calls libraries written in Rust and C++ with untrusted files and text.
  sentence_piece   Tokenizers of the sentencepiece library, and their training.
  special          Encodes texts that contain special tokens.
  token_bytes      How many bytes of text each entry of a tokenizer stands for, to count the text of tokens
                   without it.
  tokenizer_files  Functions for all tokenizers: digests of their files, end tokens, and saving.
  training         Trains a tokenizer on the texts of sources.
"""
