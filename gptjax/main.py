"""The command: python -m gptjax.main --config=configs/quickstart.py --workdir=runs/quickstart"""

if __name__ == '__main__':  # first: what follows takes seconds to import
  from gptjax import shutdown
  shutdown.catch('gptjax', shutdown.resumes_after(0), shutdown.STOPPED)

import atexit
import gc
import os
import sys

from absl import flags, logging
from ml_collections import config_flags

# Before JAX and TensorFlow are imported: what they print at start is of no use to anyone.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')

from gptjax import cpu
from gptjax.errors import InputError

cpu.keep_memory()

# What is imported and traced stays: to look for garbage in it every 700 objects is a tenth of a start, and to
# do so once more when Python ends takes a second.
gc.set_threshold(50_000)
atexit.register(gc.freeze)

import jax  # noqa: E402 (its threads are to find the memory as `keep_memory` left it)

from gptjax import command_line, errors, hosts, shutdown  # noqa: E402

FLAGS = flags.FLAGS
config_flags.DEFINE_config_file('config', None, 'A file of configs/; --config.a.b=c changes a field.',
                                lock_config=True)
flags.DEFINE_string('workdir', None, 'Folder of the run; a run that it holds goes on.')
flags.DEFINE_boolean('predict', False, 'Fine-tuning: write WORKDIR/predictions for the test sets, too.')
flags.DEFINE_string('coordinator', None, 'HOST:PORT of process 0, where nothing else tells the processes of '
                    'a run of each other (Cloud TPU, Slurm, Open MPI and GKE do).')
flags.DEFINE_integer('num_processes', None, 'How many processes the run has; with --coordinator.')
flags.DEFINE_integer('process_id', None, 'Which of them this one is, from 0; with --coordinator.')


def run(config, workdir):
  """Runs the job that the config names; gives the exit code."""
  if config.compilation_cache:
    jax.config.update('jax_compilation_cache_dir', os.path.expanduser(config.compilation_cache))
  if config.job == 'pretrain':
    from gptjax.pretrain import pretrain
    return pretrain(config, workdir)
  if config.job == 'finetune':
    from gptjax.finetune.studies import run_job
    config.finetune.predict |= FLAGS.predict
    return run_job(config, workdir)
  if config.job == 'evaluate':
    from gptjax.evaluate.run import evaluate
    return evaluate(config, workdir)
  raise InputError(f'config.job = {config.job!r} is not one of pretrain, finetune, evaluate')


def main(argv):
  try:
    command_line.read(FLAGS, argv, ('config', 'workdir'), 'see the first lines of README.md')
    cpu.spare_threads()
    hosts.start(FLAGS.coordinator, FLAGS.num_processes, FLAGS.process_id)
    if hosts.several():
      shutdown.end_others_by(hosts.end_all)
    code = run(FLAGS.config, FLAGS.workdir)
    shutdown.defer('all is saved, ending')
    hosts.finish()
    return code
  except Exception as error:
    shutdown.defer('ending already, because of an error')
    hosts.fail(error, FLAGS['workdir'].value)
    words = errors.in_words(error, FLAGS['workdir'].value)
    if words is None:
      raise
    line, code = words
    print(f'gptjax: {line}', file=sys.stderr)
    return code


if __name__ == '__main__':
  logging.set_verbosity(logging.WARNING)
  exit_code = main(sys.argv)
  shutdown.leave()
  sys.exit(exit_code)
