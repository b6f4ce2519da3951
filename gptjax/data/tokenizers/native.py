"""Calls into libraries written in Rust and C++ with files and text of others.

What goes wrong there comes as any kind of exception. A panic of Rust is none at all for `except Exception`:
pyo3's PanicException is a BaseException, so that it would pass all handlers and end the command with a
traceback.
"""

from gptjax.errors import InputError

PANIC = 'PanicException'  # of the module pyo3_runtime, which cannot be imported


def call(what, work, *arguments, **options):
  """work(*arguments, **options), a function of a library.

  Args:
    what: is wrong if that fails, 'FILE cannot be read' for example.

  Raises:
    InputError: the library raises anything but what stops a process, or panics.
  """
  try:
    return work(*arguments, **options)
  except InputError:
    raise
  except BaseException as error:
    if isinstance(error, MemoryError) or not (isinstance(error, Exception) or type(error).__name__ == PANIC):
      raise
    said = ' '.join(str(error).split())[:300]
    raise InputError(f'{what}: {said or type(error).__name__}') from None
