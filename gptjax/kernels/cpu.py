"""malloc, dispatch and thread settings for runs on CPU devices.

XLA allocates the temporaries of a step, hundreds of megabytes, in every step. By default glibc returns such
blocks to the kernel at once, which zeroes their pages again, 4 kB at a time: a tenth of a training step. In
one heap of huge pages each page is zeroed once.

To align a block glibc allocates 96 bytes more, splits the rest off and frees it into the cache of the thread,
so a freed block cannot merge with the rest, and its place is too small for the same block in the next step.
Where steps are dispatched to other threads, the temporaries took three or four places in turn, 4 GB for a
model whose step needs 1.9. A single CPU device gains nothing from dispatch ahead of the computation, which
takes the same cores: without it the block mostly stays in its place, at the same speed.

With several simulated CPU devices each one blocks a thread in a collective, and more than one where
collectives are independent. XLA has one thread per device: once in some hundred steps all of them wait for a
participant that has no thread, and 40 seconds later XLA aborts the process. The compiler takes the same
threads, so nothing is computed there while a program is compiled.
"""

import ctypes
import os
from importlib.util import find_spec

HEAP = 4 << 30                                       # bytes of addresses; only touched pages use memory
ARENA_MAX, MMAP_MAX, TRIM_THRESHOLD = -8, -4, -1     # glibc's malloc.h
ACCELERATORS = 'libtpu', 'jax_cuda12_plugin', 'jax_cuda13_plugin', 'jax_rocm7_plugin'
MADV_HUGEPAGE, HUGE_PAGE = 14, 2 << 20               # Linux
THREADS = 4                                          # per simulated device


def retain_freed_memory():
  """Make this process keep freed memory; call it before JAX starts its threads.

  Does nothing if JAX is installed for an accelerator, unless JAX_PLATFORMS=cpu; if the C library is not
  glibc; or if GLIBC_TUNABLES sets `glibc.malloc.hugetlb`, with which glibc uses huge pages itself: as fast,
  but it can only be set before a process starts.
  """
  libc = ctypes.CDLL(None)
  huge = 'glibc.malloc.hugetlb' in os.environ.get('GLIBC_TUNABLES', '')
  if not is_only_device() or huge or not hasattr(libc, 'gnu_get_libc_version'):
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


def is_only_device():
  """Whether JAX will run on CPU devices; starts none."""
  return os.environ.get('JAX_PLATFORMS') == 'cpu' or not any(map(find_spec, ACCELERATORS))


def memory():
  """Total memory of this machine in bytes."""
  return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')


def configure_devices():
  """Settings for CPU devices; call it before JAX creates its devices.

  One that is the only device computes in the calling thread, unless JAX_CPU_ENABLE_ASYNC_DISPATCH is set.
  Each of several simulated ones gets threads to wait in.
  """
  import jax  # after `retain_freed_memory`
  devices = jax.config.jax_num_cpu_devices
  if devices > 1:
    os.environ.setdefault('PJRT_NPROC', str(THREADS * devices))
  elif is_only_device() and 'JAX_CPU_ENABLE_ASYNC_DISPATCH' not in os.environ:
    jax.config.update('jax_cpu_enable_async_dispatch', False)


def computes_in_calling_thread():
  """Whether the result of a computation is there when its call returns: on CPUs without dispatch ahead."""
  import jax
  return jax.default_backend() == 'cpu' and not jax.config.read('jax_cpu_enable_async_dispatch')


def reads_without_tensorflow():
  """Whether a thread reads batches ahead, and not tf.data: on CPUs, whose cores tf.data would share.

  TensorFlow takes 0.5 GB. If it is imported between two steps, a part of it may take the place of the
  temporaries, and the run keeps a second block for them.
  """
  import jax
  return jax.default_backend() == 'cpu'


def computes_while_compiling():
  """Whether a computation may run while another thread compiles: on CPUs with a single device alone."""
  import jax
  return jax.default_backend() != 'cpu' or jax.device_count() == 1
