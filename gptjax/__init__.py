"""GPT-1 and GPT-2 in JAX: pretraining, fine-tuning and zero-shot evaluation."""

from gptjax.parallel import libtpu

libtpu.silence_without_tpu()  # before JAX looks for devices

__version__ = '0.1.0'
__all__ = ['load', 'save_pretrained']


def __getattr__(name):
  """`load` and `save_pretrained`, imported when they are asked for: `import gptjax` itself stays light."""
  if name not in __all__:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  from gptjax import pretrained
  return getattr(pretrained, name)
