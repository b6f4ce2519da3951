"""Reads the data of workdirs for a report."""

from pathlib import Path
from typing import NamedTuple

from gptjax.errors import InputError
from gptjax.report import files, telemetry
from gptjax.storage.files.json_files import layout_fault


class Run(NamedTuple):
  """The data of a workdir; missing files are {}, [] or None.

  name: short name, unique in the report.
  folder: the workdir.
  config: `config.json`: {'config', 'versions', 'devices', 'command'}.
  model: {field: value} of its model, with `parameters` if known.
  records: of metrics.jsonl, of this workdir or the one whose weights it evaluates.
  trained: the fields of the config that these records are of.
  results: `results.json` of an evaluation.
  overlap: `overlap.json`.
  samples: [{'prompt', 'text', 'top_k', 'seed'}] of `samples.json`.
  """
  name: str
  folder: Path
  config: dict
  model: dict
  records: list
  trained: dict
  results: dict
  overlap: dict
  samples: list


def read(workdirs):
  """[Run] of workdirs, the smallest model first.

  Raises:
    ValueError: a workdir does not exist, has nothing to report, or has a damaged file.
  """
  paths = [Path(workdir).resolve() for workdir in workdirs]
  if len(set(paths)) < len(paths):
    raise InputError('a workdir is listed twice: list each once')
  depth = next(depth for depth in range(1, 100) if len({path.parts[-depth:] for path in paths}) == len(paths))
  runs = [_read(Path(workdir), '/'.join(path.parts[-depth:]))
          for workdir, path in zip(workdirs, paths, strict=True)]
  return sorted(runs, key=lambda run: run.model['parameters'])


def _read(folder, name):
  if not folder.is_dir():
    raise InputError(f'workdir {folder} does not exist')
  config = files.read_config(folder)
  fields, results = config['config'], {}
  if fields['job'] == 'evaluate':  # the results of fine-tuning have a table of their own
    results = files.read(folder / 'results.json', files.RESULTS, {})
  metrics, trained = telemetry.read_metrics(folder / 'metrics.jsonl'), config
  if not metrics and fields['init_from']:
    source = Path(fields['init_from']).expanduser()
    metrics = telemetry.read_metrics(source / 'metrics.jsonl')
    trained = files.read(source / 'config.json', files.CONFIG, config) if metrics else config
  model = {**fields['model'], **results.get('model', {})}
  model['parameters'] = model.get('parameters') or _parameters(folder, fields['model'])
  if fault := layout_fault(model, files.MODEL):
    raise InputError(f'{folder}/config.json is damaged, or of another version: of the model, {fault}')
  return Run(name, folder, config, model, metrics, trained['config'], results,
             files.read(folder / 'overlap.json', files.OVERLAP, {}),
             files.read(folder / 'samples.json', files.SAMPLES, []))


def _parameters(folder, fields):
  from types import SimpleNamespace

  from gptjax.model.size import n_params
  try:
    return n_params(SimpleNamespace(**fields))
  except (AttributeError, TypeError) as error:
    raise InputError(f'{folder}/config.json does not describe a model ({error})') from None


def trained(found):
  """Return the runs that have a training loss, without duplicates of a run."""
  return list({str(run.records): run for run in found if curve(run, 'train/loss')[0]}.values())


def curve(run, metric):
  """Return ([step], [value]) of a metric in metrics.jsonl."""
  points = [(record['step'], record[metric]) for record in run.records if record.get(metric) is not None]
  return [step for step, _ in points], [value for _, value in points]


def value(run, task, metric):
  """Return a metric of a task in results.json; None if it was not run."""
  return run.results.get('tasks', {}).get(task, {}).get(metric)
