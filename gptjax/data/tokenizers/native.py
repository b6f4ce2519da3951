"""Calls libraries written in Rust and C++ with untrusted files and text.

They raise any kind of exception. `except Exception` does not catch a panic of Rust: pyo3's PanicException is
a BaseException, which would pass all handlers and end the command with a traceback.
"""

from gptjax.errors import InputError

PANIC = 'PanicException'  # its module pyo3_runtime cannot be imported


def call(message, function, *arguments, **options):
  """Return function(*arguments, **options), a call of a library.

  Args:
    message: start of the error message, for example 'FILE cannot be read'.
    function: the function of the library.

  Raises:
    InputError: the library panics or raises any error except MemoryError or a request to exit.
  """
  try:
    return function(*arguments, **options)
  except InputError:
    raise
  except BaseException as error:
    if isinstance(error, MemoryError) or not (isinstance(error, Exception) or type(error).__name__ == PANIC):
      raise
    details = ' '.join(str(error).split())[:300]
    raise InputError(f'{message}: {details or type(error).__name__}') from None
