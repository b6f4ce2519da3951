"""What XLA needs of a host that is the device itself: memory that stays, and threads to spare.

XLA asks for the temporaries of a step anew each step, hundreds of megabytes. By default glibc hands such
blocks back to the kernel at once, which then zeroes every page again, 4 kB at a time: a tenth of a
training step. Kept in one heap of huge pages they are touched once. Blocks that no longer fit where they
lay, because something small has settled beside them, take a second place, and a third.

Where one CPU plays several devices, each waits for the others in a thread, and in several where collectives
do not depend on each other. XLA has a thread a device: once in some hundred steps all of them wait for one
that has none, and 40 seconds later XLA ends the process.
"""

import ctypes
import os
from importlib.util import find_spec

HEAP = 4 << 30                                       # bytes of addresses, of memory only what is used
ARENA_MAX, MMAP_MAX, TRIM_THRESHOLD = -8, -4, -1     # glibc's malloc.h
ACCELERATORS = 'libtpu', 'jax_cuda12_plugin', 'jax_cuda13_plugin', 'jax_rocm7_plugin'
MADV_HUGEPAGE, HUGE_PAGE = 14, 2 << 20               # Linux
THREADS = 4                                          # a device, where there are several


def keep_memory():
  """Lets this process keep what it frees; call it before JAX starts its threads.

  Does nothing where JAX is installed for more than the CPU, unless JAX_PLATFORMS says that it is to use that
  alone; where the C library is not glibc; or where GLIBC_TUNABLES says `glibc.malloc.hugetlb=1`, with which
  glibc itself takes huge pages and gives them back: no slower, but a process cannot ask for it once it runs.
  """
  libc = ctypes.CDLL(None)
  elsewhere = os.environ.get('JAX_PLATFORMS') != 'cpu' and any(map(find_spec, ACCELERATORS))
  huge = 'glibc.malloc.hugetlb' in os.environ.get('GLIBC_TUNABLES', '')
  if elsewhere or huge or not hasattr(libc, 'gnu_get_libc_version'):
    return
  for option, value in ((ARENA_MAX, 1), (MMAP_MAX, 0), (TRIM_THRESHOLD, -1)):
    libc.mallopt(option, value)
  libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
  libc.free.argtypes = [ctypes.c_void_p]
  libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
  heap = libc.malloc(HEAP)
  if heap:
    start = -(-heap // HUGE_PAGE) * HUGE_PAGE
    libc.madvise(start, HEAP - HUGE_PAGE, MADV_HUGEPAGE)
    libc.free(heap)


def memory():
  """Bytes of memory that this machine has."""
  return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')


def spare_threads():
  """Gives each of several devices that one CPU plays threads to wait in; call it before JAX has devices."""
  import jax  # after `keep_memory`
  devices = jax.config.jax_num_cpu_devices
  if devices > 1:
    os.environ.setdefault('PJRT_NPROC', str(THREADS * devices))
