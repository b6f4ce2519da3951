"""A text that grows by tokens: which characters can be shown already, and where it ends."""


class GeneratedText:
  """A prompt and what is written after it.

  ids: list of int, tokens of the prompt and all after it, but for the token at which it ended.
  sample_index: int, which of several texts for the same prompt it is.
  remaining: int, tokens that may still be added.
  text: str, what can be shown of the continuation: whole characters, and nothing that may yet turn out to be
    the beginning of a stop string.
  finish_reason: '' while it grows; then 'end' (one of the tokenizer's `eos_ids`), 'stop' (a stop string,
    which is cut off), 'length' (no tokens remain) or 'context' (the model's context is full).
  """

  def __init__(self, tokenizer, prompt, sample, max_tokens, stop):
    """From int[p] tokens of the prompt, at least one, and strings, none of them empty."""
    self.ids, self.sample_index, self.remaining = list(map(int, prompt)), sample, max_tokens
    self.text, self.finish_reason = '', ''
    self._tokenizer, self._stop = tokenizer, stop
    self._before = len(tokenizer.decode(self.ids))

  def append(self, ids, ended):
    """Adds tokens.

    Args:
      ids: list of int.
      ended: why these are the last ones; '' if they are not.

    Returns:
      str, what `text` has become longer by.
    """
    last = next((i for i, token in enumerate(ids) if token in self._tokenizer.eos_ids), None)
    if last is not None:
      ids, ended = ids[:last], 'end'
    self.ids += ids
    self.remaining -= len(ids)
    # Bytes that may be part of a character are decoded as U+FFFD, until the others are there. What follows
    # a prompt can depend on it (a space between words), so it is decoded with the prompt.
    text = self._tokenizer.decode(self.ids)[self._before:].rstrip('\ufffd')
    # The stop string that is complete first counts, so that it does not matter how many tokens come at once.
    found = [(text.find(stop) + len(stop), -len(stop)) for stop in self._stop if stop in text]
    if found:
      text, ended = text[:sum(min(found))], 'stop'
    self.finish_reason = ended
    shown, self.text = len(self.text), text if ended else text[:len(text) - _open(text, self._stop)]
    return self.text[shown:]


def _open(text, stop):
  """How many of the last characters of a text may be the beginning of a stop string."""
  return max((size for one in stop for size in range(min(len(one) - 1, len(text)) + 1)
              if text.endswith(one[:size])), default=0)
