"""How many bytes of text each entry of a tokenizer stands for, to count the text of tokens without it."""

import json
import re
from typing import NamedTuple

import numpy as np

from gptjax.data.tokenizers import byte_bpe, characters, hf_tokenizer, sentence_piece
from gptjax.errors import InputError

BYTE = re.compile(r'<0x[0-9A-Fa-f]{2}>')  # an entry that is one byte, of sentencepiece and its descendants
# Text that a tokenizer restores only if it normalizes nothing.
PROBE = 'Two  spaces, e\u0301 and \u00e9, \ufb01, \uff21\n\tend '


class TokenBytes(NamedTuple):
  """Bytes of the text of tokens: their sum, and `per_document` for each document.

  n_bytes: int64[n_vocab]; 0 for special tokens, because `prepare` counts the text of documents alone.
  per_document: -1 if the entries of a text have one space more than the text.
  exact: whether that is the size of the text; if not, the tokenizer changes a text before it splits it.
  """
  n_bytes: np.ndarray
  per_document: int
  exact: bool


def token_bytes(tokenizer):
  """Return the TokenBytes of a tokenizer."""
  lengths = np.array(_lengths(tokenizer), np.int64)
  special = [i for i in tokenizer.special_tokens.values() if i < len(lengths)]
  lengths[special] = 0
  if tokenizer.end_of_text is not None:
    lengths[tokenizer.end_of_text] = 0
  if isinstance(tokenizer, byte_bpe.ByteBPE | characters.Characters):
    return TokenBytes(lengths, 0, True)
  try:
    per_document = min(0, max(-1, 1 - int(lengths[tokenizer.encode('a')].sum())))
    ids = tokenizer.encode(PROBE)
    exact = (tokenizer.decode(ids) == PROBE
             and int(lengths[ids].sum()) + per_document == len(PROBE.encode()))
  except InputError:  # of a text that it cannot encode
    per_document, exact = 0, False
  return TokenBytes(lengths, per_document, exact)


def _lengths(tokenizer):
  """Return the bytes of each entry."""
  ids = range(tokenizer.n_vocab)
  if isinstance(tokenizer, byte_bpe.ByteBPE):
    return [len(tokenizer.coder.decode_single_token_bytes(i)) for i in ids]
  if isinstance(tokenizer, characters.Characters):
    return [len(entry.encode(errors='surrogatepass')) for entry in tokenizer.entries]
  if isinstance(tokenizer, sentence_piece.SentencePiece):
    return [_piece_bytes(tokenizer.coder.id_to_piece(i)) for i in ids]
  if isinstance(tokenizer, hf_tokenizer.LibraryTokenizer):
    return _library_lengths(tokenizer)
  # GPT-1's: the second of two has the space between words.
  return [len(tokenizer.decode([i, i]).encode()) - len(tokenizer.decode([i]).encode()) for i in ids]


def _piece_bytes(piece):
  """Return the bytes of an entry in which a space is U+2581 and a byte may be `<0x0A>`."""
  return 1 if BYTE.fullmatch(piece) else len(piece.replace(sentence_piece.SPACE, ' ').encode())


def _library_lengths(tokenizer):
  """Return the bytes of each entry of a tokenizer.json."""
  description = json.loads(tokenizer.coder.to_str())
  added = {token['id']: token['content'] for token in description.get('added_tokens') or ()}
  decoder = description.get('decoder') or {}
  of_bytes = 'ByteLevel' in [part.get('type') for part in [decoder, *decoder.get('decoders', ())]]
  lengths = [0] * tokenizer.n_vocab
  for entry, i in tokenizer.coder.get_vocab().items():
    if of_bytes:  # a character of an entry is one byte; added tokens are text
      lengths[i] = len(added[i].encode()) if i in added else len(entry)
    else:
      lengths[i] = _piece_bytes(entry)
  return lengths
