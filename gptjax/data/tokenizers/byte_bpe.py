"""Byte-level BPE (GPT-2, section 2.2): encoding, decoding and training."""

import functools
import json
from pathlib import Path

import numpy as np

from gptjax.data.sources import files
from gptjax.data.tokenizers import native
from gptjax.data.tokenizers.long_words import cut_long_words
from gptjax.data.tokenizers.tokenizer_files import (
  GPT2_DIGEST,
  default_eos_ids,
  digest,
  read_file,
  save_files,
  saved_files,
)
from gptjax.errors import InputError
from gptjax.storage.files import access, json_files

END_OF_TEXT = '<|endoftext|>'
TIKTOKEN_CHARACTERS = 1 << 19  # per call: a run of a million spaces overflows tiktoken's stack
# The pre-tokenization of GPT-2 as in tiktoken: possessive quantifiers are faster and match the same.
PATTERN = (r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s")


@functools.cache
def _byte_symbols():
  """Return {byte: character}: the symbols of bytes in OpenAI's files, in the order of their ids."""
  printable = [b for b in range(256) if chr(b).isprintable() and chr(b) != ' ']
  others = [b for b in range(256) if b not in printable]
  return {b: chr(b) for b in printable} | {b: chr(256 + n) for n, b in enumerate(others)}


def bpe_symbols(merges):
  """Return the entries of a byte-level BPE in OpenAI's layout, in the order of their ids."""
  return [*_byte_symbols().values(), *(a + b for a, b in merges), END_OF_TEXT]


def train_bpe(texts, n_vocab):
  """Train a byte-level BPE with GPT-2's pre-tokenization on `texts`; the result is deterministic.

  Args:
    texts: iterable of str.
    n_vocab: number of entries: 256 bytes, merges, and `<|endoftext|>` as the last.

  Raises:
    ValueError: n_vocab is below 257, or the texts have too few pairs to merge.
  """
  if n_vocab < 257:
    raise InputError(f'a byte-level BPE needs at least 257 entries (256 bytes, {END_OF_TEXT}), '
                     f'not {n_vocab}')
  import tokenizers
  model = tokenizers.Tokenizer(tokenizers.models.BPE())
  model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
  alphabet = list(_byte_symbols().values())
  model.train_from_iterator(cut_long_words(texts), tokenizers.trainers.BpeTrainer(
    vocab_size=n_vocab - 1, initial_alphabet=alphabet, min_frequency=1, show_progress=False))
  merges = [tuple(pair) for pair in json.loads(model.to_str())['model']['merges']]
  if len(merges) != n_vocab - 257:
    most = 257 + len(merges)
    raise InputError(f'the text is too short for {n_vocab} entries: choose at most {most}, or add text')
  symbols = bpe_symbols(merges)
  assert len(set(symbols)) == n_vocab, 'two merges with one result'
  encoder = json.dumps({symbol: i for i, symbol in enumerate(symbols)})
  lines = ['#version: 0.2', *(f'{a} {b}' for a, b in merges)]
  return ByteBPE(encoder.encode(), ('\n'.join(lines) + '\n').encode())


class ByteBPE:
  """Byte-level BPE, GPT-2's or a trained one, encoded by tiktoken."""

  text_prefix = ()

  @classmethod
  def read(cls, folder):
    """Read OpenAI's `encoder.json` and `vocab.bpe`, or the same files under Hugging Face's names."""
    folder = Path(folder)
    if not access.is_file(folder / 'encoder.json') and access.is_file(folder / 'vocab.json'):
      return cls(read_file(folder / 'vocab.json'), read_file(folder / 'merges.txt'))
    return cls(read_file(folder / 'encoder.json'), read_file(folder / 'vocab.bpe'))

  def __init__(self, encoder, merges):
    """Create from the contents (bytes) of `encoder.json` and `vocab.bpe`."""
    import tiktoken
    self.files = {'encoder.json': encoder, 'vocab.bpe': merges}
    self.digest = digest(encoder, merges)
    self.name = 'gpt2' if self.digest == GPT2_DIGEST else 'bpe'
    ranks = _ranks(encoder, merges)
    self.n_vocab, self.end_of_text = len(ranks) + 1, len(ranks)
    self.start_of_text = self.end_of_text
    self.eos_ids, self.special_tokens = default_eos_ids(self.end_of_text), {END_OF_TEXT: self.end_of_text}
    self.coder = native.call(
      'encoder.json and vocab.bpe cannot be read', tiktoken.Encoding, self.name, pat_str=PATTERN,
      mergeable_ranks=ranks, special_tokens={END_OF_TEXT: self.end_of_text}, explicit_n_vocab=self.n_vocab)

  def encode(self, text):
    """Return int32[n] ids of the text."""
    chunks = []
    while True:
      stop = files.cut_position(text[:TIKTOKEN_CHARACTERS + 1], TIKTOKEN_CHARACTERS)
      ids = native.call('vocab.bpe cannot encode a text', self.coder.encode_to_numpy, text[:stop],
                        disallowed_special=())
      chunks.append(ids.astype(np.int32))
      text = text[stop:]
      if not text:
        return np.concatenate(chunks) if len(chunks) > 1 else chunks[0]

  def encode_part(self, text, first):
    """Return int32[n] ids of a part of a document (see `files.cut_position`), as in the whole document."""
    del first
    return self.encode(text)

  def decode_bytes(self, ids):
    """Return the bytes of the ids."""
    return native.call('vocab.bpe cannot decode ids', self.coder.decode_bytes, np.asarray(ids).tolist())

  def decode(self, ids):
    """Return the text of the ids; bytes that are not UTF-8 become U+FFFD."""
    return self.decode_bytes(ids).decode('utf-8', errors='replace')

  def save(self, folder):
    """Write the tokenizer's files into the folder, which is created if needed."""
    save_files(folder, saved_files(self))


def _ranks(encoder, merges):
  """Return {bytes: id} of all entries except the last; ValueError unless the files are in OpenAI's layout."""
  try:
    ids = json_files.parse(encoder)
    pairs = [line.split(' ') for line in merges.decode().split('\n')[1:] if line]
    *symbols, _ = bpe_symbols(pairs)
    byte_of = str.maketrans({symbol: chr(byte) for byte, symbol in _byte_symbols().items()})
    ranks = {symbol.translate(byte_of).encode('latin-1'): i for i, symbol in enumerate(symbols)}
  except ValueError as error:
    raise InputError('encoder.json and vocab.bpe are not those of a byte-level BPE: '
                     f'{type(error).__name__} {error}') from None
  expected = {symbol: i for i, symbol in enumerate([*symbols, END_OF_TEXT])}
  if not isinstance(ids, dict):
    raise InputError(f'encoder.json holds a {type(ids).__name__}, not an object of entries and ids')
  if ids != expected or len(ranks) != len(symbols):
    raise InputError(f'encoder.json ({len(ids)} entries) does not fit vocab.bpe ({len(pairs)} '
                     f'merges): ids must be the 256 bytes, the merges, and {END_OF_TEXT} last')
  return ranks
