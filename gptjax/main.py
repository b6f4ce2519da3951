"""The command: python -m gptjax.main --config=configs/quickstart.py --workdir=runs/quickstart"""

import errno
import os
import sys
import traceback
from pathlib import Path

from absl import flags, logging
from ml_collections import config_flags

# Before JAX and TensorFlow are imported: what they print at start is of no use to anyone.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')

from gptjax import host_memory

host_memory.keep()

import jax  # noqa: E402 (its threads are to find the memory as `keep` left it)

BAD_INPUT = 2  # exit code

FLAGS = flags.FLAGS
config_flags.DEFINE_config_file('config', None, 'A file of configs/; --config.a.b=c changes a field.',
                                lock_config=True)
flags.DEFINE_string('workdir', None, 'Folder of the run; a run that it holds goes on.')


def parse(argv):
  """Reads the flags (ValueError for one that does not exist or does not fit)."""
  try:
    rest = FLAGS(argv)
  except (AttributeError, KeyError) as error:
    from gptjax.config import unknown_field
    raise ValueError(unknown_field(argv) or str(error)) from None
  except (flags.Error, TypeError, OSError) as error:
    raise ValueError(' '.join(str(error.args[0] if error.args else error).split())) from None
  if len(rest) > 1:
    raise ValueError(f'{rest[1]!r} is not a flag: fields are set by --config.FIELD=VALUE')
  for name in ('config', 'workdir'):
    if not FLAGS[name].value:
      raise ValueError(f'--{name} is missing: see the first lines of README.md')


def run(config, workdir):
  """Runs the job that the config names; gives the exit code."""
  if config.compilation_cache:
    jax.config.update('jax_compilation_cache_dir', os.path.expanduser(config.compilation_cache))
  from gptjax.pretrain import pretrain
  if config.job == 'pretrain':
    return pretrain(config, workdir)
  raise ValueError(f'config.job = {config.job!r} is not pretrain')


def is_ours(error):
  """Whether a ValueError was raised by gptjax; one from a library is a bug, and shows its trace."""
  origin = traceback.extract_tb(error.__traceback__)[-1].filename
  return Path(origin).is_relative_to(Path(__file__).parent)


def main(argv):
  try:
    parse(argv)
    return run(FLAGS.config, FLAGS.workdir)
  except ValueError as error:
    if not is_ours(error):
      raise
    print(f'gptjax: {error}', file=sys.stderr)
    return BAD_INPUT
  except OSError as error:
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
      raise
    print(f'gptjax: no space left on the disk of {FLAGS.workdir}: free some and start again; the newest '
          'checkpoint is good', file=sys.stderr)
    return BAD_INPUT


if __name__ == '__main__':
  logging.set_verbosity(logging.WARNING)
  sys.exit(main(sys.argv))
