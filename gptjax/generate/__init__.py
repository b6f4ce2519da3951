"""Text from a model: `gptjax.generate.sample`, and the command `python -m gptjax.generate`.

  generation  Generates texts from prompts in batches.
  kv_cache    Decoding with a key-value cache: prefill of the prompts in one pass, then one token at a time.
  sampling    Samples the next token: temperature, top-k and top-p.
  streaming   A text that grows by tokens: which characters are final, and where the text ends.
"""

__all__ = ['sample']


def __getattr__(name):
  """Import `sample` on first access: the command configures the process before JAX is imported."""
  if name not in __all__:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  from gptjax.generate import generation
  return getattr(generation, name)
