"""A folder, other than a corpus, that stages fill: links, or counts of languages.

The folder has the results of `run` in `OUT/work` until the manifest is written, with the same content
whichever task writes it. The manifest has the settings; the same call on a complete folder returns it.
Results of another version of gptjax, which may read or select in another way, are not used.
"""

import contextlib
import json
from typing import Any, NamedTuple

import gptjax
from gptjax.data import engines
from gptjax.data.stages import parts, run, work
from gptjax.errors import InputError
from gptjax.storage.files import access, atomic, json_files, records

MANIFEST = 'manifest.json'


class Pipeline(NamedTuple):
  """What a command does; its functions can be imported, so that jobs can be pickled.

  stages: function that returns {name: run.Stage} in their order.
  manifest: function of the job that returns the content of the manifest, a dict without the settings.
  files: beginnings of the names of the files of the folder.
  """
  stages: Any
  manifest: Any
  files: tuple = ()


class Job(NamedTuple):
  """The checked arguments of a command; can be pickled for workers."""
  reading: parts.ReadOptions
  out: object           # Path or Url of the folder
  settings: dict        # everything that the result depends on, as JSON
  options: Any          # of the command
  pipeline: Pipeline
  progress: bool
  borders: list         # of the parts, see `stages.parts`
  known: dict           # what this process has read of the work folder, see `stages.work`

  def __reduce__(self):  # other processes read themselves what they need
    return Job, tuple(self._replace(known={}, progress=False))

  @property
  def n_parts(self):
    return len(self.borders) - 1

  @property
  def work(self):
    """The folder of the results."""
    return work.folder_of(self._replace(settings={**self.settings, 'gptjax': gptjax.__version__}))

  @property
  def stages(self):
    """The stages, {name: run.Stage} in their order."""
    return self.pipeline.stages()

  def finish(self):
    """Write the manifest and return it; None if a result of the last stage is missing."""
    name, last = list(self.stages.items())[-1]
    n = last.count(self)
    if len(work.complete(self.work / name)) < n:
      return None
    manifest = {'settings': self.settings, **self.pipeline.manifest(self)}
    _require_no_others(self, manifest.get('files', ()))
    text = json.dumps(records.add_checksum(manifest), sort_keys=True, indent=1) + '\n'
    path = self.out / MANIFEST
    if not access.create(path, text) and access.read(path) != text.encode():
      raise InputError(f'{self.out} has a manifest now, of another process: run the same command again')
    return manifest


def fill(job, stage, task, tasks, n_workers, run_stage=None):
  """Run the stages of a job, or the share of a task in one of them; returns the manifest, or None.

  Args:
    job: Job.
    stage: 'all', 'status', which prints what is complete, or the name of the stage to run.
    task, tasks: run share `task`, from 0, of `tasks` shares of the stage.
    n_workers: processes of this machine.
    run_stage: another engine, see `run.run_all`; None: processes of this machine.

  Raises:
    InputError: the folder holds something else; a stage before this one is not complete.
  """
  engines.require_share(stage, task, tasks)
  if manifest := _finished(job):
    return manifest
  if stage == engines.STATUS:
    print(run.status(job, tasks))
    return None
  work.make_out(job.out)
  try:
    if stage != engines.ALL:
      manifest = run.run_task(job, stage, task, tasks, n_workers)
    else:
      with contextlib.nullcontext(run_stage) if run_stage else run.processes(job, n_workers) as run_stage:
        manifest = run.run_all(job, run_stage)
  except (InputError, OSError):
    if manifest := _finished(job):  # another task has completed it meanwhile, and removed the work folder
      return manifest
    raise
  if manifest:
    work.remove(job.out)
  return manifest or _finished(job)  # which another task may have completed meanwhile


def _require_no_others(job, files):
  """Raise InputError if the folder holds files of the same kind beside these, as of a run that was given up.

  Whoever reads the files by a pattern, as in `prepare --urls`, would read those too.
  """
  kind = job.pipeline.files
  others = [name for name in access.names(job.out) if name.startswith(kind) and name not in files
            and not atomic.LEFTOVER.fullmatch(name)]
  if others:
    raise InputError(f'{job.out} holds {min(others)}, which is not of these settings: remove its files '
                     f'{"*, ".join(kind)}* and run the same command again, or give another --out')


def _finished(job):
  """Return the manifest of a complete folder, or None; InputError if it holds something else."""
  path = job.out / MANIFEST
  try:
    content = access.read(path)
  except (FileNotFoundError, NotADirectoryError):
    others = [name for name in access.names(job.out)
              if name not in (MANIFEST, work.FOLDER) and not atomic.LEFTOVER.fullmatch(name)
              and not name.startswith(job.pipeline.files)]
    if others and not access.is_file(path):
      raise InputError(f'{job.out} is not empty (it holds {min(others)}): give a new folder as '
                       '--out') from None
    if not access.is_folder(job.work) and not access.is_file(path):
      _require_no_others(job, ())
    return None
  try:
    manifest = records.remove_checksum(records.parse(content))
    fault = json_files.layout_fault(manifest, {'settings': {}})
  except ValueError as error:
    fault = error
  if fault:
    raise InputError(f'{path} is damaged ({fault}): remove {job.out} and run the same command again')
  for name in {**job.settings, **manifest['settings']}:
    stored, value = manifest['settings'].get(name), job.settings.get(name)
    if stored != value:
      raise InputError(f'{job.out} holds the result of another {name} ({str(stored)[:60]}, not '
                       f'{str(value)[:60]}): remove it or give another --out')
  work.remove(job.out)
  return manifest
