"""The progress bar of `prepare`: amount of text, speed, and an estimate of the remaining time."""

import itertools

from gptjax.command import bars


def bytes_bar(name, shown, **more):
  """Return a progress bar that counts bytes (see `gptjax.command.bars`)."""
  return bars.bar(shown=shown, desc=name, unit='B', unit_scale=True, **more)


class ProgressBar:
  """A bar of bytes of text; the total is extrapolated from the finished units once there are any.

  Args:
    name: description of the work.
    sizes: size of each unit, in any common measure.
    total: estimate of the bytes of text in all units; 0: unknown until the first unit is finished.
    unit: index of the current unit.
    n_bytes: bytes of text that earlier processes have processed.
    shown: whether to show the bar.
  """

  def __init__(self, name, sizes, total, unit, n_bytes, shown):
    self._sizes_before = [0, *itertools.accumulate(sizes)]
    self._unit, self._finished_bytes, self._total = unit, n_bytes, total
    self._bar = bytes_bar(name, shown, initial=n_bytes)

  def update(self, n_bytes, unit, result):
    """Add `n_bytes` of text; `unit` is the current unit, `result` describes the output so far."""
    if unit > self._unit:
      self._unit, self._finished_bytes = unit, self._bar.n + n_bytes
    if self._finished_bytes and self._sizes_before[self._unit]:
      self._total = self._finished_bytes * self._sizes_before[-1] / self._sizes_before[self._unit]
    if self._total:
      self._bar.total = max(self._total, self._bar.n + n_bytes)
    last = len(self._sizes_before) - 1
    self._bar.set_postfix_str(f'{result}, input {min(unit + 1, last)} of {last}', refresh=False)
    self._bar.update(n_bytes)

  def close(self):
    self._bar.close()
