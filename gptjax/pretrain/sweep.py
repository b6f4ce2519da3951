"""The job sweep: trains or evaluates a family of sizes, one after the other, and reports all of them.

Each size is a run of its own, `--config=FILE:SIZE --workdir=WORKDIR/SIZE` with the same overrides. After its
training, the tasks of `config.sweep.tasks` are measured in WORKDIR/SIZE-zero-shot. The report has the GPT-2
paper's Figures 1 and 4: zero-shot results, and training and held-out loss, over size.
"""

import copy
import gc
from typing import Any, NamedTuple

import jax

from gptjax.command import shutdown, streams
from gptjax.config import files
from gptjax.config import resolve as configs
from gptjax.errors import InputError
from gptjax.evaluate.tasks import suite
from gptjax.pretrain.loop import DONE
from gptjax.report import page, telemetry
from gptjax.storage.files import access, paths

ZERO_SHOT = '-zero-shot'  # after the size, in the names of workdirs
NEXT = 'finished runs are kept, and an interrupted one resumes'


class SizeRun(NamedTuple):
  """One run of a sweep: its workdir, a Path or a Url, and its config, not resolved."""
  workdir: Any
  config: Any


def sweep(config, file, workdir, overrides, only, run_job):
  """Run all sizes that have not finished, then write the report to the workdir.

  Args:
    config: of the sweep, with the overrides.
    file: the config file as after `--config=`.
    workdir: folder of the workdirs and of the report, here or in a bucket.
    overrides: names of the fields that the command line sets; they apply to all sizes.
    only: the sizes to run, of `config.sweep.sizes`; empty: all.
    run_job: function of (config, workdir, overrides) that runs a job and returns its exit code.

  Returns:
    Exit code: 0, or that of the first run that has stopped, 75.

  Raises:
    ValueError: the sweep is invalid, before anything is run. What a run raises is raised again after a line
      that has its workdir.
  """
  workdir = paths.location(workdir)
  if access.is_file(workdir / 'config.json'):
    raise InputError(f'{workdir} is the workdir of one run, whose report the sweep would replace: set '
                     '--workdir to a folder of its own')
  sizes = chosen_sizes(config, only)
  runs = [run for size in sizes for run in runs_of(config, file, size, workdir, overrides)]
  overrides = set(overrides) - {'job'}
  for number, run in enumerate(runs, 1):
    shutdown.exit_on_signal(f'stopped between two runs: run the same command again; {NEXT}')
    _log(f'\n{run.workdir.name}: {run.config.job}, run {number} of {len(runs)}, in {run.workdir}')
    try:
      code = run_job(run.config, run.workdir, overrides)
    except Exception:
      _log(f'{run.workdir.name} has failed, run {number} of {len(runs)}: after the cause is removed, run the '
           f'same command again; {NEXT}')
      raise
    if code != DONE:
      _log(f'{run.workdir.name} has stopped with exit code {code}, run {number} of {len(runs)}: run the same '
           f'command again; {NEXT}')
      return code
    _free_memory()
    telemetry.begin_next_run()
  shutdown.exit_on_signal('all runs are finished; stopped before the report: run the same command again')
  if jax.process_index() == 0:
    write_report(config.sweep.sizes, workdir)
  return DONE


def chosen_sizes(config, only):
  """Return the sizes to run, in the order of `config.sweep.sizes` (InputError if there are none)."""
  sizes = config.sweep.sizes
  if not sizes:
    raise InputError('config.sweep.sizes is empty: use a config of several sizes, like configs/gpt2_sweep.py')
  for size in sizes:
    if '/' in size or size.startswith('.') or size.endswith(ZERO_SHOT) or sizes.count(size) > 1:
      raise InputError(f'config.sweep.sizes has {size!r}, which cannot be the name of a workdir: write names '
                       f'once, without "/", a leading "." and the ending {ZERO_SHOT!r}')
  if unknown := [size for size in only if size not in sizes]:
    raise InputError(f'--size={unknown[0]} is not a size of this sweep: the sizes are {", ".join(sizes)}')
  return [size for size in sizes if not only or size in only]


def runs_of(config, file, size, workdir, overrides):
  """Return the SizeRuns of a size: its training or evaluation; after a training, its zero-shot tasks."""
  if ':' in file:
    raise InputError(f'--config={file}: a sweep takes the file without an argument; choose sizes by --size=')
  one = with_overrides(files.load(f'{file}:{size}'), config, overrides)
  one.compilation_cache = config.compilation_cache
  configs.check_fields(one)
  configs.make_paths_absolute(one, overrides)
  if one.job == 'pretrain' and not one.data.mixture:
    one.data.corpus = one.data.corpus or str(workdir / 'corpus')  # of all sizes
  if one.job not in ('pretrain', 'evaluate'):
    raise InputError(f"{file}:{size} has config.job = {one.job!r}: a sweep runs 'pretrain' or 'evaluate'")
  runs = [SizeRun(workdir / size, one)]
  if one.job == 'pretrain' and suite.parse_tasks(config.sweep.tasks, 'sweep.tasks'):
    runs.append(SizeRun(workdir / f'{size}{ZERO_SHOT}', zero_shot_config(one, runs[0].workdir)))
  return runs


def with_overrides(one, config, overrides):
  """Return the config of one size with the values that the command line has set in that of the sweep."""
  for name in set(overrides) - {'job'}:
    section, _, leaf = name.rpartition('.')
    (configs.value_of(one, section) if section else one)[leaf] = configs.value_of(config, name)
  return one


def zero_shot_config(trained, workdir):
  """Return the config of the zero-shot tasks of a run; in float32, as configs/gpt2_zero_shot.py."""
  config = copy.deepcopy(trained)
  config.job, config.init_from = 'evaluate', str(workdir)
  config.eval.tasks, config.model.compute_dtype = trained.sweep.tasks, 'float32'
  config.eval.batch_size = 0
  return config


def write_report(sizes, workdir):
  """Write the report of all runs of a sweep that have begun; those of other machines may be unfinished."""
  # Of two runs with the same metrics, the curves have the name of the last: that of the training.
  folders = [workdir / name for size in sizes for name in (f'{size}{ZERO_SHOT}', size)]
  begun = [folder for folder in folders if access.is_file(folder / 'config.json')]
  with streams.optional('the report'):
    _log(f'\nreport of the sweep: {page.write(begun, workdir)[0]}')


def _free_memory():
  """Free the arrays and programs of a finished run, which the next, larger one needs the memory of."""
  jax.clear_caches()
  gc.collect()  # `gptjax.main` lets cycles live longer


def _log(line):
  if jax.process_index() == 0:
    streams.log(line)
