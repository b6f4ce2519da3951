"""A text that grows by tokens: which characters are final, and where the text ends."""


class GeneratedText:
  """A prompt and its continuation.

  ids: list of int, tokens of the prompt and the continuation, without the token that ended it.
  sample_index: int, index among the texts for the same prompt.
  remaining: int, tokens that may still be added.
  text: str, the final part of the continuation: complete characters, without a suffix that may be the start
    of a stop string.
  finish_reason: '' until the text ends, then 'end' (one of the tokenizer's `eos_ids`), 'stop' (a stop string,
    which is cut off), 'length' (no tokens remain) or 'context' (the model's context is full).
  """

  def __init__(self, tokenizer, prompt, sample, max_tokens, stop):
    """Start a text from int[p] tokens of the prompt, p > 0, and nonempty stop strings."""
    self.ids, self.sample_index, self.remaining = list(map(int, prompt)), sample, max_tokens
    self.text, self.finish_reason = '', ''
    self._tokenizer, self._stop = tokenizer, stop
    self._prompt_length = len(tokenizer.decode(self.ids))

  def append(self, ids, finish_reason):
    """Append tokens.

    Args:
      ids: list of int.
      finish_reason: why these are the last ones; '' if they are not.

    Returns:
      str, the new part of `text`.
    """
    last = next((i for i, token in enumerate(ids) if token in self._tokenizer.eos_ids), None)
    if last is not None:
      ids, finish_reason = ids[:last], 'end'
    self.ids += ids
    self.remaining -= len(ids)
    # Bytes of an incomplete character are decoded as U+FFFD. The text after a prompt can depend on it (a
    # space between words), so both are decoded together.
    text = self._tokenizer.decode(self.ids)[self._prompt_length:].rstrip('\ufffd')
    # The stop string that ends first counts, so the result does not depend on the tokens per call.
    matches = [(text.find(stop) + len(stop), -len(stop)) for stop in self._stop if stop in text]
    if matches:
      text, finish_reason = text[:sum(min(matches))], 'stop'
    self.finish_reason = finish_reason
    start, n_pending = len(self.text), 0 if finish_reason else _n_pending(text, self._stop)
    self.text = text[:len(text) - n_pending]
    return self.text[start:]


def _n_pending(text, stop):
  """Return how many of the last characters of a text may be the start of a stop string."""
  return max((size for string in stop for size in range(min(len(string) - 1, len(text)) + 1)
              if text.endswith(string[:size])), default=0)
