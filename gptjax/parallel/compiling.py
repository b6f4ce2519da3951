"""Compilation in runs of several processes: no process runs a program before all have compiled it.

JAX compiles a program when it is first called, in each process, and caches it in `config.compilation_cache`
if that took long enough. In a run of several processes that has two disadvantages:

- Only process 0 writes to the cache. That is enough if all processes see one folder and use the same key. But
  the key contains the topology, which on CPUs includes only the process itself, and the folder may be on a
  local disk of each host.
- A process that has the program in its cache, or is faster, enters the first collective while others still
  compile. On CPUs Gloo then fails after 30 seconds, which cannot be configured.

JAX has no hook for either, so this module replaces two of its functions, behind private imports.
"""

import collections
import hashlib
import threading
import warnings

import jax
from jax._src import compilation_cache, compiler, distributed

from gptjax.parallel import processes

DAY = 24 * 3600


def synchronize(limit):
  """Synchronize the compilation of programs of several processes; call it once, before the first compilation.

  A process that waits for the others longer than the limit raises LostProcess, which lists them. All other
  barriers of the run wait at least as long, because a program of one process alone is not synchronized.

  Args:
    limit: seconds; 0: one day.
  """
  if not processes.is_multiprocess():
    return
  processes.extend_limit(limit or DAY)
  compile_, write = compiler.compile_or_get_cached, compiler._cache_write
  compiled, numbers = threading.local(), collections.Counter()

  def write_or_remember(key, seconds, name, backend, executable, *callbacks):
    """Replaces `_cache_write`, which only writes on process 0."""
    if distributed.global_state.process_id == 0:
      write(key, seconds, name, backend, executable, *callbacks)
    elif not any(callbacks) and seconds >= jax.config.jax_persistent_cache_min_compile_time_secs:
      compiled.entry = key, name, executable, backend, int(seconds)

  def compile_synchronized(backend, computation, devices, *args, **options):
    compiled.entry = None
    executable = compile_(backend, computation, devices, *args, **options)
    entry = compiled.entry
    participants = {device.process_index for device in devices.flat}
    if len(participants) == 1:
      _write_own(entry)
      return executable
    name = _name(computation)
    numbers[name] += 1
    barrier = f'compiled {name} {numbers[name]}'
    # After this barrier process 0 has written its entry, which may have the same key as the others.
    entries = processes.gather(barrier, 'entry' if entry else '', limit or DAY, participants)
    _write_own(entry)
    if any(entries.values()):
      processes.gather(f'{barrier}, written', '', limit or DAY, participants)
    return executable

  compiler.compile_or_get_cached, compiler._cache_write = compile_synchronized, write_or_remember


def _name(computation):
  """The name of a program, from its content: the same on all processes."""
  text = computation.operation.get_asm(enable_debug_info=False)
  name = computation.operation.attributes['sym_name'].value
  return f'{name} {hashlib.sha256(text.encode()).hexdigest()[:16]}'


def _write_own(entry):
  """Write an entry of the cache (arguments of JAX's function, or None) unless it exists."""
  if not entry:
    return
  try:
    compilation_cache.put_executable_and_time(*entry)
  except Exception as error:  # like JAX: without the entry the next start compiles again
    warnings.warn(f'{entry[1]} cannot be written to the compilation cache: {error!r}', stacklevel=2)
