"""The command: python -m gptjax.main --config=configs/quickstart.py --workdir=runs/quickstart"""

if __name__ == '__main__':  # first: what follows takes seconds to import
  from gptjax.command import shutdown, startup
  startup.begin('gptjax', shutdown.resume_message(0), shutdown.STOPPED)
  from gptjax.config import job_flags
  job_flags.handle_help()

import atexit
import gc
import os
import sys
import traceback
from pathlib import PurePath

from absl import flags, logging

# Before JAX and TensorFlow are imported: suppress their log lines at start-up.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')

from gptjax.kernels import cpu
from gptjax.parallel import jax_settings

cpu.retain_freed_memory()

# Most objects made by imports and tracing are never freed: with the default threshold, garbage collection
# takes 10% of the start-up time, and one second more when Python exits.
gc.set_threshold(50_000)
atexit.register(gc.freeze)

if __name__ == '__main__':
  jax_settings.begin('gptjax', single_process=False)  # after `retain_freed_memory`: JAX starts threads

from gptjax import errors  # noqa: E402
from gptjax.command import background, shutdown  # noqa: E402
from gptjax.config import command_line, job_flags  # noqa: E402
from gptjax.config import resolve as configs  # noqa: E402
from gptjax.errors import InputError  # noqa: E402
from gptjax.parallel import compiling, control, processes  # noqa: E402
from gptjax.storage.files import buckets, cache, paths  # noqa: E402

FLAGS = flags.FLAGS


def run(config, workdir, overrides=(), file=''):
  """Prepare this process and run the job of the config; returns the exit code.

  Args:
    config: unresolved.
    workdir: folder of the run.
    overrides: names of the fields that the command line sets.
    file: as after `--config=`, for the job sweep.
  """
  configs.check_fields(config)
  jax_settings.check_devices()
  config.compilation_cache = jax_settings.cache_folder(config.compilation_cache, overrides)
  configs.make_paths_absolute(config, overrides)
  cache.configure(config.data.cache_dir, config.data.cache_gb)
  buckets.configure(config.storage.retry_seconds)
  configs.check_cache(config.compilation_cache)
  jax_settings.use_cache(config.compilation_cache)
  compiling.synchronize(config.watchdog.compile_timeout)
  if config.job == 'sweep':
    from gptjax.pretrain.sweep import sweep
    return sweep(config, file, workdir, overrides, FLAGS.size, run_job)
  return run_job(config, workdir, overrides)


def run_job(config, workdir, overrides=()):
  """Run a job of one workdir; arguments and result as for `run`."""
  if config.job == 'pretrain':
    from gptjax.pretrain.loop import pretrain
    return pretrain(config, workdir, overrides)
  if config.job == 'finetune':
    from gptjax.finetune.studies import run_job
    config.finetune.predict |= FLAGS.predict
    return run_job(config, workdir, overrides)
  from gptjax.evaluate.run import evaluate
  from gptjax.report import page
  return evaluate(config, workdir, overrides, page.write)


def default_workdir(config):
  """Return runs/NAME for the config `FOLDER/NAME.py`, runs/NAME-ARGUMENT for `FOLDER/NAME.py:ARGUMENT`."""
  file, _, argument = config.partition(':')
  return f'runs/{PurePath(file).stem}{"-" * bool(argument)}{argument}'


def main(argv):
  try:
    job_flags.handle_help(argv)
    path = command_line.parse_flags(FLAGS, argv, (), job_flags.EXAMPLES[job_flags.job_of(argv)])
    if FLAGS.size and FLAGS.config.job != 'sweep':
      raise InputError(f'--size={",".join(FLAGS.size)} is for a sweep, and config.job = {FLAGS.config.job!r}'
                       f': for one size use --config={path.partition(":")[0]}:{FLAGS.size[0]}')
    FLAGS.workdir = FLAGS.workdir or default_workdir(path)
    workdir = paths.anywhere(FLAGS.workdir, '--workdir')
    cpu.configure_devices()
    processes.start(FLAGS.coordinator, FLAGS.num_processes, FLAGS.process_id, workdir,
                    max(FLAGS.config.watchdog.connect_timeout, 1))
    if processes.is_multiprocess():
      shutdown.set_end_others(control.end_all)
    processes.compare(jax_settings.effective())  # before compilation, which could block
    jax_settings.check()
    code = run(FLAGS.config, workdir, set(FLAGS['config'].override_values), path)
    shutdown.defer_signal('everything is saved, exiting')
    processes.shut_down()
    return code
  except Exception as error:
    shutdown.defer_signal('already exiting because of an error')
    control.fail(error, FLAGS['workdir'].value)
    code = errors.print_line(error, 'gptjax', FLAGS['workdir'].value)
    if code is None:
      raise
    return code


if __name__ == '__main__':
  logging.set_verbosity(logging.WARNING)
  try:
    exit_code = main(sys.argv)
  except Exception:  # a bug
    if not background.unfinished():
      raise
    traceback.print_exc()
    exit_code = 1
  shutdown.ignore_signals()
  if background.unfinished():
    sys.stdout.flush(), sys.stderr.flush()
    os._exit(exit_code)
  sys.exit(exit_code)
