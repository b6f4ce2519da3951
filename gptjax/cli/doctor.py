"""Reports what this machine and installation can do: versions, devices, caches, buckets, disk, extras.

It changes nothing and always exits with 0: what is missing is named, with the command that installs it.
"""

if __name__ == '__main__':
  from gptjax.command import startup
  startup.begin('doctor', 'stopped')

import glob
import hashlib
import os
import platform
import shutil
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement

import gptjax
from gptjax import defaults
from gptjax.command import colors, early, run, streams
from gptjax.command.parsers import docstring
from gptjax.errors import InputError
from gptjax.parallel import jax_settings, libtpu
from gptjax.text.printable import printable

GOOD, BAD, FACT = 'ok', 'missing', ''
COLORS = {GOOD: 'green', BAD: 'yellow'}
GB = 10**9
SHOWN_FAULTS = 3  # packages of an extra that are not installed; the extra `test` has twenty


class Row(NamedTuple):
  """A line of the report."""
  name: str
  text: str
  mark: str = FACT


def parser():
  """Return the parser of this command."""
  return run.Parser(prog='gptjax doctor', description=docstring('cli/doctor.py'), example='gptjax doctor')


def main(arguments):
  parser().parse_args(arguments)
  for title, rows in (('software', software), ('devices', devices), ('attention kernels', kernels),
                      ('caches', caches), ('buckets', buckets), ('disk', disk), ('extras', extras)):
    found = []
    try:
      for row in rows():
        found.append(row)
    except InputError as error:
      found.append(Row('not known', str(error), BAD))
    except Exception as error:  # a report with a gap is better than none
      found.append(Row('not known', f'{type(error).__name__}: {" ".join(str(error).split())}', BAD))
    streams.write_colored(section(title, found, sys.stdout), sys.stdout)


def section(title, rows, stream):
  """Return the text of a section, with colours if the stream shows them."""
  width = max((len(row.name) for row in rows), default=0) + 2
  lines = [colors.colored(title, stream, attrs=['bold'])]
  for row in rows:
    mark = f'{row.mark:<8}'
    mark = colors.colored(mark, stream, COLORS[row.mark]) if row.mark else mark
    lines.append(f'  {mark} {row.name:<{width}}{printable(row.text)}'.rstrip())
  return '\n'.join(lines) + '\n\n'


def software():
  """Yield the rows of gptjax, Python and the packages that gptjax needs."""
  yield Row('gptjax', f'{gptjax.__version__}, {Path(gptjax.__file__).parent}')
  yield Row('python', f'{platform.python_version()}, {sys.executable}')
  yield Row('system', platform.platform())
  for requirement in requirements():
    if problem := fault(requirement):
      remedy = f"pip install '{requirement.name}{requirement.specifier}'"
      yield Row(requirement.name, f'{problem}: {remedy}', BAD)
    else:
      yield Row(requirement.name, metadata.version(requirement.name), GOOD)


def requirements(distribution='gptjax', extra=''):
  """Return the Requirements of an installed distribution, or those that one of its extras adds.

  Raises:
    metadata.PackageNotFoundError: it is not installed.
  """
  declared = map(Requirement, metadata.requires(distribution) or ())
  applies = lambda requirement, extra: (not requirement.marker
                                        or requirement.marker.evaluate({'extra': extra}))
  return [requirement for requirement in declared
          if applies(requirement, extra) and not (extra and applies(requirement, ''))]


def fault(requirement):
  """Return what is wrong with an installed package, or with the packages of its extras; '' if nothing is."""
  try:
    version = metadata.version(requirement.name)
  except metadata.PackageNotFoundError:
    return f'{requirement.name} is not installed'
  if not requirement.specifier.contains(version, prereleases=True):
    return f'{requirement.name} is {version}, not {requirement.specifier}'
  required = [needed for extra in requirement.extras for needed in requirements(requirement.name, extra)]
  return next(filter(None, map(fault, required)), '')


def devices():
  """Yield the rows of processor, memory and JAX's devices."""
  from gptjax.kernels import cpu
  yield Row('cores', f'{len(os.sched_getaffinity(0))} of {os.cpu_count()}')
  yield Row('memory', f'{cpu.memory() / GB:.1f} GB')
  jax_settings.import_jax()
  import jax
  jax_settings.check_devices()
  found = jax.devices()
  memory = (found[0].memory_stats() or {}).get('bytes_limit')
  yield Row('JAX', f'{len(found)} x {found[0].device_kind} ({found[0].platform})'
            + (f', {memory / GB:.1f} GB each for JAX' if memory else ''), GOOD)
  if found[0].platform == 'cpu' and Path('/proc/driver/nvidia').exists():
    yield Row('NVIDIA GPU', "this machine has one, and JAX does not use it: pip install 'gptjax[cuda]'", BAD)
  if found[0].platform == 'cpu' and any(map(libtpu.is_tpu, glob.glob('/sys/bus/pci/devices/*'))):
    yield Row('TPU', "this machine has one, and JAX does not use it: pip install 'gptjax[tpu]'", BAD)
  from gptjax.parallel import cluster  # imports JAX
  if me := cluster.detect_here(None, None, None):
    yield Row('process', f'{me.process_id} of {me.num_processes}, because of {me.source}; process 0 is at '
              f'{me.address}', GOOD)


