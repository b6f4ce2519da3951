"""A progress bar that counts bytes."""

from gptjax.command import bars


def bytes_bar(name, shown, **more):
  """Return a progress bar that counts bytes (see `gptjax.command.bars`)."""
  return bars.bar(shown=shown, desc=name, unit='B', unit_scale=True, **more)
