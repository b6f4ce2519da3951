"""GPT-1 and GPT-2 in JAX: pretraining, fine-tuning and zero-shot evaluation."""

import importlib

from gptjax.parallel import libtpu

libtpu.silence_without_tpu()  # before JAX looks for devices

__version__ = '0.1.0'
__all__ = ['load', 'save_pretrained', 'score']
_MODULES = {'load': 'gptjax.pretrained', 'save_pretrained': 'gptjax.pretrained',
            'score': 'gptjax.evaluate.score'}


def __getattr__(name):
  """Import the functions of the package on first use, so that `import gptjax` is fast."""
  if name not in _MODULES:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  return getattr(importlib.import_module(_MODULES[name]), name)