def kernels():
  """Yield a row for each value of `config.attention.kernel`: whether it can run with GPT-2's shape."""
  import jax

  from gptjax.kernels import fused
  from gptjax.model import attention
  jax_settings.check_devices()
  device, config = jax.devices()[0], defaults.get_config()
  config.model.compute_dtype = 'float32' if device.platform == 'cpu' else 'bfloat16'
  config.data.seq_len = config.model.n_ctx
  for kernel in attention.KERNELS[1:]:
    why = '' if kernel == 'xla' else fused.unsupported_reason(kernel, config, device)
    yield Row(kernel, why.partition(': set')[0] or 'can run', FACT if why else GOOD)
  yield Row('auto', f'selects {fused.best(config, device)}')


def caches():
  """Yield the rows of compiled programs, tokenizers and data sets."""
  from gptjax.storage.files import paths, private_folder
  folder = jax_settings.cache_folder(defaults.declared()['compilation_cache'].default)
  if folder:
    folder = Path(paths.local(folder))
    yield Row('compiled programs', _described(folder))
    try:
      if folder.exists():
        private_folder.require(folder, 'the compilation cache', 'switch it off')
    except InputError as error:
      yield Row('compiled programs', str(error), BAD)
  else:
    yield Row('compiled programs', 'switched off')
  yield gpt2_tokenizer()
  place = os.environ.get('TFDS_DATA_DIR') or '~/tensorflow_datasets'
  yield Row('TFDS data sets', _described(Path(place).expanduser()))


def gpt2_tokenizer():
  """Return the row of GPT-2's published tokenizer in tiktoken's cache."""
  from gptjax.data.tokenizers import loading
  place = next((os.environ[name] for name in ('TIKTOKEN_CACHE_DIR', 'DATA_GYM_CACHE_DIR')
                if name in os.environ), os.path.join(tempfile.gettempdir(), 'data-gym-cache'))
  files = [Path(place, hashlib.sha1((loading.GPT2_URL + name).encode()).hexdigest())
           for name in loading.GPT2_SHA256]
  if place and all(file.exists() for file in files):
    return Row('GPT-2 tokenizer', str(place), GOOD)
  return Row('GPT-2 tokenizer', f'not in {place or "a cache (TIKTOKEN_CACHE_DIR is empty)"}: '
             '--tokenizer=gpt2 downloads it, gpt2:DIR reads a folder')


def _described(folder):
  """The path of a folder and what it holds."""
  if not folder.exists():
    return f'{folder} does not exist yet'
  sizes = [path.stat().st_size for path in folder.rglob('*') if path.is_file()]
  return f'{folder}, {len(sizes):,} files, {sum(sizes) / GB:.2f} GB'


def buckets():
  """Yield a row for each kind of bucket: its package, credentials, and whether the service answers."""
  from gptjax.cli import bucket_rows
  for scheme in bucket_rows.PACKAGES:
    text, usable = bucket_rows.describe(scheme)
    yield Row(f'{scheme}://', text, GOOD if usable else BAD)


def disk():
  """Yield the rows of free disk space."""
  for name, folder in (('current folder', Path.cwd()), ('home', Path.home()),
                       ('temporary files', Path(tempfile.gettempdir()))):
    usage = shutil.disk_usage(folder)
    yield Row(name, f'{usage.free / GB:,.1f} of {usage.total / GB:,.1f} GB free, {folder}')


def extras():
  """Yield a row for each extra: whether it is installed, or what is missing and how to install it."""
  for extra in metadata.metadata('gptjax').get_all('Provides-Extra') or ():
    faults = [text for text in map(fault, requirements(extra=extra)) if text]
    if len(faults) > SHOWN_FAULTS + 1:
      faults[SHOWN_FAULTS:] = [f'and {len(faults) - SHOWN_FAULTS} more packages']
    yield Row(extra, f"{'; '.join(faults)}: pip install 'gptjax[{extra}]'" if faults else 'installed',
              BAD if faults else GOOD)


if __name__ == '__main__':
  early.handle_help(parser, 'doctor', needs_arguments=False)
  run.run(main, 'doctor')
