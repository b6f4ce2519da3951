"""Settings of JAX that come from the environment and not from the config: JAX_* variables and XLA_FLAGS.

Settings that select random numbers are fixed here, so that a seed gives the same numbers everywhere. Other
settings change the results of a run, or only their rounding: all processes must use the same, `config.json`
records them, and a run that resumes with different settings reports it. Unsupported settings are refused
before any file is written.
"""

import contextlib
import enum
import logging
import os
import re
import shlex
import sys
from pathlib import Path

from gptjax import defaults, errors
from gptjax.errors import InputError
from gptjax.storage.files import json_files, paths, private_folder, records

# The random numbers of a seed depend on these, so the environment cannot change them.
FIXED = {'jax_default_prng_impl': 'threefry2x32', 'jax_threefry_partitionable': True,
         'jax_random_seed_offset': 0}

# Programs that compile faster are not cached. JAX's default of a second omits the smaller ones of a run.
MIN_COMPILE_SECONDS, CACHED_SECONDS = 'jax_persistent_cache_min_compile_time_secs', 0.1

# Settings with unsupported values: the required value, and why.
NEEDED = {
  'jax_enable_x64': (False, 'gptjax computes in float32 and bfloat16'),
  'jax_disable_jit': (False, 'gptjax must compile its programs'),
  'jax_numpy_dtype_promotion': ('standard', "gptjax relies on JAX's standard promotion of dtypes"),
  'jax_numpy_rank_promotion': ('allow', "gptjax relies on JAX's standard promotion of ranks")}

# Settings that change results or their rounding. Older versions of JAX may not have all of them.
COMPARED = (*NEEDED, 'jax_default_matmul_precision', 'jax_debug_nans', 'jax_debug_infs',
            'jax_disable_most_optimizations', 'jax_optimization_level', 'jax_exec_time_optimization_effort',
            'jax_memory_fitting_level', 'jax_memory_fitting_effort', 'jax_enable_checks',
            'jax_compiler_enable_remat_pass', 'jax_allow_f16_reductions', 'jax_use_shardy_partitioner',
            'jax_softmax_custom_jvp', 'jax_use_direct_linearize', 'jax_high_dynamic_range_gumbel')
# Variables of the libraries that JAX uses; the first two contain flags.
FLAGS = 'XLA_FLAGS', 'LIBTPU_INIT_ARGS'
VARIABLES = *FLAGS, 'NVIDIA_TF32_OVERRIDE'

# Errors with these codes may not recur at the next start; neither may INTERNAL with several processes.
TRANSIENT = ('ABORTED', 'CANCELLED', 'DEADLINE_EXCEEDED', 'RESOURCE_EXHAUSTED', 'UNAVAILABLE')


def begin(command, single_process=True, own_cache=False):
  """Call `use_jax` in the first lines of a command that imports JAX at its top.

  If a setting is refused, print one line and end the process with exit code 2.

  Args:
    command: name of the command, which starts the line.
    single_process: if False, `check` is called later, after all processes have compared their settings.
    own_cache: whether the command chooses its compilation cache later.
  """
  try:
    use_jax(own_cache) if single_process else import_jax()
  except InputError as error:
    sys.exit(errors.print_line(error, command))


def use_jax(own_cache=False):
  """Call `import_jax` and `check`, for a command of one process that imports JAX late.

  JAX_COMPILATION_CACHE_DIR is checked too, unless the command calls `use_cache` later.
  """
  import_jax()
  check()
  if not own_cache:
    import jax
    use_cache(jax.config.jax_compilation_cache_dir or '', 'JAX_COMPILATION_CACHE_DIR', 'unset the variable')


def import_jax():
  """Import JAX and fix the settings in FIXED; report those that the environment sets differently.

  Raises:
    InputError: an environment variable has a value that JAX does not accept.
  """
  try:
    import jax
  except ValueError as error:
    raise InputError(_refused_by_jax(str(error))) from None
  logging.getLogger('jax._src.xla_bridge').addFilter(_shorten_plugin_error)
  if jax.config.jax_num_cpu_devices == 0:
    raise InputError('JAX_NUM_CPU_DEVICES=0 leaves no device: set it to 1 or more, or unset it')
  for name, value in FIXED.items():
    if jax.config.values.get(name, value) != value:
      print(f'{_as_variable(name)} has no effect: with gptjax a seed always gives the same random numbers',
            file=sys.stderr)
      jax.config.update(name, value)


def _shorten_plugin_error(record):
  """A logging filter: one line instead of JAX's traceback where a plugin finds no device."""
  if record.exc_info and str(record.msg).startswith('Jax plugin configuration error'):
    error = record.exc_info[1]
    record.msg = "JAX's plugin %s does not start, which is normal on a machine without its devices: %s"
    record.args = ' '.join(map(str, record.args)), ' '.join(f'{type(error).__name__}: {error}'.split())
    record.exc_info = record.exc_text = None
  return True


def check():
  """Refuse unsupported settings.

  Raises:
    InputError: a setting is unsupported; the message has the first one.
  """
  current = effective()
  for name, (needed, why) in NEEDED.items():
    if current.get(name.upper(), needed) != needed:
      raise InputError(f'{_as_variable(name)} is not supported ({why}): unset it')


def check_devices():
  """Initialize JAX's devices; call it after `processes.start`.

  Raises:
    InputError: this machine does not have the devices that JAX_PLATFORMS requests.
  """
  import jax
  from jax._src import distributed
  multiprocess = distributed.global_state.client is not None
  try:
    jax.devices()
  except (RuntimeError, AssertionError) as error:  # an assertion: none of the platforms has a device
    text = ' '.join(str(error).split()).partition(' (set JAX_PLATFORMS')[0].rstrip('.')
    if re.search(rf'\b({"|".join(TRANSIENT)}{"|INTERNAL" * multiprocess})\b', text):
      raise
    requested = ' and '.join(f'{name}={os.environ[name]}' for name in ('JAX_PLATFORMS', 'JAX_PLATFORM_NAME')
                         if os.environ.get(name)) or 'the installed plugins'
    reason = text or 'this machine has none of that kind'
    raise InputError(f'JAX finds no devices with {requested} ({reason}): '
                     'set JAX_PLATFORMS to what this machine has, or unset it') from None


