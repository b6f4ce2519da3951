"""The text of the tokens of a long document, in parts of bounded size.

Tokens of bytes are decoded by an incremental decoder. Any other tokenizer may decode tokens depending on
those before them: it omits the first space of a text, for example, or joins the bytes of one character. So a
part is decoded together with some tokens before it, its context, whose text is then removed, and it begins
where a longer context gives the same text.
"""

import codecs
import itertools

from gptjax.data.tokenizers import byte_bpe

DECODED_TOKENS = 1 << 17  # of a part
CONTEXT, LONGER = 16, 33  # tokens; not multiples, so that what repeats itself does not look alike in both
MAX_MORE = 256            # tokens by which a part may be longer, to end at such a place
CHARACTER = 4             # bytes of a character
REPLACEMENT = '\ufffd'    # decoded from bytes that are not a character


def texts(read, tokenizer, start, stop):
  """Yield the text of tokens [start, stop) of one document in parts.

  Args:
    read: function of (start, stop) -> int32[stop - start], tokens.
    tokenizer: as `loading.load` returns.
    start, stop: of the document, without the token that ends it.
  """
  if isinstance(tokenizer, byte_bpe.ByteBPE):
    decoder = codecs.getincrementaldecoder('utf-8')(errors='replace')
    for at in range(start, stop, DECODED_TOKENS):
      end = min(at + DECODED_TOKENS, stop)
      yield decoder.decode(tokenizer.decode_bytes(read(at, end)), final=end == stop)
    return
  at = first = start
  while at < stop:
    end, context = (stop, stop) if stop - at <= DECODED_TOKENS else _cut(
      read, tokenizer, start, at + DECODED_TOKENS, stop)
    yield _text(read, tokenizer, first, at, end)
    at, first = end, context


def _text(read, tokenizer, first, at, end):
  """Return the text of tokens [at, end) after those of [first, at)."""
  before = tokenizer.decode(read(first, at)) if at > first else ''
  whole = tokenizer.decode(read(first, end))
  return whole.removeprefix(before) if whole.startswith(before) else tokenizer.decode(read(at, end))


def _cut(read, tokenizer, start, last, stop):
  """Return (end of a part, at `last` or soon after it; where the context of the next part begins)."""
  decode = lambda *span: tokenizer.decode(read(*span))
  positions = range(last, min(last + MAX_MORE, stop))
  for at in positions:
    first, earlier, end = max(start, at - CONTEXT), max(start, at - LONGER), min(at + CONTEXT, stop)
    before, whole = decode(earlier, at), decode(earlier, end)
    if REPLACEMENT not in before and before + _text(read, tokenizer, first, at, end) == whole:
      return at, first
  # Among many tokens that are bytes a context has to begin, and what follows has to end, with a character.
  for at, back, ahead in itertools.product(positions, range(CHARACTER), range(CHARACTER)):
    first, end = max(start, at - CONTEXT - back), min(at + CONTEXT + ahead, stop)
    whole = decode(first, end)
    if REPLACEMENT not in whole and whole == decode(first, at) + decode(at, end):
      return at, first
  return (stop, stop) if stop - last <= MAX_MORE else (last, max(start, last - CONTEXT))
