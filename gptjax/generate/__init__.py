"""Text from a model: `gptjax.generate.sample`, and the command `python -m gptjax.generate`."""

__all__ = ['sample']


def __getattr__(name):
  """`sample`, imported when it is asked for: the command prepares the process before JAX is imported."""
  if name not in __all__:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  from gptjax.generate import writer
  return getattr(writer, name)
