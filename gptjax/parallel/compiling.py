"""How the processes of a run compile: all have a program before one runs it, and each caches its own.

JAX compiles a program when it is first called, in each process, and keeps what took more than a second in
`config.compilation_cache`. In a run of several processes that has two faults:

- Only process 0 writes to the cache. That is enough if all see one folder and ask for the same key; but the
  key contains the topology, which on CPUs holds only what belongs to the process itself, and the folder may
  lie on a disk of each host.
- A process that has the program in its cache, or is faster, enters the first collective while others still
  compile. On CPUs Gloo gives up after 30 seconds, for which there is no setting.

JAX offers no hook for either, so two of its functions, behind private imports, are replaced.
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
  """From now on programs of several processes are compiled as above; call it once, before any is compiled.

  A process that waits longer for the others ends (LostProcess, which names them).

  Args:
    limit: seconds; 0: a day.
  """
  if not processes.is_multiprocess():
    return
  compile_, write = compiler.compile_or_get_cached, compiler._cache_write
  compiled, numbers = threading.local(), collections.Counter()

  def keep(key, seconds, name, backend, executable, *callbacks):
    """Instead of `_cache_write`, which does nothing in all processes but 0."""
    if distributed.global_state.process_id == 0:
      write(key, seconds, name, backend, executable, *callbacks)
    elif not any(callbacks) and seconds >= jax.config.jax_persistent_cache_min_compile_time_secs:
      compiled.entry = key, name, executable, backend, int(seconds)

  def compile_together(backend, computation, devices, *args, **options):
    compiled.entry = None
    executable = compile_(backend, computation, devices, *args, **options)
    entry = compiled.entry
    taking_part = {device.process_index for device in devices.flat}
    if len(taking_part) == 1:
      _write_own(entry)
      return executable
    name = _name(computation)
    numbers[name] += 1
    barrier = f'compiled {name} {numbers[name]}'
    # By then process 0 has written its entry, which may be that of all.
    entries = processes.gather(barrier, 'entry' if entry else '', limit or DAY, taking_part)
    _write_own(entry)
    if any(entries.values()):
      processes.gather(f'{barrier}, written', '', limit or DAY, taking_part)
    return executable

  compiler.compile_or_get_cached, compiler._cache_write = compile_together, keep


def _name(computation):
  """That of a program, the same in all processes, by what it computes."""
  text = computation.operation.get_asm(enable_debug_info=False)
  name = computation.operation.attributes['sym_name'].value
  return f'{name} {hashlib.sha256(text.encode()).hexdigest()[:16]}'


def _write_own(entry):
  """Writes an entry of the cache (arguments of JAX's function, or None: there is none) if it is not there."""
  if not entry:
    return
  try:
    compilation_cache.put_executable_and_time(*entry)
  except Exception as error:  # as JAX does: without the entry the next start compiles again
    warnings.warn(f'the compilation cache does not take {entry[1]}: {error!r}', stacklevel=2)
