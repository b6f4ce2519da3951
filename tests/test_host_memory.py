"""Freed memory stays with the process, so that the next step need not fault it in again."""

import subprocess
import sys
from importlib.util import find_spec

import pytest
from conftest import ENVIRONMENT, ROOT

from gptjax.host_memory import ACCELERATORS

PROGRAM = '''
import resource, sys
from gptjax import host_memory
if sys.argv[1] == 'keep':
  host_memory.keep()
import ctypes
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
def use():
  block = libc.malloc(100 << 20)
  ctypes.memset(block, 1, 100 << 20)
  libc.free(block)
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
'''


def faults(word):
  done = subprocess.run([sys.executable, '-c', PROGRAM, word], cwd=ROOT, env=ENVIRONMENT, check=True,
                        capture_output=True, text=True)
  return int(done.stdout)


@pytest.mark.skipif(sys.platform != 'linux', reason='glibc alone has what is tested')
@pytest.mark.skipif(any(map(find_spec, ACCELERATORS)), reason='JAX is installed for more than the CPU')
def test_a_block_used_twice_is_faulted_in_once():
  assert faults('leave') > 10, 'glibc gives big blocks back'
  assert faults('keep') < 10
