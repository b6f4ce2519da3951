"""Pieces of documents to token ids, and to the split that they belong to."""

from typing import NamedTuple

import numpy as np

from gptjax.data.tokenizers import special

SPLITS = ('train', 'validation')
ENCODE_FAILED = 'cannot be encoded'  # the reason under which texts are counted that were left out
MIN_TAIL = 64  # characters: what a shorter end of a document could validate is nothing


class Encoded(NamedTuple):
  """What one split gets from one block of pieces."""
  tokens: np.ndarray   # the corpus's dtype
  starts: np.ndarray   # uint64: where in `tokens` a document begins
  n_bytes: int         # UTF-8 bytes of the text


def in_validation(digest, fraction):
  """Whether the document with this digest belongs to validation; `fraction` of them do."""
  return int.from_bytes(digest[:8], 'little') < fraction * 2**64


def make_encoder(tokenizer_folder, dtype, tail, names=()):
  """The function that workers apply to blocks.

  Args:
    tokenizer_folder: a folder that holds the tokenizer.
    dtype: name of the type of the ids.
    tail: share of each document, at its end, that is validation (see `shares`); 0: whole documents.
    names: special tokens that a text may contain.

  Returns:
    A function of a list of (text, held out, start, length, place) that gives (train, validation,
    documents without a token, failures); the first two are Encoded. Text that cannot be encoded is left
    out of its document; failures has for each such text (place of the document, why).
  """
  from gptjax.data.tokenizers import loading
  tokenizer, names = loading.load(tokenizer_folder), tuple(names)

  def encode_block(pieces):
    parts, starts, counts, n_bytes = ([], []), ([], []), [0, 0], [0, 0]
    silent, failures = 0, []
    for text, held, start, length, place in pieces:
      for which, share, first, last in split_piece(text, held, start, length, tail):
        ids, problem = encode_piece(tokenizer, names, share, first, last)
        if problem:
          failures.append((place, problem))
        if first and last and not len(ids):
          silent += not problem
          continue
        if first:
          starts[which].append(counts[which])
        parts[which].append(ids)
        counts[which] += len(ids)
        n_bytes[which] += 0 if problem else len(share.encode())
    joined = [np.concatenate([np.empty(0, np.int32), *part]).astype(dtype) for part in parts]
    return *(Encoded(joined[i], np.array(starts[i], np.uint64), n_bytes[i]) for i in (0, 1)), silent, failures

  return encode_block


def encode_piece(tokenizer, names, text, first, last):
  """(int32[n] ids that a corpus gets for a text, '' or why the tokenizer failed at it).

  There are none for a whole document without a token, which is left out.

  Args:
    tokenizer: one of gptjax's.
    names: special tokens that the text may contain.
    text: a document, or a part of one.
    first, last: whether it begins, and ends, the document.
  """
  ids, problem = encode_text(tokenizer, names, text, first)
  end = tokenizer.end_of_text
  if last and end is not None and (len(ids) or not first):
    ids = np.append(ids, np.int32(end))
  return ids, problem


def encode_text(tokenizer, names, text, first):
  """(int32[n] ids of a text as `special.encode` gives them, ''); (none, why) if the tokenizer fails at it."""
  try:
    return special.encode(tokenizer, names, text, first), ''
  except BaseException as error:  # native code raises what is no Exception, too
    if not _of_an_encoder(error):
      raise
    reason = ' '.join(str(error).split())[:200] or type(error).__name__
    return np.empty(0, np.int32), f'{ENCODE_FAILED}: {reason}'


def _of_an_encoder(error):
  """Whether an error is one that tiktoken, sentencepiece, tokenizers or gptjax raise at a text."""
  return (isinstance(error, ValueError | RuntimeError) or type(error) is Exception
          or type(error).__name__ == 'PanicException')


def split_piece(text, held, start, length, tail):
  """What a piece gives to which split: [(0 train | 1 validation, text, begins, ends a document)].

  Args:
    text: characters [start, start + len(text)) of a document of `length` characters.
    held: whether the document belongs to validation.
    tail: 0, or the share of each document that is validation instead: its end, from the beginning
      of a line if one begins there, or else of a word. Documents whose end is shorter than
      MIN_TAIL characters stay whole.
  """
  stop = start + len(text)
  if not tail:
    return [(int(held), text, start == 0, stop == length)]
  border = int(length * (1 - tail)) if length * tail >= MIN_TAIL else length
  if border >= stop:
    return [(0, text, start == 0, stop == border)]
  if border <= start:
    return [(1, text, start == border, stop == length)]
  at = border - start
  for seam in '\n ':
    found = text.find(seam, at, len(text) - 1)
    if found >= 0:
      at = found + 1
      break
  return [(0, text[:at], start == 0, True), (1, text[at:], True, stop == length)]
