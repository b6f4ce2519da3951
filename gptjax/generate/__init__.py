"""Text from a model: `gptjax.generate.sample`, and the command `python -m gptjax.generate`.

  generation  Text from a model
  kv_cache    Reading and writing with a key-value cache: prompts in one pass, then a token at a time.
  sampling    Which token comes next: temperature, top-k, top-p, and the draw.
  streaming   A text that grows by tokens: which characters can be shown already, and where it ends.
"""

__all__ = ['sample']


def __getattr__(name):
  """Import `sample` on first access: the command configures the process before JAX is imported."""
  if name not in __all__:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  from gptjax.generate import generation
  return getattr(generation, name)
