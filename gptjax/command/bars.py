"""Progress bars: tqdm's on a terminal, elsewhere a line every 30 seconds."""

import sys
import time

from tqdm import tqdm

INTERVAL = 30  # seconds between two lines


def bar(items=None, shown=True, **options):
  """A tqdm bar on stderr; without a terminal, a line every 30 seconds and at the end.

  Args:
    items: iterable whose progress is shown, or None.
    shown: if False, nothing is written.
    options: of `tqdm.tqdm`. With `leave=False` and no terminal, work of less than 30 seconds writes nothing.

  Returns:
    tqdm.
  """
  if not shown:
    return tqdm(items, disable=True, **options)
  if sys.stderr.isatty():
    return tqdm(items, **{'dynamic_ncols': True, 'mininterval': 0.5, **options})
  return _Lines(items, **options)


def write(line, stream):
  """Print a line above all bars."""
  with tqdm.external_write_mode(file=stream):
    print(line, file=stream, flush=True)


class _Lines(tqdm):
  """A bar that writes lines for log files: no carriage return, no cursor movement."""

  monitor_interval = 0  # no thread that refreshes

  def __init__(self, items, **options):
    self._due = time.monotonic() + INTERVAL
    self._written = False
    # ncols = 0: only numbers. Reading the clock at every step costs less than a microsecond.
    own = {'ncols': 0, 'mininterval': INTERVAL, 'miniters': 1, 'delay': INTERVAL}
    super().__init__(items, **{**options, **own})

  def display(self, msg=None, pos=None):
    if time.monotonic() >= self._due:
      self._write()

  def clear(self, nolock=False):
    pass

  def close(self):
    if not self.disable:
      self.disable = True
      self._decr_instances(self)
      if self.leave or self._written:
        self._write()

  def _write(self):
    self._due, self._written = time.monotonic() + INTERVAL, True
    self.fp.write(f'{self}\n')
    self.fp.flush()
