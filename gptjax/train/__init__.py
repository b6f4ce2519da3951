"""Training as pure functions: the step, the loss, the optimizer.

  loss       The next-token loss, computed a few positions at a time.
  optimizer  Learning-rate schedules, gradient clipping, AdamW, Muon and weight decay.
  step       The training state, the step as a pure function of it, and evaluation.
"""

__all__ = ['train_step']


def __getattr__(name):
  """`train_step`, imported when it is asked for."""
  if name not in __all__:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  from gptjax.train import step
  return getattr(step, name)
