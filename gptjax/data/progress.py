"""The bar of `prepare`: how much text, how fast, and the time that is left as far as it can be told."""

import itertools

from gptjax.command import bars


def bytes_bar(name, shown, **more):
  """A bar of bytes (see `gptjax.command.bars`)."""
  return bars.bar(shown=shown, desc=name, unit='B', unit_scale=True, **more)


class ProgressBar:
  """Counts bytes of text; what all units will give is judged by those that are behind, once there are any.

  Args:
    name: of what is done.
    sizes: of each unit, in whatever it is measured.
    whole: about how many bytes of text all units will give; 0: that cannot be told before one is behind.
    unit: which one is being read.
    n_bytes: of text that an earlier process got through.
    shown: whether to show it.
  """

  def __init__(self, name, sizes, whole, unit, n_bytes, shown):
    self._behind = [0, *itertools.accumulate(sizes)]
    self._unit, self._text_behind, self._whole = unit, n_bytes, whole
    self._bar = bytes_bar(name, shown, initial=n_bytes)

  def update(self, n_bytes, unit, made):
    """After so much more text; `unit` is being read, `made` says what has come of it all so far."""
    if unit > self._unit:
      self._unit, self._text_behind = unit, self._bar.n + n_bytes
    if self._text_behind and self._behind[self._unit]:
      self._whole = self._text_behind * self._behind[-1] / self._behind[self._unit]
    if self._whole:
      self._bar.total = max(self._whole, self._bar.n + n_bytes)
    last = len(self._behind) - 1
    self._bar.set_postfix_str(f'{made}, input {min(unit + 1, last)} of {last}', refresh=False)
    self._bar.update(n_bytes)

  def close(self):
    self._bar.close()