def effective():
  """Return {environment variable: JSON value in effect} of the settings that change results."""
  import jax
  config = jax.config.values
  values = {name.upper(): _plain(config[name]) for name in COMPARED if name in config}
  return values | {name: _of_variable(name, os.environ.get(name, '')) for name in VARIABLES}


def _of_variable(name, text):
  """The canonical text of a variable; flags, including those in flag files, are sorted by name."""
  if name not in FLAGS:
    return text.strip()
  return shlex.join(sorted(_flags(text), key=lambda flag: flag.partition('=')[0]))  # stable: the last counts


def _flags(text, files=()):
  """The flags in a text, a list; --flagfile=PATH, or a path alone (for XLA), is replaced by the file's flags.

  Args:
    text: of a variable, or of a file.
    files: paths of the flag files that include this text.
  """
  try:
    words = shlex.split(text)
  except ValueError:  # an unbalanced quotation mark
    words = text.split()
  if len(words) == 1 and not files and not words[0].startswith('-'):
    return _flags_of_file(words[0], words[0], files)
  flags = []
  for word in words:
    name, _, path = word.partition('=')
    flags += _flags_of_file(path, word, files) if name.lstrip('-') == 'flagfile' else [word]
  return flags


def _flags_of_file(path, word, files):
  """The flags in a file, a list; [word], the flag that refers to it, if it cannot be read."""
  try:
    lines = Path(path).read_text(encoding='utf-8', errors='replace').splitlines()
  except (OSError, ValueError):
    return [word]
  return [word] if path in files else _flags(
    '\n'.join(line for line in lines if not line.lstrip().startswith('#')), (*files, path))


def report_changes(path, log):
  """Log each setting that differs from the one with which a run began.

  Args:
    path: of its config.json; older versions recorded no settings.
    log: function of a line.
  """
  stored = records.read(path).get('settings', {})
  if fault := json_files.layout_fault(stored, {str: object}, 'settings'):
    raise InputError(f'{path}: {fault}: restore it from a copy, or use another workdir')
  for name, value in effective().items():
    before = stored.get(name, value)
    if name in VARIABLES:  # older versions recorded the text unchanged
      before = _of_variable(name, str(before))
    if value != before:
      log(f'{name} is {value!r}, but this run began with {before!r}: further steps may not give the '
          'same numbers')


def cache_folder(configured, overrides=()):
  """Return the compilation cache: that of the config, else JAX_COMPILATION_CACHE_DIR, else the default.

  If the config file sets the field to its default value, the variable takes precedence. A flag with the same
  value takes precedence over the variable.

  Args:
    configured: `config.compilation_cache` as written.
    overrides: names of the fields that the command line sets.
  """
  import jax
  default = defaults.declared()['compilation_cache'].default
  if configured != default or 'compilation_cache' in overrides:
    return configured
  folder = os.environ.get('JAX_COMPILATION_CACHE_DIR') and jax.config.jax_compilation_cache_dir
  return paths.local(folder, 'JAX_COMPILATION_CACHE_DIR') if folder else configured


def use_cache_of_flag(value):
  """Set JAX's compilation cache to the value of --compilation_cache, in a command without a config.

  Args:
    value: path, or '' for no cache; None: the flag is not given.

  Raises:
    InputError: as `use_cache`.
  """
  given = value is not None
  folder = cache_folder(value if given else defaults.fields()['compilation_cache'],
                        {'compilation_cache'} if given else set())
  use_cache(folder, '--compilation_cache', 'switch the cache off by --compilation_cache=')


def use_cache(folder, name='compilation_cache', instead='switch it off'):
  """Set JAX's compilation cache to a folder, which is created for this user alone; '' disables the cache.

  Args:
    folder: path, or ''.
    name, instead: for the message, see `private_folder.make`.

  Raises:
    InputError: it is a file; another user owns the folder, or can write to it.
  """
  import jax
  folder = paths.local(folder, 'the compilation cache')
  if os.path.isfile(folder):
    raise InputError(f'{name} = {folder!r} is a file, not a folder: give a folder, or {instead}')
  if folder:
    with contextlib.suppress(OSError):  # JAX continues without a cache, and warns
      private_folder.make(folder, name, instead)
  jax.config.update('jax_compilation_cache_dir', folder or None)
  is_default = jax.config.values[MIN_COMPILE_SECONDS] == 1 and MIN_COMPILE_SECONDS.upper() not in os.environ
  if folder and is_default:
    jax.config.update(MIN_COMPILE_SECONDS, CACHED_SECONDS)


def _as_variable(name):
  """A setting of JAX as a variable and its value, 'JAX_ENABLE_X64=1'."""
  import jax
  return f'{name.upper()}={os.environ.get(name.upper(), _plain(jax.config.values[name]))}'


def _plain(value):
  return value.value if isinstance(value, enum.Enum) else value


def _refused_by_jax(text):
  """The message for an error of `import jax`."""
  match = re.search(r'JAX flag (jax_\w+)|environment \'(\w+)\'', text)
  name = match and (match[1] or match[2]).upper()
  if name in os.environ:
    return f'{name}={os.environ[name]} is not a value that JAX accepts ({text}): correct or unset it'
  return f'JAX does not start ({text}): correct or unset its environment variable'
