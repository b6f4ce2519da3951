"""GPT-1 and GPT-2 in JAX: pretraining, fine-tuning and zero-shot evaluation."""

from gptjax.parallel import libtpu

libtpu.silence_without_tpu()  # before JAX looks for devices

__version__ = '0.1.0'
__all__ = ['load', 'save_pretrained']


def __getattr__(name):
  """Import `load` and `save_pretrained` on first use, so that `import gptjax` is fast."""
  if name not in __all__:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  from gptjax import pretrained
  return getattr(pretrained, name)
