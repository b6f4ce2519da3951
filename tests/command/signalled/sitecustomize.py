"""Sends this process a signal at a moment of its life; tests/command/test_shutdown.py puts it on PYTHONPATH.

SIGNAL_AT=MODULE: when that module is about to be imported; MODULE:NAME: when that function of it is called
(for a class: the `__call__` of an object); exit: in the last function that Python calls when it ends.
SIGNAL=15: the number. SIGNAL_ONLY: a flag without which a process is not meant. SIGNAL_BUSY=1: the main
thread then stays where no Python runs, as in a compilation, for longer than a test lasts.
"""

import atexit
import hashlib
import importlib.util
import os
import sys

MODULE, _, NAME = os.environ.get('SIGNAL_AT', '').partition(':')


def send():
  print('the moment', file=sys.stderr, flush=True)
  os.kill(os.getpid(), int(os.environ['SIGNAL']))
  if os.environ.get('SIGNAL_BUSY'):
    hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)


def before(function):
  def sends(*args, **kwargs):
    send()
    return function(*args, **kwargs)
  return sends


class Finder:
  """Comes before all others, once."""

  @staticmethod
  def find_spec(name, path, target=None):
    del path, target
    if name != MODULE:
      return None
    sys.meta_path.remove(Finder)
    if not NAME:
      send()
      return None
    spec = importlib.util.find_spec(name)
    execute = spec.loader.exec_module
    def execute_and_wrap(module):
      execute(module)
      found = getattr(module, NAME)
      if isinstance(found, type):
        found.__call__ = before(found.__call__)
      else:
        setattr(module, NAME, before(found))
    spec.loader.exec_module = execute_and_wrap
    return spec


ONLY = os.environ.get('SIGNAL_ONLY')
if MODULE and (not ONLY or ONLY in sys.orig_argv) and '--multiprocessing-fork' not in sys.orig_argv:
  if MODULE == 'exit':
    atexit.register(send)
  sys.meta_path.insert(0, Finder)
