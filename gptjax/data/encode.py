"""Encodes pieces of documents into token ids and assigns them to a split."""

from typing import NamedTuple

import numpy as np

from gptjax.data.tokenizers import special

SPLITS = ('train', 'validation')
ENCODE_FAILED = 'cannot be encoded'  # the reason under which skipped documents are counted
MIN_TAIL = 64  # characters: the end of a document is too short for validation below this


class Encoded(NamedTuple):
  """The part of one block that belongs to one split."""
  tokens: np.ndarray   # the corpus's dtype
  starts: np.ndarray   # uint64: positions in `tokens` at which documents start
  n_bytes: int         # UTF-8 bytes of the text


def in_validation(digest, fraction):
  """Whether the document with this digest belongs to validation; a share of `fraction` does."""
  return int.from_bytes(digest[:8], 'little') < fraction * 2**64


def make_encoder(tokenizer_folder, dtype, tail, names=()):
  """Return the function that workers apply to blocks.

  Args:
    tokenizer_folder: a folder that holds the tokenizer.
    dtype: name of the dtype of the ids.
    tail: share at the end of each document that is validation (see `split_piece`); 0: whole documents.
    names: special tokens that a text may contain.

  Returns:
    A function of a list of (text, held out, start, length, location) that returns (train, validation,
    number of documents without tokens, failures); the first two are Encoded. Text that cannot be encoded
    is omitted from its document; failures has (index in the list, reason) for each such text.
  """
  from gptjax.data.tokenizers import loading
  tokenizer, names = loading.load(tokenizer_folder), tuple(names)

  def encode_block(pieces):
    parts, starts, counts, n_bytes = ([], []), ([], []), [0, 0], [0, 0]
    n_empty, failures = 0, []
    for index, (text, held_out, start, length, _) in enumerate(pieces):
      for split, part, first, last in split_piece(text, held_out, start, length, tail):
        ids, problem = encode_piece(tokenizer, names, part, first, last)
        if problem:
          failures.append((index, problem))
        if first and last and not len(ids):
          n_empty += not problem
          continue
        if first:
          starts[split].append(counts[split])
        parts[split].append(ids)
        counts[split] += len(ids)
        n_bytes[split] += 0 if problem else len(part.encode())
    joined = [np.concatenate([np.empty(0, np.int32), *ids]).astype(dtype) for ids in parts]
    encoded = [Encoded(joined[i], np.array(starts[i], np.uint64), n_bytes[i]) for i in (0, 1)]
    return *encoded, n_empty, failures

  return encode_block


def encode_piece(tokenizer, names, text, first, last):
  """Return (int32[n] ids of a piece with its end-of-text token, '' or the reason why encoding failed).

  A whole document without tokens has no ids, and is skipped.

  Args:
    tokenizer: any tokenizer of gptjax.
    names: special tokens that the text may contain.
    text: a document, or a part of one.
    first, last: whether it is the first, and the last, part of the document.
  """
  ids, problem = encode_text(tokenizer, names, text, first)
  end = tokenizer.end_of_text
  if last and end is not None and (len(ids) or not first):
    ids = np.append(ids, np.int32(end))
  return ids, problem


def encode_text(tokenizer, names, text, first):
  """Return (int32[n] ids from `special.encode`, ''), or (no ids, reason) if the tokenizer fails."""
  try:
    return special.encode(tokenizer, names, text, first), ''
  except BaseException as error:  # native code also raises subclasses of BaseException
    if not _is_encoder_error(error):
      raise
    reason = ' '.join(str(error).split())[:200] or type(error).__name__
    return np.empty(0, np.int32), f'{ENCODE_FAILED}: {reason}'


def _is_encoder_error(error):
  """Whether an error is one that tiktoken, sentencepiece, tokenizers or gptjax raise for a text."""
  return (isinstance(error, ValueError | RuntimeError) or type(error) is Exception
          or type(error).__name__ == 'PanicException')


def split_piece(text, held_out, start, length, tail):
  """Split a piece: [(0 for train or 1 for validation, text, starts a document, ends a document)].

  Args:
    text: characters [start, start + len(text)) of a document of `length` characters.
    held_out: whether the document belongs to validation.
    tail: 0, or the share at the end of each document that is validation instead. The cut is at the next
      start of a line, or else of a word. Documents whose end is shorter than MIN_TAIL characters are not
      cut.
  """
  stop = start + len(text)
  if not tail:
    return [(int(held_out), text, start == 0, stop == length)]
  cut = int(length * (1 - tail)) if length * tail >= MIN_TAIL else length
  if cut >= stop:
    return [(0, text, start == 0, stop == cut)]
  if cut <= start:
    return [(1, text, start == cut, stop == length)]
  at = cut - start
  for separator in '\n ':
    index = text.find(separator, at, len(text) - 1)
    if index >= 0:
      at = index + 1
      break
  return [(0, text[:at], start == 0, True), (1, text[at:], True, stop == length)]
